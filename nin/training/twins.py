"""The twin of a run: the same training without noise, which shows what plain SGD does by itself."""

from collections.abc import Sequence

from nin.training.config import RunConfig


def twins(configs: Sequence[RunConfig]) -> tuple[list[RunConfig], list[int]]:
    """The twins that an ensemble needs in addition, and for each run the index, among runs and twins, of its own.

    The twin has the run's initial weights and batches and sigma = 0. Runs that differ in sigma, law, resampling or NIW
    scale share one; a run at sigma = 0 is its own.
    """
    silent: dict[tuple[int, float], int] = {}
    for run, config in enumerate(configs):
        if config.sigma == 0 or not config.nodes:
            silent.setdefault((config.seed, config.lr), run)
    added = []
    for config in configs:
        if (config.seed, config.lr) not in silent:
            silent[config.seed, config.lr] = len(configs) + len(added)
            added.append(config.replace(sigma=0.0))
    return added, [silent[config.seed, config.lr] for config in configs]

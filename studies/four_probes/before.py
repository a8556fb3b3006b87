"""What is known of a run before its first step: its control number, its phase, and noise scales for each phase."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from torch import nn

from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.phases import PHASES
from nin.probes.curvature.critical import JUDGES, TRIALS
from nin.probes.prediction import Prediction, predict, rates
from nin.training.config import RunConfig
from nin.training.start import build, with_node

Factory = Callable[[], nn.Module]
MARGIN = 3.0  # factor in sigma from the border to the runs that should be decoupled, or divergent; ours


def predictions(
    base: RunConfig,
    data: Dataset,
    *,
    sigmas: Sequence[float],
    seeds: Sequence[int],
    network: Factory | None = None,
    scales: bool = False,
) -> dict[tuple[float, int], Prediction]:
    """`nin.predict` of each run, by (sigma, seed); scales: also the noise scales at which the phases begin."""
    found = {}
    for seed in seeds:
        plain = build(base.replace(seed=seed), data, network)
        for sigma in sigmas:
            config = base.replace(seed=seed, sigma=float(sigma))
            found[float(sigma), seed] = predict(
                with_node(config, plain, data, network), data.x_train, data.y_train, loss=LOSSES[base.loss],
                lr=base.lr, batch_size=base.batch_size, steps=base.steps, generator=config.generator("curvature"),
                scales=scales,
            )  # fmt: skip
    return found


def borders(base: RunConfig, data: Dataset, *, seeds: Sequence[int], network: Factory | None = None) -> pd.DataFrame:
    """The sigma at which each phase begins, predicted for each seed: rows seeds, columns decay, catapult, divergent."""
    found = predictions(base, data, sigmas=[base.sigma], seeds=seeds, network=network, scales=True)
    rows = {seed: {scale.phase: scale.sigma for scale in one.scales} for (_, seed), one in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index")[list(PHASES[1:])]


def one_of_each(begins: pd.DataFrame) -> dict[str, float]:
    """A sigma for each phase, from `borders`: the geometric middle of its range, or a factor MARGIN from the border.

    Geometric means over seeds. Raises ValueError if a border is 0 or infinite: then no sigma makes that phase.
    """
    means = np.exp(np.log(begins).mean())
    if not np.isfinite(np.log(begins)).to_numpy().all():
        raise ValueError(f"begins={means.to_dict()} must be finite and positive; change lr, or the number of steps.")
    decay, catapult, divergent = means[list(PHASES[1:])]
    decay = min(decay, catapult)
    middles = decay / MARGIN, np.sqrt(decay * catapult), np.sqrt(catapult * divergent), MARGIN * divergent
    return dict(zip(PHASES, map(float, middles), strict=True))


def critical_rates(
    base: RunConfig,
    data: Dataset,
    *,
    sigmas: Sequence[float],
    seeds: Sequence[int],
    network: Factory | None = None,
) -> dict[int, pd.Series]:
    """eta_1 of the network of each seed at each noise scale: seed -> series over sigma."""
    found = {}
    for seed in seeds:
        config = base.replace(seed=seed, sigma=1.0)
        noisy = with_node(config, build(config, data, network), data, network)
        measured = rates(
            noisy, data.x_train, data.y_train, sigmas=list(map(float, sigmas)), loss=LOSSES[base.loss],
            batch_size=base.batch_size, generator=config.generator("curvature"), trials=TRIALS, judges=JUDGES,
        )  # fmt: skip
        found[seed] = pd.Series([one.rate for one, _ in measured], pd.Index(map(float, sigmas), name="sigma"))
    return found

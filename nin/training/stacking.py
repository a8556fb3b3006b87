"""Which runs can be trained as one ensemble."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from nin.support.arguments import described
from nin.training.config import RunConfig

MAY_DIFFER = ("sigma", "seed", "niw_std", "law", "resample", "lr")


def must_agree(config: RunConfig) -> tuple:
    """The values of all fields in which the runs of one ensemble must agree.

    They include lr for Adam and for weight decay: only the steps of plain SGD, with or without momentum, scale with
    the loss.
    """
    lr = config.lr if config.optimizer != "sgd" or config.weight_decay else None
    return (*(getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in MAY_DIFFER), lr)


def check_stackable(configs: Sequence[RunConfig]) -> tuple[RunConfig, ...]:
    """The configs; ValueError, naming the fields, if they cannot be trained as one ensemble."""
    if isinstance(configs, (str, Mapping, type)) or not isinstance(configs, Iterable):
        raise ValueError(f"{described('configs', configs)} must be a nin.RunConfig, or a sequence of them.")
    configs = tuple(configs)
    if not configs:
        raise ValueError("configs is empty: pass at least one RunConfig.")
    for config in configs:
        if not isinstance(config, RunConfig):
            raise ValueError(f"configs holds a {type(config).__name__}, expected RunConfig.")
    if len({must_agree(config) for config in configs}) == 1:
        return configs
    differ = [f.name for f in dataclasses.fields(RunConfig) if len({getattr(c, f.name) for c in configs}) > 1]
    not_allowed = [name for name in differ if name not in MAY_DIFFER]
    if not_allowed:
        raise ValueError(
            f"configs cannot be stacked: they differ in {', '.join(not_allowed)}. One ensemble may differ in "
            f"{', '.join(MAY_DIFFER)}; call train once for each value of the others, or nin.sweep, which groups them."
        )
    raise ValueError(
        f"configs cannot be stacked: they differ in lr with optimizer={configs[0].optimizer!r}, "
        f"weight_decay={configs[0].weight_decay}; only plain SGD, with or without momentum, allows that. "
        "Call train once for each lr, or nin.sweep, which groups them."
    )

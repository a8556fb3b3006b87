"""Which runs train together, and how many at once."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from torch import nn

from nin.config import RunConfig
from nin.sites import linear_layers

MAY_DIFFER = ("sigma", "seed", "niw_std", "law", "resample", "lr")
# Measured with `python -m benchmarks groups` (benchmarks/RESULTS.md): the time of a member's step against the size of
# its group is flat around the one whose weights, activations and their gradients take 16 MiB together.
GROUP_BYTES = {"cpu": 2**24, "cuda": 2**30}
SMALLEST, LARGEST = 4, 256  # even: two threads share a group's products by member


def must_agree(config: RunConfig) -> tuple:
    """The values of all fields in which the runs of one ensemble have to agree.

    lr is among them for Adam and with weight decay: only plain SGD's steps, momentum included, scale with the loss.
    """
    lr = config.lr if config.optimizer != "sgd" or config.weight_decay else None
    return (*(getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in MAY_DIFFER), lr)


def check_stackable(configs: Sequence[RunConfig]) -> None:
    """Raise ValueError, naming the fields, where the configs cannot be trained as one ensemble."""
    if not configs:
        raise ValueError("configs is empty: pass at least one RunConfig.")
    for config in configs:
        if not isinstance(config, RunConfig):
            raise ValueError(f"configs holds a {type(config).__name__}, expected RunConfig.")
    if len({must_agree(config) for config in configs}) == 1:
        return
    differ = [f.name for f in dataclasses.fields(RunConfig) if len({getattr(c, f.name) for c in configs}) > 1]
    not_allowed = [name for name in differ if name not in MAY_DIFFER]
    if not_allowed:
        raise ValueError(
            f"configs cannot be stacked: they differ in {', '.join(not_allowed)}. One ensemble may differ in "
            f"{', '.join(MAY_DIFFER)}; call train once for each other value, or nin.sweep, which groups them."
        )
    raise ValueError(
        f"configs cannot be stacked: they differ in lr with optimizer={configs[0].optimizer!r}, "
        f"weight_decay={configs[0].weight_decay}; only plain SGD, momentum included, may. "
        "Call train once for each lr, or nin.sweep, which groups them."
    )


def group_size(config: RunConfig, network: nn.Module, device: str = "cpu") -> int:
    """How many runs to train at once: as many as GROUP_BYTES hold, between SMALLEST and LARGEST, an even number.

    A member takes 2 (parameters + batch_size x units of its linear layers) numbers: values and gradients.
    """
    parameters = sum(p.numel() for p in network.parameters())
    units = sum(network.get_submodule(name).out_features for name in linear_layers(network))
    itemsize = 4 if config.dtype == "float32" else 8
    size = GROUP_BYTES.get(device, GROUP_BYTES["cuda"]) // (2 * itemsize * (parameters + config.batch_size * units))
    return min(max(size - size % 2, SMALLEST), LARGEST)


def groups(
    configs: Sequence[RunConfig], size: Callable[[RunConfig], int], *, workers: int = 1
) -> list[tuple[RunConfig, ...]]:
    """Cut the runs, in their order, into groups that can be stacked, none larger than size(config) of their first.

    What is stacked is cut evenly, into a multiple of the number of workers, but not into less than two runs: one alone
    is trained as a pair.
    """
    stacks: dict[tuple, list[RunConfig]] = {}
    for config in configs:
        stacks.setdefault(must_agree(config), []).append(config)
    cut = []
    for stack in stacks.values():
        rounds = math.ceil(len(stack) / size(stack[0]) / workers)
        most = min(max(math.ceil(len(stack) / rounds / workers), 2), size(stack[0]))
        cut += [tuple(stack[start : start + most]) for start in range(0, len(stack), most)]
    return cut

"""Which runs train together, and how many at once."""

import math
from collections.abc import Callable, Sequence

from torch import nn

from nin.model.sites import linear_layers
from nin.training.config import RunConfig
from nin.training.stacking import must_agree

# Measured with `python -m benchmarks groups` (benchmarks/RESULTS.md): the time per member and step is flat around the
# group size at which weights, activations and their gradients together take 16 MiB.
GROUP_BYTES = {"cpu": 2**24, "cuda": 2**30}
SMALLEST, LARGEST = 4, 256  # even: two threads divide a group's products by member


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
    """Divide the runs, in order, into groups that can be stacked, none larger than size(config) of its first run.

    Runs that can be stacked are divided evenly, into a multiple of the number of workers, but into groups of at least
    two: a run alone is trained as a pair.
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

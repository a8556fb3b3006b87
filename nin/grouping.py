"""Which runs train together, how many at once, and on how many threads."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from nin.config import RunConfig
from nin.nodes import linear_layers

MAY_DIFFER = ("sigma", "seed", "niw_std", "law", "resample", "lr")
# Measured with `python -m benchmarks groups` (benchmarks/RESULTS.md): the time of a member's step against the size of
# its group is flat around the one whose weights, activations and their gradients take 16 MiB together.
GROUP_BYTES = {"cpu": 2**24, "cuda": 2**30}
SMALLEST, LARGEST = 4, 256  # even: two threads share a group's products by member
ONE_THREAD_BELOW = 2**21  # multiply-adds in the largest product of a step, from the same table


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
    size = GROUP_BYTES[device] // (2 * itemsize * (parameters + config.batch_size * units))
    return min(max(size - size % 2, SMALLEST), LARGEST)


def groups(configs: Sequence[RunConfig], sizes: Sequence[int]) -> list[tuple[RunConfig, ...]]:
    """Cut the runs, in their order, into groups that can be stacked, none larger than the sizes (one a run) allow."""
    stacks: dict[tuple, list[int]] = {}
    for index, config in enumerate(configs):
        stacks.setdefault(must_agree(config), []).append(index)
    return [
        tuple(configs[index] for index in stack[start : start + sizes[stack[0]]])
        for stack in stacks.values()
        for start in range(0, len(stack), sizes[stack[0]])
    ]


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run torch on that many threads, None: as many as it has, and set its number back afterwards."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(multiply_adds: int) -> int | None:
    """One thread where the largest product of a step is small and more would only wait for each other, else None."""
    return 1 if multiply_adds < ONE_THREAD_BELOW else None

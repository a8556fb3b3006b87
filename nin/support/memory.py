"""How much memory a computation may take, and the refusal, before it starts, of one that needs more."""

import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nin.support import cores

Result = TypeVar("Result")


def limit(device: torch.device | None = None) -> float:
    """The bytes that are free on a device, for the CPU those of `nin.support.cores.memory`; inf if unknown."""
    if device is not None and device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device is not None and device.type != "cpu":
        return float("inf")
    return cores.memory()


def check_memory(what: str, needed: float, advice: str, *, device: torch.device | None = None) -> None:
    """ValueError if a computation needs more bytes than `limit`; what: its name and sizes, advice: what to do."""
    if needed > (most := limit(device)):
        raise ValueError(f"{what} takes {needed / 1e9:.3g} GB of memory (limit: {most / 1e9:.3g} GB); {advice}.")


def kept(compute: Callable[[], Result], without: Iterable[Tensor]) -> tuple[Result, list[int]]:
    """A result, and the bytes of each tensor that autograd keeps for its gradient, except the tensors of `without`."""
    sizes: dict[int, int] = {}

    def see(saved: Tensor) -> Tensor:
        place = saved.untyped_storage().data_ptr()
        sizes[place] = max(saved.numel() * saved.element_size(), sizes.get(place, 0))
        return saved

    with _uncompiled(), torch.enable_grad(), saved_tensors_hooks(see, lambda saved: saved):
        result = compute()
    own = {tensor.untyped_storage().data_ptr() for tensor in without}
    return result, [size for place, size in sizes.items() if place not in own]


def kept_of(compute: Callable[[int], Any], samples: int, without: Iterable[Tensor]) -> float:
    """The bytes that autograd keeps for so many samples, from `compute` of two of them and of one.

    What is kept once for all, such as a weight that is computed from others, does not grow with them; where one sample
    is not enough, for a batch norm, it is taken to.
    """
    without = list(without)
    two = sum(kept(lambda: compute(2), without)[1])
    try:
        one = sum(kept(lambda: compute(1), without)[1])
    except ValueError:
        one = two / 2
    return one + (samples - 1) * (two - one)


def _uncompiled() -> contextlib.AbstractContextManager:
    """Compiled modules run as they were written: torch would compile the hooks of the saved tensors with them."""
    loaded = "torch._dynamo" in sys.modules  # as soon as anything is compiled; it takes long to import
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()

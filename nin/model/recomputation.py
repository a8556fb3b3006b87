"""Noise under gradient checkpointing: the forward pass that backward repeats must meet the noise of the first one."""

import sys
from collections import deque
from dataclasses import dataclass
from types import CodeType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import checkpoint

from nin.support.precision import widest

MEMORY = 64  # calls of a layer that can wait for their backward pass; more micro-batches than a step commonly has
_FILE = checkpoint.__file__


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread, as checkpointing itself asks."""
    return torch._C._current_graph_task_id() != -1


def checkpointed(owner: CodeType) -> Literal["inside", "around"] | None:
    """Where a checkpoint is among the callers: inside the call of a function, around it, or nowhere.

    owner   the code of that function. "around" also if the function is not among the callers.
    """
    frame, inside = sys._getframe(1), False
    found: Literal["inside", "around"] | None = None
    while frame is not None:
        if frame.f_code is owner:
            inside = True
        elif frame.f_code.co_filename == _FILE:
            found = "around" if inside else "inside"
            break
        frame = frame.f_back
    return found


@dataclass
class Call:
    """What entered a layer in one call, in brief, the noise it got, and whether backward has repeated it."""

    values: Float[Tensor, " brief"]
    shape: torch.Size
    eps: Float[Tensor, "batch nodes"]
    repeated: bool = False


class Calls:
    """The recent calls of each layer that a checkpoint will repeat, recognised by the values that enter it."""

    def __init__(self) -> None:
        self._calls: dict[int, deque[Call]] = {}

    @property
    def waiting(self) -> bool:
        """Whether backward has not repeated all calls yet."""
        return any(not call.repeated for calls in self._calls.values() for call in calls)

    def remember(self, site: int, values: Tensor, eps: Float[Tensor, "batch nodes"]) -> None:
        call = Call(_brief(values), values.shape, eps.detach())
        self._calls.setdefault(site, deque(maxlen=MEMORY)).append(call)

    def find(self, site: int, values: Tensor, layer: str) -> Float[Tensor, "batch nodes"]:
        """The noise of the call that is being repeated; ValueError if it is not known which that is."""
        brief = _brief(values)
        same = [c for c in self._calls.get(site, ()) if c.shape == values.shape and torch.equal(c.values, brief)]
        waiting = [call for call in same if not call.repeated] or same[-1:]
        if not waiting or any(not torch.equal(call.eps, waiting[0].eps) for call in waiting):
            what = f"{len(waiting)} calls with these values" if waiting else "no call with these values"
            raise ValueError(
                f"layer={layer!r} is computed again by gradient checkpointing, and of its last {MEMORY} calls {what} "
                "wait for a backward pass, so that its noise is not known. Call backward after each forward pass, or "
                "inject into a layer that is not checkpointed."
            )
        waiting[0].repeated = True
        return waiting[0].eps


@torch.no_grad()
def _brief(values: Tensor) -> Float[Tensor, "3"]:
    """Three sums over all values, which a repeated computation gives bit for bit."""
    flat = values.detach().flatten().to(widest(values)).nan_to_num()
    return torch.stack([flat.sum(), flat.square().sum(), (flat * torch.arange(len(flat), device=flat.device)).sum()])

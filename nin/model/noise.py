"""The noise that a node injects: laws of mean 0 and variance 1."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LAWS: dict[str, Callable[..., Tensor]] = {
    "gaussian": lambda *shape, generator: torch.randn(*shape, dtype=torch.float64, generator=generator),
    "uniform": lambda *shape, generator: (
        math.sqrt(12) * (torch.rand(*shape, dtype=torch.float64, generator=generator) - 0.5)
    ),
    "rademacher": lambda *shape, generator: (
        2.0 * torch.randint(2, shape, dtype=torch.float64, generator=generator) - 1.0
    ),
}


def draw_noise(count: int, nodes: int, *, law: str, generator: torch.Generator) -> Float[Tensor, "count nodes"]:
    """eps of mean 0 and variance 1 in float64 on the CPU; laws: gaussian, uniform on +-sqrt(3), rademacher (+-1)."""
    return LAWS[law](count, nodes, generator=generator)

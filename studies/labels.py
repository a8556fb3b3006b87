"""Wrong labels: a fraction of the training samples gets another class, chosen at random."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from nin.support.arguments import check_count, check_number


def flipped(
    y: Int[Tensor, " n"], fraction: float, *, classes: int, generator: torch.Generator
) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Labels of which this fraction is wrong, each one of the other classes with equal chance, and which they are.

    With one generator state, a larger fraction contains the wrong samples of a smaller one.
    Raises ValueError for a fraction outside [0, 1] or fewer than 2 classes.
    """
    check_number("fraction", fraction)
    check_count("classes", classes, minimum=2)
    if fraction > 1:
        raise ValueError(f"fraction={fraction} must lie in [0, 1].")
    order = torch.randperm(len(y), generator=generator)
    shift = torch.randint(1, classes, (len(y),), generator=generator)
    wrong = torch.zeros(len(y), dtype=torch.bool)
    wrong[order[: round(fraction * len(y))]] = True
    return torch.where(wrong, (y + shift) % classes, y), wrong

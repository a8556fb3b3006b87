"""Adversarial test images: small changes chosen by the gradient of the loss."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.support.arguments import check_count, check_number

Loss = Callable[[Tensor, Tensor], Tensor]


def fgsm(
    model: nn.Module,
    x: Float[Tensor, " n *shape"],
    y: Shaped[Tensor, "n ..."],
    *,
    loss: Loss,
    radius: float,
    low: float,
    high: float,
) -> Float[Tensor, " n *shape"]:
    """x + radius sign(dl/dx), clipped to [low, high]: the fast gradient sign method (Goodfellow et al., 1412.6572).

    radius, low, high in the units of x. Raises ValueError for a negative radius.
    """
    check_number("radius", radius)
    return (x + radius * _gradient(model, x, y, loss).sign()).clamp(low, high)


def pgd(
    model: nn.Module,
    x: Float[Tensor, " n *shape"],
    y: Shaped[Tensor, "n ..."],
    *,
    loss: Loss,
    radius: float,
    low: float,
    high: float,
    steps: int = 20,
    seed: int = 0,
) -> Float[Tensor, " n *shape"]:
    """Projected gradient descent in the l_infinity ball from a random start (Madry et al., 1706.06083).

    Each step moves by 2.5 radius / steps along sign(dl/dx) and is projected back onto the ball and [low, high].
    Raises ValueError for a negative radius or steps < 1.
    """
    check_number("radius", radius)
    check_count("steps", steps)
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x)
    moved = (x + radius * (2 * start - 1)).clamp(low, high)
    for _ in range(steps):
        moved = moved + 2.5 * radius / steps * _gradient(model, moved, y, loss).sign()
        moved = torch.clamp(moved, x - radius, x + radius).clamp(low, high)
    return moved


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    x = x.detach().requires_grad_()
    with evaluating(model), torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(model(x), y).sum(), x)
    return gradient

"""The curvature as noise of a finite size sees it, kinks of ReLU included."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.nodes import NoisyNetwork
from nin.model.sites import find_site
from nin.support.arguments import check_count, check_number


def noise_averaged(
    model: nn.Module,
    layer: str,
    x: Tensor,
    y: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    direction: Float[Tensor, " d"],
    amplitude: float,
    pairs: int = 32,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """v.E[eps dl/dz(z + eps v)] / A^2 along a unit vector v, eps ~ N(0, A^2), and its standard error over draws.

    It is dL/dW_NI along W_NI = v of length one and noise A (equation (4) of the reference), from `pairs` antithetic
    draws +-eps for every sample, and v.<H>v + O(A^2) where the loss is smooth. loss(outputs, y) gives the mean or the
    per-sample losses. generator: CPU generator of the draws; None: one seeded with 0.
    Raises ValueError for an unknown layer, an amplitude that is not positive, fewer than 2 pairs.
    """
    check_number("amplitude", amplitude, exclusive=True)
    check_count("pairs", pairs, minimum=2)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    site = find_site(model, layer, example=x[:2])
    v = (direction / direction.norm()).view(1, *site.shape)
    noisy = NoisyNetwork(model, [site], niw=[v], sigma=[amplitude], law="gaussian", generator=generator)
    pulls = [(gradient * v).sum().double() for _, gradient in antithetic(noisy, x, y, loss=loss, pairs=pairs)]
    draws = torch.stack(pulls) / amplitude**2
    return draws.mean().item(), (draws.std() / pairs**0.5).item()


def antithetic(
    noisy: NoisyNetwork, x: Tensor, y: Tensor, *, loss: Callable[[Tensor, Tensor], Tensor], pairs: int
) -> Iterator[tuple[float, Tensor]]:
    """(L(eps) + L(-eps)) / 2 and its gradient by the weights of the one node, for so many draws of eps."""
    for _ in range(pairs):
        eps = noisy.draw(len(x))
        with evaluating(noisy.network), torch.enable_grad():
            total = (loss(noisy(x, eps), y).mean() + loss(noisy(x, -eps), y).mean()) / 2
            (gradient,) = torch.autograd.grad(total, noisy.niw)
        yield total.item(), gradient

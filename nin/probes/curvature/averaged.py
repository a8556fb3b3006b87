"""The curvature averaged over noise of finite amplitude, including the kinks of ReLU."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.functional import naming_derivatives
from nin.model.nodes import NoisyNetwork
from nin.model.shift import no_hooks_left
from nin.model.sites import find_site
from nin.model.views import Forward, Inputs, targeted, viewed
from nin.support.arguments import check_count, check_number


def noise_averaged(
    model: nn.Module,
    layer: str,
    x: Inputs,
    y: Inputs,
    *,
    loss: Callable[..., Tensor],
    direction: Float[Tensor, " d"],
    amplitude: float,
    pairs: int = 32,
    generator: torch.Generator | None = None,
    forward: Forward | None = None,
    at: str | None = None,
    batch_axis: int | None = None,
) -> tuple[float, float]:
    """v.E[eps dl/dz(z + eps v)] / A^2 along a unit vector v, eps ~ N(0, A^2), and its standard error over draws.

    This is dL/dW_NI along W_NI = v, |v| = 1, under noise of amplitude A (equation (4) of the reference), estimated from
    `pairs` antithetic draws +-eps for every sample; for a smooth loss it equals v.<H>v + O(A^2).

    loss       loss(outputs, y) -> the mean or the per-sample losses; x, y and forward as in `local_hessian`
    direction  v (d,), of any length
    amplitude  A, in the units of the pre-activation
    generator  a CPU generator; None: one with seed 0
    at, batch_axis    where the noise enters, as in `nin.inject`; a layer that is called several times gets the same
               noise in all its calls
    Raises ValueError for an unknown layer, an amplitude that is not positive, fewer than 2 pairs, and a direction that
    does not have one entry for each unit there.
    """
    check_number("amplitude", amplitude, exclusive=True)
    check_count("pairs", pairs, minimum=2)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    (model, x), (loss, y) = viewed(model, forward, x), targeted(loss, y)
    site = find_site(model, layer, at=at, example=x[:2], batch_axis=batch_axis)
    if len(direction) != math.prod(site.shape):
        raise ValueError(
            f"direction has {len(direction)} entries, and the {site.at} of {layer!r} has {math.prod(site.shape)} units "
            f"{site.shape}; choose the input or the pre-activation by at=."
        )
    v = (direction / direction.norm()).view(1, *site.shape)
    law = {"law": "gaussian", "generator": generator, "calls": "same"}
    noisy = NoisyNetwork(model, [site], niw=[v], sigma=[amplitude], **law)
    pulls = [(gradient * v).sum().cpu().double() for _, gradient in antithetic(noisy, x, y, loss=loss, pairs=pairs)]
    draws = torch.stack(pulls) / amplitude**2
    return draws.mean().item(), (draws.std() / pairs**0.5).item()


def antithetic(
    noisy: NoisyNetwork, x: Tensor, y: Tensor, *, loss: Callable[[Tensor, Tensor], Tensor], pairs: int
) -> Iterator[tuple[float, Tensor]]:
    """(L(eps) + L(-eps)) / 2 and its gradient in the weights of the single node, for `pairs` draws of eps."""
    for _ in range(pairs):
        eps = noisy.draw(len(x))
        with evaluating(noisy.network), torch.enable_grad(), naming_derivatives(), no_hooks_left(noisy):
            total = sum(_mean_loss(noisy, x, y, signed, loss) for signed in (eps, -eps)) / 2
            (gradient,) = torch.autograd.grad(total, noisy.niw)
        yield total.item(), gradient


def _mean_loss(
    noisy: NoisyNetwork, x: Tensor, y: Tensor, eps: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    with noisy.using(eps):
        return loss(noisy(x), y).mean()

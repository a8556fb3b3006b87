"""<H> of a multilayer perceptron in closed form: matrix products alone, without second derivatives of the network."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from nin.model.networks import ACTIVATIONS, MLP, ScaledLinear
from nin.probes.curvature.differentiable import Loss, is_mean

SLICE = 2**19  # numbers of A at a time, 2 MiB, about a core's cache; the time is the same within a fifth up to 2^21
# phi' and phi'' from z and h = phi(z); None: zero everywhere, as autograd has it at the kinks of ReLU too
SLOPES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor] | None]] = {
    "relu": (lambda z, h: (z > 0).to(z), None),
    "tanh": (lambda z, h: 1 - h**2, lambda z, h: -2 * h * (1 - h**2)),
    "softplus": (lambda z, h: torch.sigmoid(z), lambda z, h: torch.sigmoid(z) * torch.sigmoid(-z)),
    "linear": (lambda z, h: torch.ones_like(z), None),
}


def in_closed_form(model: nn.Module, layer: str, at: str | None, x: Tensor) -> bool:
    """Whether `perceptron_hessian` is the Hessian at this place: of an MLP as it is, which nothing hooks into."""
    if type(model) is not MLP or at == "input" or x.dim() != 2 or x.dtype != model.layers[0].weight.dtype:
        return False
    bare = all(type(part) is ScaledLinear for part in model.layers) and layer.startswith("layers.")
    parts = list(model.modules())
    hooked = any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in parts)
    hooked = hooked or torch.nn.modules.module._has_any_global_hook()
    return bare and not hooked and not torch.is_autocast_enabled(x.device.type)


@torch.no_grad()
def perceptron_hessian(
    model: MLP, layer: str, x: Float[Tensor, "n inputs"], y: Shaped[Tensor, "n ..."], *, loss: Loss
) -> Float[Tensor, "d d"] | None:
    """<H> at the pre-activation of `layers.k`, with A_l = dz_l / dz_k (d_l, d) for each sample, A_k = 1:

        H = sum_(k <= l < L) A_l^T diag(phi''(z_l) dl/dh_l) A_l + A_L^T (d^2 l / df^2) A_L,    A_(l+1) = W A_l phi'(z_l)

    averaged over the samples, of which some are taken at a time; None for a loss that is not a mean over them. Where
    phi'' = 0 only A_L is needed, and is built from the outputs down if these are fewer than the d units.
    """
    start = int(layer.removeprefix("layers."))
    sizes = [part.out_features for part in model.layers[start:]]
    down = SLOPES[model.activation][1] is None and sizes[-1] < sizes[0]
    most = (sizes[-1] if down else sizes[0]) * max(sizes)
    parts = list(zip(*(values.split(max(1, SLICE // most)) for values in (x, y)), strict=True))
    if len(parts) > 1 and not is_mean([model(part) for part, _ in parts], [targets for _, targets in parts], loss):
        return None
    return sum(len(part) / len(x) * _of_part(model, start, part, targets, loss, down) for part, targets in parts)


def _of_part(model: MLP, start: int, x: Tensor, y: Tensor, loss: Loss, down: bool) -> Float[Tensor, "d d"]:
    phi, (slope, bend) = ACTIVATIONS[model.activation], SLOPES[model.activation]
    slopes, bends = [], []  # phi'(z_l), phi''(z_l) of the layers from start on, without the last
    z = model.layers[0](x)
    for index, following in enumerate(model.layers[1:]):
        h = phi(z)
        if index >= start:
            slopes.append(slope(z, h))
            bends.append(None if bend is None else bend(z, h))
        z = following(h)
    weights = [part.weight * part.scale for part in model.layers[start + 1 :]]  # (d_(l+1), d_l)
    g, curved = torch.func.vjp(torch.func.grad(lambda f: loss(f, y).mean()), z)  # dl/df (n, C)
    if down:
        return _outer(_from_outputs(weights, slopes, z), curved)
    for place in reversed(range(len(weights))):
        g = g @ weights[place]  # dl/dh_l
        if bend is not None:
            bends[place] = bends[place] * g
        g = g * slopes[place]
    units = model.layers[start].out_features
    A = torch.eye(units).to(z).expand(len(x), -1, -1)  # (n, d_l, d)
    total = x.new_zeros(units, units)
    for place, (weight, phi1, c) in enumerate(zip(weights, slopes, bends, strict=True)):
        if c is not None:
            total += torch.diag(c.sum(0)) if not place else (c.unsqueeze(2) * A).flatten(0, 1).mT @ A.flatten(0, 1)
        A = weight @ (phi1.unsqueeze(2) * A) if place else weight * phi1.unsqueeze(1)
    return total + _outer(A, curved)


def _from_outputs(weights: list[Tensor], slopes: list[Tensor], outputs: Tensor) -> Float[Tensor, "n C d"]:
    """A_L of each sample, built from the last layer down."""
    A = torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1)
    for weight, phi1 in zip(weights[::-1], slopes[::-1], strict=True):
        A = (A @ weight) * phi1.unsqueeze(1)
    return A


def _outer(A: Float[Tensor, "n C d"], curved: Callable[[Tensor], tuple[Tensor]]) -> Float[Tensor, "d d"]:
    """sum_i A_i^T (d^2 l / df^2 A)_i, the second derivatives by autograd in the outputs alone."""
    bent = torch.vmap(lambda v: curved(v)[0], in_dims=2, out_dims=2)(A)
    return A.flatten(0, 1).mT @ bent.flatten(0, 1)

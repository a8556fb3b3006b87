"""What moves the noise injection weights of one network: mean pull, gradient noise and curvature, from fresh noise."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nin.model.evaluating import evaluating
from nin.model.nodes import NoisyNetwork
from nin.model.noise import draw_noise
from nin.support.arguments import check_count

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pull:
    """First two moments of u_i = eps_i dl_i/dz(z_i + eps_i W), the gradient of sample i in W_NI = W, over x and eps.

    along    W.m / |W|^2 with m = E u: kappa_avg = eta along (equation (4), averaged); eta sigma^2 times a curvature
    across   |m|^2 / |W|^2 >= along^2, equal if the pull is parallel to W
    trace_G  tr Cov(u) / sigma^2; for small W the tr G of equation (6), the trace of <g g^T>
    of_W     W.Cov(u) W / |W|^4: the noise of the pull along W
    stderr   standard error of `along` from the scatter between draws
    """

    along: float
    across: float
    trace_G: float
    of_W: float
    stderr: float


def measure(
    noisy: NoisyNetwork,
    x: Float[Tensor, "n ..."],
    y: Tensor,
    *,
    loss: Loss,
    sigma: float,
    generator: torch.Generator,
    law: str = "gaussian",
    pairs: int = 2,
) -> Pull:
    """The pull on the weights of a single node on the pre-activation of an nn.Linear, from antithetic draws +-eps.

    loss   per-sample losses, as in nin.model.losses
    sigma  standard deviation of the noise;  law  its law
    pairs  draws +-eps for each sample; |m|^2 is the product of the means of different draws, so that it is unbiased
    Raises ValueError unless the network has one node, on a pre-activation, with W_NI and sigma other than 0.
    """
    check_count("pairs", pairs, minimum=2)
    site = noisy.sites[0]
    if len(noisy.sites) > 1 or noisy.niw.shape[0] > 1 or site.at != "preactivation" or site.channels_first:
        raise ValueError("noisy must have a single node, on the pre-activation of an nn.Linear.")
    w = noisy.niw.detach()[0]
    if not sigma or not w.any():
        raise ValueError(f"sigma={sigma!r}, |W_NI|={float(w.norm()):g}: both must be above 0 for a pull.")
    means, square, along_square = [], 0.0, 0.0
    both_x, both_y = torch.cat([x, x]), torch.cat([y, y])
    for _ in range(pairs):
        eps = (sigma * draw_noise(len(x), 1, law=law, generator=generator)).to(w)
        eps = torch.cat([eps, -eps])  # (2 n, 1)
        u = (eps * gradients(noisy, both_x, both_y, eps, loss=loss)).double()  # (2 n, d)
        means.append(u.mean(0))  # (d,)
        square += float(u.square().sum(1).mean()) / pairs
        along_square += float((u @ w.double()).square().mean()) / pairs
    mean, norm = torch.stack(means), float(w.double().square().sum())  # (pairs, d)
    along = mean @ w.double() / norm  # (pairs,)
    total = mean.sum(0)
    m_square = float(total @ total - mean.square().sum()) / (pairs * (pairs - 1))
    first = float(along.mean())
    return Pull(
        along=first,
        across=m_square / norm,
        trace_G=(square - m_square) / sigma**2,
        of_W=along_square / norm**2 - first**2,
        stderr=float(along.std() / pairs**0.5),
    )


def gradients(
    noisy: NoisyNetwork, x: Float[Tensor, "n ..."], y: Tensor, eps: Float[Tensor, "n 1"], *, loss: Loss
) -> Float[Tensor, "n d"]:
    """dl_i/dz_i at the pre-activation z_i + eps_i W_NI of the node, one row for each sample."""
    shift = torch.zeros(len(x), *noisy.sites[0].shape).to(noisy.niw).requires_grad_()
    layer = noisy.network.get_submodule(noisy.layer)
    hook = layer.register_forward_hook(lambda _, inputs, output: output + shift)
    try:
        with evaluating(noisy.network), torch.enable_grad():
            (found,) = torch.autograd.grad(loss(noisy(x, eps), y).sum(), shift)
    finally:
        hook.remove()
    return found


def trace_of_curvature(
    noisy: NoisyNetwork, x: Float[Tensor, "n ..."], y: Int[Tensor, " n"], *, generator: torch.Generator
) -> float:
    """tr <J^T (diag p - p p^T) J> at the node without noise: the Gauss-Newton part of tr <H> under cross-entropy.

    For ReLU, whose autograd Hessian has no other part, it is tr <H>. From one draw xi = +-1 for each logit:
    s = sqrt p, b = s xi - p (s.xi) has E b b^T = diag p - p p^T, so that E |J^T b|^2 is the trace (derived).
    """

    def weighted(outputs: Tensor, _: Tensor) -> Tensor:
        p = outputs.detach().softmax(-1)
        root = p.sqrt() * draw_noise(*outputs.shape, law="rademacher", generator=generator).to(p)
        return (outputs * (root - p * root.sum(-1, keepdim=True))).sum(-1)

    silent = torch.zeros(len(x), 1).to(noisy.niw)
    return float(gradients(noisy, x, y, silent, loss=weighted).double().square().sum(1).mean())

"""The penalty that noise puts on curvature, compared with its quadratic law."""

from collections.abc import Callable, Iterable

import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.injection import inject
from nin.probes.curvature import local_hessian
from nin.probes.curvature.averaged import antithetic

COLUMNS = ["sigma", "rise", "pull", "rise_law", "pull_law", "rise_mean", "pull_mean"]


def quadratic_law(
    network: nn.Module,
    layer: str,
    x: Float[Tensor, " n *shape"],
    y: Shaped[Tensor, "n ..."],
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    sigmas: Iterable[float],
    pairs: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """E L - L against (sigma^2 / 2) W.<H>W, and E dL/dW_NI along W against sigma^2 W.<H>W, for one random W_NI.

    Noise averages are over `pairs` antithetic draws +-sigma for every sample (Rademacher: eps^2 does not fluctuate).
    Columns: sigma; rise, pull: measured; rise_law, pull_law: predicted; rise_mean, pull_mean: the same laws with the
    mean curvature |W|^2 tr<H> / d in place of W.<H>W, as if the direction of W did not matter.
    Source: arXiv 2210.13599, equations (7) and (8) of the reference; valid while sigma |W_NI| is small.
    """
    hessian = local_hessian(network, layer, x, y, loss=loss)
    with evaluating(network), torch.no_grad():
        quiet = loss(network(x), y).mean().item()
    rows = []
    for sigma in sigmas:
        generator = torch.Generator().manual_seed(seed)
        noisy = inject(network, layer, sigma=sigma, generator=generator, law="rademacher", example=x[:2])
        w = noisy.niw.detach().flatten()
        curvature, average = (w @ hessian @ w).item(), (w @ w * hessian.trace() / len(w)).item()
        losses, gradients = zip(*antithetic(noisy, x, y, loss=loss, pairs=pairs), strict=True)
        rise = sum(losses) / pairs - quiet
        pull = (sum(gradients).flatten() @ w).item() / pairs
        laws = (sigma**2 * value for value in (curvature / 2, curvature, average / 2, average))
        rows.append((sigma, rise, pull, *laws))
    return pd.DataFrame(rows, columns=COLUMNS)

"""Checks of the stability probe that hold for any data, measured in float64 (notebook 06)."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.checks import Check
from nin.probes.stability import (
    compare,
    deform,
    displacement_field,
    displacement_rms,
    filter_spectrum,
    fold_fraction,
    gradient_variance,
    sensitivities,
    temperature,
    temperature_range,
)

AT_ONCE = 200  # fields: 14 MB at 65 x 65


def ensemble_checks(n: int = 28, c: float = 3.0, *, fields: int = 10_000, seed: int = 0) -> list[Check]:
    """Displacement, gradients, border and folds of the max-entropy ensemble, against its formulas."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    T = temperature(1, n, c)
    squares, edges, slopes = [], [], []
    for _ in range(0, fields, AT_ONCE):
        tau = displacement_field(n, c, T, AT_ONCE, **options)
        squares.append(tau.square().sum(1).mean())
        edges.append(torch.cat([tau[..., 0, :], tau[..., -1, :], tau[..., 0], tau[..., -1]]).abs().max())
    for _ in range(0, fields // 5, AT_ONCE):
        fine = displacement_field(65, c, T, AT_ONCE, **options) / 65
        slopes.append(fine.diff(dim=2).mul(64).square().mean() * 65 / 64)  # the mean counts one border of the two
    rms, gradient = torch.stack(squares).mean().sqrt().item(), torch.stack(slopes).mean().item()
    back = displacement_rms(T, n, c, exact=False)
    high = temperature_range(n, c).high
    folds = [fold_fraction(c, share * high, 4000, generator=generator) for share in (1.0, 0.2)]
    identity = "identity {}".format
    return [
        Check("rms displacement on the grid, eq. (2)", identity(1), rms, displacement_rms(T, n, c), 0.01 * rms),
        Check("temperature and displacement are inverse", identity(2), back, 1, 1e-12),
        Check("variance of a gradient", identity(3), gradient, gradient_variance(T, c), 0.03 * gradient),
        Check("displacement on the border", identity(4), torch.stack(edges).max().item(), 0, 0),
        Check("fields that fold at T_max, c = 3", identity(5), folds[0], 0.32, 0.03),
        Check("fields that fold at 0.2 T_max, c = 3", identity(5), folds[1], 0, 1e-3),
    ]


def network_checks(*, seed: int = 0) -> list[Check]:
    """Sensitivities of networks with known values, and the spectrum of independent filters."""
    x = smooth_images(40, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        W = nn.Linear(784, 5, bias=False, dtype=torch.float64)
        circular = nn.Conv2d(1, 8, 3, padding=1, padding_mode="circular", dtype=torch.float64)
        blur = nn.Conv2d(1, 1, 3, padding=1, bias=False, dtype=torch.float64)
        rotation = nn.Linear(784, 784, bias=False, dtype=torch.float64)
        nn.init.orthogonal_(rotation.weight)
        filters = nn.Conv2d(64, 64, 3)
        nn.init.normal_(filters.weight)
    nn.init.constant_(blur.weight, 1 / 9)
    linear = sensitivities(nn.Sequential(nn.Flatten(), W), x, draws=100, noise="average", chunk=8)
    turned = sensitivities(nn.Sequential(nn.Flatten(), rotation), x)
    pooled = nn.Sequential(circular, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    rolled = torch.stack([x.roll((k, -k), (2, 3)) for k in (1, 2)])
    roll = compare(pooled, x, rolled, rolled)["D"].iloc[-1]
    pair = torch.cdist(x.flatten(1), x.flatten(1)).square().mean().item()
    moved = deform(x, torch.ones(1, 2, 28, 28, dtype=x.dtype))
    naive = (moved - x).square().flatten(1).sum(1).mean().item() / pair
    ours = compare(nn.Identity(), x, moved[None], moved[None], layers=[])["D"].item()
    share = filter_spectrum(nn.Sequential(filters))["share"]
    return [
        Check("R of the input", "identity 7", turned["R"].iloc[0], 1, 1e-12),
        Check("D behind a rotation / D of the input", "identity 7", turned["D"].iloc[1] / turned["D"].iloc[0], 1, 1e-9),
        Check("G of a linear map / its formula", "identity 8", linear["G"].iloc[1] / _linear_G(linear, x, W), 1, 0.05),
        Check("R of a homogeneous filter", "identity 9", sensitivities(blur, x)["R"].iloc[-1], 1, 0, ">="),
        Check("D of rolls, circular network", "identity 10", roll, 0, 1e-12),
        Check("independent filters: largest share x F^2", "identity 15", 9 * share.max(), 1, 0.1),
        Check("O(P d) pair distance / mean over all pairs", "identity 16", ours / naive, 1, 1e-12),
    ]


def smooth_images(count: int, n: int = 28, *, seed: int = 0) -> Float[Tensor, "count 1 n n"]:
    """Random smooth images (count, 1, n, n), float64, for checks that need no data."""
    generator = torch.Generator().manual_seed(seed)
    return displacement_field(n, 5, 1e-5, count, generator=generator, dtype=torch.float64)[:, :1]


@torch.no_grad()
def _linear_G(found: pd.DataFrame, x: Float[Tensor, "samples 1 n n"], layer: nn.Linear) -> float:
    """<|eta|^2> |W|_F^2 / (2 d Tr W Sigma W^T), with <|eta|^2> from G of the input."""
    flat, W = x.flatten(1), layer.weight
    covariance = torch.cov(flat.T, correction=0)
    mean_square = found["G"].iloc[0] * 2 * covariance.trace()
    return (mean_square * W.square().sum() / W.shape[1] / (2 * (W @ covariance @ W.T).trace())).item()

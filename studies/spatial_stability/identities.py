"""Checks of the stability probe that hold for any data, measured in float64 (notebook 06)."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.ndimage import uniform_filter
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
from nin.probes.stability.deformations import draw_field
from nin.support.randomness import own_randomness

AT_ONCE = 200  # fields: 14 MB at 65 x 65


def ensemble_checks(n: int = 28, c: float = 3.0, *, fields: int = 10_000, seed: int = 0) -> list[Check]:
    """Displacement, gradients, border and folds of the max-entropy ensemble, against its formulas.

    Rivals: the modes of the paper's text, i^2 + j^2 <= c^2, instead of the published ones; the nominal displacement;
    one pixel beside the border; other temperatures.
    """
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    T = temperature(1, n, c)
    squares, edges, inside, slopes = [], [], [], []
    for _ in range(0, fields, AT_ONCE):
        tau = displacement_field(n, c, T, AT_ONCE, **options)
        squares.append(tau.square().sum(1).mean())
        edges.append(_border(tau))
        inside.append(_border(tau[..., 1:-1, 1:-1]))
    for _ in range(0, fields // 5, AT_ONCE):
        fine = displacement_field(65, c, T, AT_ONCE, **options) / 65
        slopes.append(fine.diff(dim=2).mul(64).square().mean() * 65 / 64)  # the mean counts one border of the two
    rms, gradient = torch.stack(squares).mean().sqrt().item(), torch.stack(slopes).mean().item()
    back = displacement_rms(T, n, c, exact=False)
    disk = displacement_rms(T, n, c, modes="disk"), gradient_variance(T, c, modes="disk")
    high = temperature_range(n, c).high
    folds = {share: fold_fraction(c, share * high, 4000, generator=generator) for share in (1.0, 0.3, 0.2)}
    counted = _folds(c, high, fields // 10, generator=generator)
    error = 3 * (0.25 / 4000 + 0.25 / (fields // 10)) ** 0.5  # of the difference of two fractions
    other = fold_fraction(2, temperature_range(n, 2).high, 4000, generator=generator)
    on, beside = (torch.stack(values).max().item() for values in (edges, inside))
    exact, identity = displacement_rms(T, n, c), "identity {}".format
    return [
        Check("rms displacement on the grid, eq. (2)", identity(1), rms, exact, 0.01 * rms, rival=disk[0]),
        Check("temperature and displacement are inverse", identity(2), back, 1, 1e-12, rival=exact),
        Check("variance of a gradient", identity(3), gradient, gradient_variance(T, c), 0.03 * gradient, rival=disk[1]),
        Check("displacement on the border", identity(4), on, 0, 0, rival=beside),
        Check("fields that fold at T_max, c = 3", identity(5), folds[1.0], counted, error, rival=other),
        Check("fields that fold at 0.2 T_max, c = 3", identity(5), folds[0.2], 0, 1e-3, rival=folds[0.3]),
    ]


def _border(tau: Float[Tensor, "fields 2 n n"]) -> Tensor:
    """The largest displacement on the border."""
    return torch.cat([tau[..., 0, :], tau[..., -1, :], tau[..., 0], tau[..., -1]]).abs().max()


def _folds(c: float, T: float, count: int, *, generator: torch.Generator, n: int = 97) -> float:
    """The fraction of fields whose map r -> r - tau(r) turns a cell of the grid over: the sign of the cell's area."""
    folded = 0
    options = {"modes": "published", "generator": generator, "device": "cpu", "dtype": torch.float64}
    places = torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")).double()
    for _ in range(0, count, AT_ONCE // 4):
        moved = places - draw_field(n, c, T, AT_ONCE // 4, **options) * (n - 1) / n  # pixels: n tau, of n - 1 steps
        along, across = moved.diff(dim=2)[..., :-1], moved.diff(dim=3)[..., :-1, :]
        area = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
        folded += (area.flatten(1).min(1).values < 0).sum().item()
    return folded / (-(-count // (AT_ONCE // 4)) * (AT_ONCE // 4))


def network_checks(*, seed: int = 0) -> list[Check]:
    """Sensitivities of networks with known values, and the spectrum of independent filters.

    Rivals: noise matched on average only, a map that is not a rotation, the sensitivity of the input, a rough filter,
    zero padding, partly homogeneous filters, and pairs without i = j.
    """
    x = smooth_images(40, seed=seed)
    with own_randomness(seed):
        W = nn.Linear(784, 5, bias=False, dtype=torch.float64)
        around = {"padding": 1, "dtype": torch.float64}
        circular = nn.Conv2d(1, 8, 3, padding_mode="circular", **around)
        padded = nn.Conv2d(1, 8, 3, **around)
        blur, rough = (nn.Conv2d(1, 1, 3, bias=False, **around) for _ in range(2))
        rotation, skewed = (nn.Linear(784, 784, bias=False, dtype=torch.float64) for _ in range(2))
        nn.init.orthogonal_(rotation.weight)
        filters = nn.Conv2d(64, 64, 3)
        nn.init.normal_(filters.weight)
    nn.init.constant_(blur.weight, 1 / 9)
    with torch.no_grad():
        W.weight.cumsum_(1)  # smooth weights, which see more of the images than of the noise
        padded.load_state_dict(circular.state_dict())
    linear = sensitivities(nn.Sequential(nn.Flatten(), W), x, draws=100, noise="average", chunk=8)
    formula = _linear_G(linear, x, W)
    turned, skew = (sensitivities(nn.Sequential(nn.Flatten(), layer), x)["D"] for layer in (rotation, skewed))
    R = {by: sensitivities(nn.Identity(), x, layers=[], noise=by)["R"].iloc[0] for by in ("image", "average")}
    expected = _homogeneous_R(x)
    # in chunks, as a convolution in float64 writes out the nine pixels that each of its outputs sees
    filtered = (sensitivities(layer, x, draws=40, chunk=8) for layer in (blur, rough))
    homogeneous, other = (found["R"].iloc[-1] / expected for found in filtered)
    rolled = torch.stack([x.roll((k, -k), (2, 3)) for k in (1, 2)])
    pooled = [nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1)) for layer in (circular, padded)]
    roll, edge = (compare(net, x, rolled, rolled)["D"].iloc[-1] for net in pooled)
    ours, naive, no_self = _pair_distances(x)
    share = 9 * filter_spectrum(nn.Sequential(filters))["share"].max()
    with torch.no_grad():
        filters.weight += 0.5  # a fifth of the power in mode 0, beyond its ninth
    partly = 9 * filter_spectrum(nn.Sequential(filters))["share"].max()
    G = linear["G"]
    return [
        Check("R of the input", "identity 7", R["image"], 1, 1e-12, rival=R["average"]),
        Check("D behind a rotation / D of the input", "identity 7", turned[1] / turned[0], 1, 1e-9,
              rival=skew[1] / skew[0]),
        Check("G of a linear map / its formula", "identity 8", G[1] / formula, 1, 0.05, rival=G[0] / formula),
        Check("R of a homogeneous filter / its formula", "identity 9", homogeneous, 1, 0.05, rival=other),
        Check("D of rolls, circular network", "identity 10", roll, 0, 1e-12, rival=edge),
        Check("independent filters: largest share x F^2", "identity 15", share, 1, 0.1, rival=partly),
        Check("O(P d) pair distance / mean over all pairs", "identity 16", ours / naive, 1, 1e-12,
              rival=no_self / naive),
    ]  # fmt: skip


def _pair_distances(x: Float[Tensor, "samples 1 n n"]) -> tuple[float, float, float]:
    """The mean squared distance over all pairs: by `compare`, from all distances, and from those with i != j."""
    naive = torch.cdist(x.flatten(1), x.flatten(1)).square().mean().item()
    moved = deform(x, torch.ones(1, 2, 28, 28, dtype=x.dtype))
    change = (moved - x).square().flatten(1).sum(1).mean().item()
    ours = change / compare(nn.Identity(), x, moved[None], moved[None], layers=[])["D"].item()
    return ours, naive, naive * len(x) / (len(x) - 1)


def _homogeneous_R(x: Float[Tensor, "samples 1 n n"], *, draws: int = 40) -> float:
    """R of the 3 x 3 box filter B: <|B(tau x - x)|^2> / <|tau x - x|^2> over |B|_F^2 / pixels, by scipy."""
    n, changes = x.shape[-1], []
    generator = torch.Generator().manual_seed(1)
    for _ in range(draws):
        field = displacement_field(n, 3, temperature(1, n, 3), len(x), generator=generator, dtype=x.dtype)
        changes.append((deform(x, field) - x)[:, 0].numpy())
    change = np.concatenate(changes)
    blurred = uniform_filter(change, (0, 3, 3), mode="constant")
    seen = uniform_filter(np.ones((n, n)), 3, mode="constant")  # share of the window that lies on the image
    return float(np.square(blurred).mean() / np.square(change).mean() / (seen.mean() / 9))


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

"""Smooth random deformations of images, with temperature T and cut-off c (arXiv 2105.02468, 2210.01506).

The max-entropy ensemble:

    tau_u(u, v) = sum_ij C_ij sin(i pi u) sin(j pi v),  C_ij ~ N(0, T / (i^2 + j^2)),  (u, v) in [0, 1]^2

and tau_v independent with the same law. Pixels lie at linspace(0, 1, n); a displacement in pixels is n tau. T is the
temperature and c the cut-off of the modes: "published", sqrt(i^2 + j^2) < c + 1/2, as in the papers' code, or "disk",
i^2 + j^2 <= c^2, as in the papers' text.
"""

import math
import warnings
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nin.support.arguments import check_choice, check_count, check_number
from nin.support.precision import matching
from nin.support.randomness import check_generator

Modes = Literal["published", "disk"] | str  # any other string raises ValueError
MODES = ("published", "disk")
FOLD_GRID = 48  # points per side of the grid on which folds are sought: it resolves the extrema of modes up to c = 12
STEEP = 0.05  # E <|grad tau|^2>; of 10^5 fields below this value at most 2 fold, for c = 1 to 5


class TemperatureRange(NamedTuple):
    """The temperature range in which a deformation moves pixels (low) and is still resolved by them (high)."""

    low: float
    high: float


def temperature(delta: float, n: int, c: float, *, exact: bool = False, modes: Modes = "published") -> float:
    """T = 4 delta^2 / (pi n^2 ln c), at which pixels move by about delta (arXiv 2105.02468).

    delta    displacement in pixels, >= 0; n: pixels per side; c: cut-off of the modes
    exact    True: delta is the rms displacement on the grid itself, `displacement_rms`; False: the papers' nominal
             value, with an integral over the modes instead of their sum (0.81 pixels rms at delta = 1, n = 28, c = 3)
    Raises ValueError for negative delta, n < 2, c < 1, and for c = 1 unless exact, because ln c = 0.

    >>> round(temperature(1, 28, 3), 9)
    0.001478256
    """
    check_number("delta", delta)
    return delta**2 / _mean_square(n, c, exact, modes)


def displacement_rms(T: float, n: int, c: float, *, exact: bool = True, modes: Modes = "published") -> float:
    """Rms displacement in pixels, sqrt(E mean |tau|^2) over the n x n pixels, both components together.

    exact    True: the square root of T (n - 1)^2 S / 2 on the grid itself, S = sum 1 / (i^2 + j^2) over the modes
             (derived; without modes that vanish on every pixel, i or j a multiple of n - 1); False: the papers' nominal
             delta, the square root of (pi / 4) n^2 T ln c. With the same `exact` it is the inverse of `temperature`.
    Raises ValueError for negative T, n < 2, c < 1, and for c = 1 unless exact, because ln c = 0.

    >>> round(displacement_rms(temperature(1, 28, 3), 28, 3), 3)
    0.812
    """
    check_number("T", T)
    return math.sqrt(T * _mean_square(n, c, exact, modes))


def temperature_range(n: int, c: float) -> TemperatureRange:
    """1 / (pi n^2 ln c) <= T <= 4 / (pi^3 c^2 ln c), where 1/2 <= delta <= n / (pi c) pixels (arXiv 2105.02468).

    It does not exclude folds: see `fold_fraction`. Raises ValueError for n < 2, c <= 1, and c > 2 n / pi, where
    T_min > T_max and the range is empty.
    """
    _check_size(n, c, logarithm=True)
    low, high = 1 / (math.pi * n**2 * math.log(c)), 4 / (math.pi**3 * c**2 * math.log(c))
    if c > 2 * n / math.pi:
        raise ValueError(
            f"c={c:g} is too large for n={n}: T_min = {low:.3g} > T_max = {high:.3g}, the range is empty. "
            f"Use c <= 2 n / pi = {2 * n / math.pi:.2f}, or larger images."
        )
    return TemperatureRange(low, high)


def gradient_variance(T: float, c: float, *, modes: Modes = "published") -> float:
    """E <(d tau_u / du)^2> = T pi^2 N / 8 for N modes (derived), a quarter of E <|grad tau|^2>."""
    check_number("T", T)
    return T * math.pi**2 * len(_kept(c, modes)[0]) / 8


def fold_fraction(
    c: float, T: float, count: int = 1000, *, generator: torch.Generator, modes: Modes = "published"
) -> float:
    """The fraction of `count` random fields that fold: det(1 - grad tau) < 0 somewhere on a 48 x 48 grid."""
    check_count("count", count)
    folds = 0
    u = torch.linspace(0, 1, FOLD_GRID, dtype=torch.float64)  # (U,)
    for start in range(0, count, 256):  # 256 fields at a time: 40 MB
        coefficients = draw_coefficients(c, T, min(256, count - start), modes, generator)
        order = torch.pi * torch.arange(1, coefficients.shape[-1] + 1, dtype=u.dtype)[:, None]
        sine, cosine = torch.sin(order * u), order * torch.cos(order * u)
        along_u = torch.einsum("bkij,iu,jv->bkuv", coefficients, cosine, sine)  # d tau_k / du, (fields, 2, U, U)
        along_v = torch.einsum("bkij,iu,jv->bkuv", coefficients, sine, cosine)
        # (fields, U, U)
        determinant = (1 - along_u[:, 0]) * (1 - along_v[:, 1]) - along_v[:, 0] * along_u[:, 1]
        folds += int((determinant < 0).flatten(1).any(1).sum())
    return folds / count


def displacement_field(
    n: int,
    c: float,
    T: float,
    count: int,
    *,
    generator: torch.Generator,
    modes: Modes = "published",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "count 2 n n"]:
    """Draw max-entropy displacement fields in pixels, components (row, column); zero on the border.

    generator    a CPU generator: fields of one seed agree on all devices and, up to rounding, in all dtypes
    Warns if fields fold at this temperature, and states their fraction. Raises ValueError for n < 2, c < 1, negative T,
    or if no mode lies below the cut-off.
    """
    warn_of_folds(c, T, modes=modes)
    return draw_field(n, c, T, count, generator=generator, modes=modes, device=device, dtype=dtype)


def draw_field(
    n: int,
    c: float,
    T: float,
    count: int,
    *,
    generator: torch.Generator,
    modes: Modes,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Float[Tensor, "count 2 n n"]:
    """The same as `displacement_field`, without the warning."""
    return synthesise(draw_coefficients(c, T, count, modes, generator), n, device=device, dtype=dtype)


def draw_coefficients(
    c: float, T: float, count: int, modes: Modes, generator: torch.Generator
) -> Float[Tensor, "count 2 modes modes"]:
    """C_ij of both components, float64, zero beyond the cut-off; the first fields do not depend on `count`."""
    check_number("T", T)
    check_count("count", count, minimum=0)
    check_generator(generator)
    rows, columns = (torch.from_numpy(order) for order in _kept(c, modes))
    size = count * 2 * len(rows)
    whole = -(-size // 16) * 16  # torch draws blocks of 16 numbers, and an incomplete block differently
    drawn = torch.randn(whole, dtype=torch.float64, generator=generator)[:size].view(count, 2, len(rows))
    coefficients = drawn.new_zeros(count, 2, int(rows.max()), int(rows.max()))
    coefficients[:, :, rows - 1, columns - 1] = drawn * (T / (rows**2 + columns**2).double()).sqrt()
    return coefficients


def synthesise(
    coefficients: Float[Tensor, "count 2 modes modes"], n: int, *, device: torch.device | str, dtype: torch.dtype
) -> Float[Tensor, "count 2 n n"]:
    """n sum_ij C_ij sin(i pi u) sin(j pi v) on the pixels; exactly 0 on the border."""
    check_count("n", n, minimum=2)
    order = torch.arange(1, coefficients.shape[-1] + 1, dtype=torch.float64)
    sine = torch.sin(torch.pi * order[:, None] * torch.linspace(0, 1, n, dtype=torch.float64))  # (modes, n)
    sine[:, [0, -1]] = 0
    sine = sine.to(dtype).to(device)
    return n * torch.einsum("bkij,iu,jv->bkuv", coefficients.to(dtype).to(device), sine, sine)  # (count, 2, n, n)


def deform(
    images: Shaped[Tensor, "count ..."], field: Float[Tensor, "fields 2 side side"]
) -> Float[Tensor, "count channels n n"]:
    """(tau x)(r) = x(r - tau(r)), bilinear, at coordinates clamped to the image: one grid_sample for all images.

    images   (count, channels, n, n), floating point
    field    displacements in pixels, (row, column): (count, 2, n, n), or (1, 2, n, n), which is used for all images
    Raises ValueError for images that are not square, 4-D and floating point, and for a field of another size or number.
    """
    n = check_images("images", images)
    if field.dim() != 4 or field.shape[1:] != (2, n, n) or len(field) not in (1, len(images)):
        raise ValueError(
            f"field of shape {tuple(field.shape)} does not fit images of shape {tuple(images.shape)}; "
            f"it must be ({len(images)}, 2, {n}, {n}), or (1, 2, {n}, {n}) to deform all of them in the same way."
        )
    place = torch.linspace(-1, 1, n, device=images.device, dtype=images.dtype)
    still = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)  # grid_sample takes (column, row) in [-1, 1]
    moves = matching(field, images).flip(1).movedim(1, -1)  # (fields, n, n, 2)
    grid = torch.sub(still, moves, alpha=2 / (n - 1)).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def check_images(name: str, images: Tensor) -> int:
    """The side n of square images (count, channels, n, n); anything else raises a ValueError that says what to do."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[2] != shape[3]:
        side = math.isqrt(shape[1]) if len(shape) == 2 else 0
        rows = side > 1 and side**2 == shape[1]
        hint = f" To turn rows of pixels into images, use {name}.unflatten(1, (1, {side}, {side}))." if rows else ""
        raise ValueError(f"{name} of shape {shape} must be square images, (count, channels, n, n).{hint}")
    if not images.is_floating_point():
        raise ValueError(f"{name} of {images.dtype} must be floating point; use {name}.float().")
    if not images.isfinite().all():
        raise ValueError(f"{name} holds {int((~images.isfinite()).sum())} values that are not finite.")
    if shape[2] < 2:
        raise ValueError(f"{name} of shape {shape} must have at least 2 x 2 pixels.")
    return shape[2]


def warn_of_folds(c: float, T: float, *, modes: Modes = "published", stacklevel: int = 3) -> None:
    """Warn if any of 2000 fields at that temperature fold."""
    if 4 * gradient_variance(T, c, modes=modes) <= STEEP:
        return
    if fraction := _fold_fraction(c, T, modes):
        warnings.warn(
            f"T={T:.3g} with c={c:g} folds images: points overtake each other in {100 * fraction:.2g} % of the fields. "
            "Use a smaller delta or T, or larger images.",
            stacklevel=stacklevel,
        )


@lru_cache
def _fold_fraction(c: float, T: float, modes: Modes) -> float:
    return fold_fraction(c, T, 2000, generator=torch.Generator().manual_seed(0), modes=modes)


@lru_cache
def _kept(c: float, modes: Modes) -> tuple[NDArray, NDArray]:
    """The orders i, j of the modes below the cut-off."""
    _check_size(2, c)
    check_choice("modes", modes, MODES)
    order = np.arange(1, int(c) + 2)
    square = order[:, None] ** 2 + order**2
    rows, columns = np.nonzero(square < (c + 0.5) ** 2 if modes == "published" else square <= c**2)
    if not len(rows):
        raise ValueError(f"c={c:g} leaves no mode, modes={modes!r}: the first has sqrt(i^2 + j^2) = 1.41. Use c >= 2.")
    return order[rows], order[columns]


def _mean_square(n: int, c: float, exact: bool, modes: Modes) -> float:
    """E mean |tau|^2 / T in pixels^2."""
    check_choice("modes", modes, MODES)
    _check_size(n, c, logarithm=not exact)
    if not exact:
        return math.pi / 4 * n**2 * math.log(c)
    rows, columns = _kept(c, modes)
    rows, columns = (order[(rows % (n - 1) != 0) & (columns % (n - 1) != 0)] for order in (rows, columns))
    if not len(rows):
        raise ValueError(f"n={n} is too small: every mode up to c={c:g} vanishes on its pixels. Use n >= 3.")
    return (n - 1) ** 2 / 2 * float((1 / (rows**2 + columns**2)).sum())


def _check_size(n: int, c: float, *, logarithm: bool = False) -> None:
    check_count("n", n, minimum=2)
    check_number("c", c)
    if c < 1:
        raise ValueError(f"c={c!r} is below the first mode; use 2 <= c <= n (the papers use c = 3).")
    if logarithm and c == 1:
        raise ValueError(
            "c=1 gives ln c = 0, and the nominal temperature and its range divide by ln c. Use c >= 2, or exact=True: "
            "the displacement on the grid needs no logarithm."
        )

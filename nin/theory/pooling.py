"""How spatial pooling acts on small shifts and on noise: closed forms for nets of constant positive filters.

Inputs are single active pixels in 1-D (or 2-D) that move by one pixel, compared with Gaussian noise of the same norm,
|eta|^2 = 2, which is far smaller on each pixel than the active one. Filters have size F in each dimension and equal
weights (whose value cancels). Scalings: arXiv 2210.01506; closed forms derived from them.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from nin.support.arguments import check_choice, check_count, check_number
from nin.theory.nodes import Values

RECTIFIED = ("first", "input", "never")


def self_convolution(F: int, m: int) -> Float[np.ndarray, " {m*(F-1)+1}"]:
    """c_m, the m-fold convolution of the box filter (1/F, ..., 1/F) with itself: (m (F - 1) + 1,); sums to 1.

    >>> self_convolution(2, 2).tolist()
    [0.25, 0.5, 0.25]
    """
    check_count("F", F)
    check_count("m", m, minimum=0)
    c = np.ones(1)
    for _ in range(m):
        c = np.convolve(c, np.full(F, 1 / F))
    return c


def constant_filter_D(k: ArrayLike, F: int, *, stride: int = 1, length: float = np.inf) -> Values:
    """D_k after k layers of constant filters; ReLUs between the layers change nothing.

    stride 1:  1 - c_2k(1) / c_2k(0), shifts along one axis, in any dimension; -> 3 / (k (F^2 - 1)), `large_depth_D`
    stride F:  F^-k / (1 - F^k / L), in 1-D
    length   L, pixels of the (circular) input; inf: pixels far apart. Stride 1 assumes L >> k F.
    Raises ValueError for k below 1, F below 2, or any other stride, which follows neither law.
    """
    _check(F, stride, length)
    if stride > 1:
        return _block(k, F) ** -1.0 / _apart(k, F, length)

    def law(depth: int) -> float:
        c = self_convolution(F, 2 * depth)
        return 1 - _at(c, 1) / _at(c, 0)

    return _each(k, law)


def large_depth_D(k: ArrayLike, F: int) -> Values:
    """3 / (k (F^2 - 1)), stride 1: from the central limit of c_2k; 5 % off at k = 10 for F = 3 (derived)."""
    check_count("F", F, minimum=2)
    return 3 / (np.asarray(k, dtype=float) * (F**2 - 1))


def constant_filter_G(
    k: ArrayLike,
    F: int,
    *,
    stride: int = 1,
    length: float = np.inf,
    rectified: str = "first",
    dimensions: int = 1,
) -> Values:
    """G_k after k layers of constant filters: rectified noise has a mean, which adds up coherently.

    rectified "never" (linear net):    1, divided by 1 - F^k / L for stride F: independent of depth
              "first" (first ReLU):    sum_j c_2(k-1)(j) q(rho_j) c_2(0) / c_2k(0),  rho_j = c_2(j) / c_2(0); stride F:
                                       [F^(k-1) / 2 pi + 1/2 - 1/2 pi] / (1 - F^k / L)
              "input" (on the pixels): the same with k in place of k - 1, and rho_j = 0 except rho_0 = 1
        with q(rho) = E relu(a) relu(b) = [sqrt(1 - rho^2) + rho (pi - arccos rho)] / 2 pi of unit Gaussians a, b with
        E ab = rho: q(0) = 1/2 pi, q(1) = 1/2
    dimensions    1 or 2; 2 with stride 1 only
    Raises ValueError as `constant_filter_D`, and for other values of `rectified` or `dimensions`.
    """
    _check(F, stride, length)
    check_choice("rectified", rectified, RECTIFIED)
    if dimensions not in (1, 2) or (dimensions == 2 and stride > 1):
        raise ValueError(f"dimensions={dimensions!r} must be 1, or 2 with stride=1.")
    if rectified == "never":
        return 1 / _apart(k, F, length) if stride > 1 else _each(k, lambda depth: 1.0)
    before = 1 if rectified == "first" else 0  # linear layers before the rectifier
    if stride > 1:
        mean, rest = 1 / (2 * np.pi), 1 / 2 - 1 / (2 * np.pi)
        return (_block(k, F) / F**before * mean + rest) / _apart(k, F, length)
    return _each(k, lambda depth: _rectified(depth, F, before, dimensions))


def constant_filter_R(
    k: ArrayLike,
    F: int,
    *,
    stride: int = 1,
    length: float = np.inf,
    rectified: str = "first",
    dimensions: int = 1,
) -> Values:
    """R_k = D_k / G_k of constant filters; for stride F and large k 2 pi F^(1-2k) ("first"), 2 pi F^(-2k) ("input")."""
    D = constant_filter_D(k, F, stride=stride, length=length)
    return D / constant_filter_G(k, F, stride=stride, length=length, rectified=rectified, dimensions=dimensions)


def task2_D(k: ArrayLike, xi: float, length: float) -> Values:
    """D_k of constant filters, F = stride = 2, in Task 2; shifts keep every pixel in its block of xi (derived).

    (2^-k - 1/xi)_+ / (1 + 2^k / (2 xi) - 2 2^k / L): zero from 2^k = xi on, where pooling removes all shifts.

    >>> task2_D([1, 2, 3, 4], 16, 64).tolist()
    [0.4375, 0.1875, 0.0625, 0.0]
    """
    check_number("xi", xi, minimum=1)
    check_number("length", length, minimum=2 * xi)
    size = _block(k, 2)
    return np.maximum(1 / size - 1 / xi, 0) / (1 + size / (2 * xi) - 2 * size / length)


def _rectified(depth: int, F: int, before: int, dimensions: int) -> float:
    """G for stride 1, with `before` linear layers ahead of the rectifier."""
    correlation, after = self_convolution(F, 2 * before), self_convolution(F, 2 * (depth - before))
    reach = (len(after) - 1) // 2
    rho = np.zeros(len(after))
    near = min(reach, (len(correlation) - 1) // 2)
    middle = (len(correlation) - 1) // 2
    rho[reach - near : reach + near + 1] = correlation[middle - near : middle + near + 1] / correlation[middle]
    if dimensions == 2:
        after, rho = np.multiply.outer(after, after), np.multiply.outer(rho, rho)
    rho = np.clip(rho, 0, 1)
    q = (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / (2 * np.pi)
    scale = (_at(correlation, 0) / _at(self_convolution(F, 2 * depth), 0)) ** dimensions
    return float((after * q).sum() * scale)


def _at(c: Float[np.ndarray, " odd"], shift: int) -> float:
    """The element of a self-convolution of odd length at a shift from its middle; 0 beyond its end."""
    place = (len(c) - 1) // 2 + shift
    return float(c[place]) if place < len(c) else 0.0


def _each(k: ArrayLike, law: Callable[[int], float]) -> NDArray[np.float64]:
    """The law at each depth, in the shape of k."""
    depths = np.asarray(k)
    _check_depth(depths)
    return np.array([law(int(depth)) for depth in depths.flat], dtype=float).reshape(depths.shape)


def _block(k: ArrayLike, F: int) -> Values:
    """F^k, the number of pixels that a site of layer k sees."""
    depths = np.asarray(k)
    _check_depth(depths)
    return float(F) ** depths


def _apart(k: ArrayLike, F: int, length: float) -> Values:
    """1 - F^k / L: the probability that two pixels are in different blocks; NaN if one block covers the whole input."""
    share = _block(k, F) / length
    return np.where(share < 1, 1 - share, np.nan)


def _check_depth(depths: NDArray) -> None:
    if not np.issubdtype(depths.dtype, np.integer) or (depths < 1).any():
        raise ValueError(f"k={depths.tolist()!r} must be integers >= 1, the numbers of layers.")


def _check(F: int, stride: int, length: float) -> None:
    check_count("F", F, minimum=2)
    if not length > 0:
        raise ValueError(f"length={length!r} must be a number of pixels > 0, or inf.")
    if stride not in (1, F):
        raise ValueError(
            f"stride={stride!r} must be 1 or F={F}: filters that overlap at a stride above 1 follow neither law."
        )

"""The scatter of residuals at unequal steps, their correlation, and the errors of fitted parameters that follow."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg.lapack import dtbtrs


@dataclass(frozen=True)
class Correlated:
    """Errors of a least-squares fit whose residuals have the covariance s^2 exp(-|t - t'| / length).

    length      most likely correlation length, in steps; AR(1) noise with one value per step has rho = exp(-1 / length)
    likelihood  logarithm of the largest likelihood, up to a constant that depends only on the steps
    covariance  of the parameters
    inflation   variance of each parameter over the variance that least squares states for independent residuals
    """

    length: float
    likelihood: float
    covariance: Float[np.ndarray, "p p"]
    inflation: Float[np.ndarray, " p"]


def correlated(
    steps: Float[np.ndarray, " n"],
    residual: Float[np.ndarray, " n"],
    jacobian: Float[np.ndarray, "p n"],
    weights: Float[np.ndarray, " n"],
) -> Correlated:
    """Estimate how the residuals of a fit are correlated, and the errors of its parameters.

    With V_ij = exp(-|t_i - t_j| / length), X the Jacobian and W the weights, least squares has the covariance

        s^2 (X W^2 X')^-1  X W V W X'  (X W^2 X')^-1.

    For the mean of many even steps this is s^2 / n times (1 + rho) / (1 - rho), the inverse of the effective fraction
    of the sample. It is averaged over lengths from a quarter of the smallest gap to twice the range, in factors of
    sqrt 2, each weighted by its restricted likelihood; the plain one underestimates lengths, because a fit follows its
    residuals. V depends on steps, not on records: with phi_i = exp(-(t_i - t_i-1) / length), the numbers
    (r_i - phi_i r_i-1) / sqrt(1 - phi_i^2) are independent at any spacing, so that the cost grows only as n.
    Sources: Priestley, Spectral Analysis and Time Series (1981), section 5.3.2, for (1 + rho) / (1 - rho); Jones, in
    Applied Time Series Analysis II (1981), p. 651, for AR(1) at unequal spacing; Harville, J. Am. Stat. Assoc. 72
    (1977), p. 320, for the restricted likelihood.
    """
    n, p, gaps = len(steps), len(jacobian), np.diff(steps, prepend=-np.inf)
    longest = 2 * (steps[-1] - steps[0])
    lengths = longest / 2 ** np.arange(0, np.log2(longest / gaps.min()) + 2, 0.5)
    rows = weights * np.vstack([jacobian, residual])
    scale = np.sqrt(np.square(rows).sum(1)) + 1e-100
    rows = rows / scale[:, None]  # of unit length, so that the matrices below are well conditioned
    phi, root = np.exp(-gaps / lengths[:, None]), np.sqrt(-np.expm1(-2 * gaps / lengths[:, None]))  # (lengths, n)
    white = (rows - phi[:, None] * np.roll(rows, 1, axis=1)) / root[:, None]  # (lengths, p + 1, n)
    gram = white @ white.swapaxes(1, 2)
    inside, square = gram[:, :p, :p], gram[:, p, p]
    inverse = np.linalg.inv(inside + 1e-12 * np.trace(inside, axis1=1, axis2=2)[:, None, None] * np.eye(p))
    explained = (gram[:, p, None, :p] @ inverse @ gram[:, :p, p, None])[:, 0, 0]
    square = np.maximum(square - explained, 1e-12 * square) + 1e-300  # left over by generalised least squares
    independent = -np.log(root).sum(1)
    likelihood = independent - n / 2 * np.log(square) - n * np.log(scale[p])
    restricted = independent - (n - p) / 2 * np.log(square) + np.linalg.slogdet(inverse)[1] / 2
    chance = np.exp(restricted - restricted.max())
    chance /= chance.sum()
    middle = np.zeros((p, p))
    for index in np.flatnonzero(chance > 1e-5):
        bands = np.stack([-phi[index] / root[index], 1 / root[index]])
        half = dtbtrs(bands, rows[:p].T)[0]  # V = L L', half = L' W X', of a banded L^-1
        middle += chance[index] * square[index] / (n - p) * half.T @ half
    bread = np.linalg.inv(rows[:p] @ rows[:p].T + 1e-12 * np.eye(p))
    covariance = bread @ middle @ bread
    return Correlated(
        length=float(lengths[restricted.argmax()]),
        likelihood=float(likelihood.max()),
        covariance=covariance * np.outer(scale[p] / scale[:p], scale[p] / scale[:p]),
        inflation=np.diag(covariance) / np.diag(bread) * (n - p),
    )


def running_median(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The median of five neighbours, which removes single outliers and keeps a monotonic curve; ends are repeated."""
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="edge"), 5), axis=1)


def spread(values: Float[np.ndarray, " n"]) -> float:
    """A robust standard deviation: 1.4826 times the median distance from the median; 0 for no values."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def robust_weights(residual: Float[np.ndarray, " n"], cut: float = 3.0) -> Float[np.ndarray, " n"]:
    """Square roots of Huber's weights: a residual beyond `cut` robust standard deviations counts linearly.

    cut: 3, at which independent Gaussian residuals lose less than 1 % of efficiency.
    """
    return 1 / np.sqrt(np.maximum(1, np.abs(residual) / (cut * spread(residual) + 1e-150)))

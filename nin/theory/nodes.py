"""The equations of noise nodes as functions of numbers, in numpy and float64, vectorised over states.

Papers: NIN, arXiv 2210.13599; CAT, arXiv 2003.02218. "Derived" marks results that follow from the papers' set-up but
are not stated there.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nin.support.arguments import check_count, check_kind

Values = NDArray[np.float64] | np.float64  # NumPy returns a number where all arguments are numbers
KURTOSIS = {"gaussian": 3.0, "uniform": 9 / 5, "rademacher": 1.0}  # E eps^4 / sigma^4
KAPPA_MAX = 4.0  # for the wide two-layer linear net (CAT); ReLU networks survive larger kappa


def kappa(eta: ArrayLike, sigma: ArrayLike, lam: ArrayLike) -> Values:
    """kappa = eta sigma^2 lam, which controls a mode of curvature lam: each step multiplies it by 1 - kappa (NIN).

    eta: learning rate per step, >= 0; sigma: standard deviation of the noise, >= 0. Raises ValueError for negative or
    NaN values of eta or sigma.

    >>> float(kappa(0.05, 20, 0.1))
    2.0
    """
    eta, sigma = _at_least(0, eta=eta, sigma=sigma)
    with np.errstate(over="ignore", invalid="ignore"):
        return eta * sigma**2 * np.asarray(lam, dtype=float)


def sigma_catapult(eta: ArrayLike, lam: ArrayLike) -> Values:
    """sigma_cat = sqrt(2 / (eta lam)), where kappa = 2: above it the NIW grow at first (NIN)."""
    return sigma_divergent(eta, lam, kappa_max=2.0)


def sigma_divergent(eta: ArrayLike, lam: ArrayLike, *, kappa_max: float = KAPPA_MAX) -> Values:
    """sigma_div = sqrt(kappa_max / (eta lam)); kappa_max = 4 in the wide linear net (CAT). ValueError if negative."""
    eta, lam, kappa_max = _at_least(0, eta=eta, lam=lam, kappa_max=kappa_max)
    with np.errstate(divide="ignore"):
        return np.sqrt(kappa_max / (eta * lam))


def decay_time(kappa: ArrayLike) -> Values:
    """tau = 1 / |ln |1 - kappa||, in steps (equation (9)): 0 at kappa = 1, inf at 0 and 2, a growth time above 2.

    >>> decay_time([0, 1, 2]).tolist()
    [inf, 0.0, inf]
    """
    (kappa,) = _at_least(0, kappa=kappa)
    with np.errstate(divide="ignore"):
        return 1 / np.abs(np.where(kappa < 0.5, np.log1p(-np.minimum(kappa, 0.5)), np.log(np.abs(1 - kappa))))


def mean_square_multiplier(kappa: ArrayLike, batch: ArrayLike, kurtosis: ArrayLike) -> Values:
    """E (1 - kappa q / sigma^2)^2 = (1 - kappa)^2 + kappa^2 (k4 - 1) / |B|, q = <eps^2> of a batch (derived)."""
    batch, kurtosis = _at_least(1, batch=batch, kurtosis=kurtosis)
    kappa = np.asarray(kappa, dtype=float)
    return (1 - kappa) ** 2 + kappa**2 * (kurtosis - 1) / batch


def kappa_mean_square(batch: ArrayLike, kurtosis: ArrayLike) -> Values:
    """kappa_MS = 2 / (1 + (k4 - 1) / |B|), above which the mean square of a mode grows (derived).

    kurtosis: k4 = E eps^4 / sigma^4, see KURTOSIS, or k4 <H^2> / <H>^2 if the curvature varies between samples.

    >>> [float(kappa_mean_square(1, k4)) for k4 in (1, 3)]
    [2.0, 0.6666666666666666]
    """
    batch, kurtosis = _at_least(1, batch=batch, kurtosis=kurtosis)
    return 2 / (1 + (kurtosis - 1) / batch)


def random_walk(eta: ArrayLike, sigma: ArrayLike, trace_G: ArrayLike, batch: ArrayLike) -> Values:
    """E |dW_NI|^2 = eta^2 sigma^2 tr G / |B| after one step from W_NI = 0, with G = <g g^T> (equation (6))."""
    eta, sigma, trace_G = _at_least(0, eta=eta, sigma=sigma, trace_G=trace_G)
    (batch,) = _at_least(1, batch=batch)
    return eta**2 * sigma**2 * trace_G / batch


def stationary_variance(
    *, eta: ArrayLike, G: ArrayLike, lam: ArrayLike, kappa: ArrayLike, batch: ArrayLike, ratio: ArrayLike = 3.0
) -> Values:
    """Var(w) = eta G / (|B| lam [2 - kappa (1 + (r - 1)/|B|)]) of one mode driven by fresh noise (equation (10)).

    G: variance of the gradient along the mode; ratio: r = k4 <H^2>/<H>^2, 3 for Gaussian noise and equal H_i.
    inf at and beyond kappa_MS, where no stationary state exists.
    """
    eta, G, lam, kappa = _at_least(0, eta=eta, G=G, lam=lam, kappa=kappa)
    batch, ratio = _at_least(1, batch=batch, ratio=ratio)
    room = 2 - kappa * (1 + (ratio - 1) / batch)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 0, eta * G / (batch * lam * room), np.inf)


def stationary_noise_output(
    *, eta: ArrayLike, V: ArrayLike, W: ArrayLike, label_noise: ArrayLike, kappa: ArrayLike, batch: ArrayLike
) -> Values:
    """Var(n) = eta (V+W) sigma_xi^2 / (|B| [2 - kappa (1 + 2/|B|)]) of the linear net (derived); Gaussian noise."""
    V, W = _at_least(0, V=V, W=W)
    rate = V + W
    return stationary_variance(
        eta=eta, G=rate**2 * np.square(label_noise), lam=rate, kappa=kappa, batch=batch, ratio=KURTOSIS["gaussian"]
    )


def linear_optimum_rms(label_noise: ArrayLike, sigma: ArrayLike, samples: ArrayLike) -> Values:
    """Rms n* = sigma_xi / (sigma sqrt D), with which fixed noise fits the label noise of D samples (derived)."""
    label_noise, sigma = _at_least(0, label_noise=label_noise, sigma=sigma)
    (samples,) = _at_least(1, samples=samples)
    return label_noise / (sigma * np.sqrt(samples))


class LinearState(NamedTuple):
    """Order parameters of the linear test case f = N^(-1/2) v.(u x + w eps), arrays of one common shape.

    a = u.v/sqrt N (signal), n = w.v/sqrt N (noise output), V = |v|^2/N, U = |u|^2/N, W = |w|^2/N, k = u.w/N.
    """

    a: ArrayLike
    n: ArrayLike
    V: ArrayLike
    U: ArrayLike
    W: ArrayLike
    k: ArrayLike


def linear_map(
    state: LinearState,
    *,
    eta: ArrayLike,
    width: ArrayLike,
    target: ArrayLike,
    p: ArrayLike,
    q: ArrayLike,
    c: ArrayLike,
    label_x: ArrayLike = 0.0,
    label_eps: ArrayLike = 0.0,
) -> LinearState:
    """One SGD step of the linear test case as an exact map of its order parameters (equation (11), derived).

    With E = a - target, P = E p + n c - <xi x>, Q = E c + n q - <xi eps>, S = (P a + Q n)/N:
        a' = a - eta [P (U+V) + Q k] + eta^2 P S          n' = n - eta [Q (W+V) + P k] + eta^2 Q S
        V' = V - 2 eta S + eta^2 (P^2 U + 2 P Q k + Q^2 W)/N
        U' = U - 2 eta P a/N + eta^2 P^2 V/N              W' = W - 2 eta Q n/N + eta^2 Q^2 V/N
        k' = k - eta (P n + Q a)/N + eta^2 P Q V/N

    p = <x^2>, q = <eps^2>, c = <x eps> of the batch (noise average: sigma_x^2, sigma^2, 0); label_x = <xi x>,
    label_eps = <xi eps> for labels y = target x + xi. A state that diverges goes to inf and NaN without a warning.
    Raises ValueError for negative or NaN eta, p or q, or width below 1.
    """
    eta, p, q = _at_least(0, eta=eta, p=p, q=q)
    (N,) = _at_least(1, width=width)
    a, n, V, U, W, k = (np.asarray(value, dtype=float) for value in state)
    with np.errstate(over="ignore", invalid="ignore"):
        E = a - target
        P = E * p + n * c - label_x
        Q = E * c + n * q - label_eps
        S = (P * a + Q * n) / N
        return LinearState(
            a=a - eta * (P * (U + V) + Q * k) + eta**2 * P * S,
            n=n - eta * (Q * (W + V) + P * k) + eta**2 * Q * S,
            V=V - 2 * eta * S + eta**2 * (P**2 * U + 2 * P * Q * k + Q**2 * W) / N,
            U=U - 2 * eta * P * a / N + eta**2 * P**2 * V / N,
            W=W - 2 * eta * Q * n / N + eta**2 * Q**2 * V / N,
            k=k - eta * (P * n + Q * a) / N + eta**2 * P * Q * V / N,
        )


def linear_trajectory(
    state: LinearState,
    steps: int,
    *,
    eta: ArrayLike,
    sigma: ArrayLike,
    width: ArrayLike,
    target: ArrayLike = 1.0,
    x_std: ArrayLike = 1.0,
) -> LinearState:
    """The noise-averaged map, equation (11), p = x_std^2, q = sigma^2, c = 0, iterated: arrays (steps + 1, ...)."""
    check_count("steps", steps, minimum=0)
    check_kind("state", state, LinearState, "a nin.theory.LinearState")
    sigma, x_std = _at_least(0, sigma=sigma, x_std=x_std)
    shape = np.broadcast_shapes(*(np.shape(v) for v in (*state, eta, sigma, width, target, x_std)))
    states = [LinearState(*(np.broadcast_to(np.asarray(value, dtype=float), shape) for value in state))]
    for _ in range(steps):
        p, q = x_std**2, sigma**2
        states.append(linear_map(states[-1], eta=eta, width=width, target=target, p=p, q=q, c=0.0))
    return LinearState(*(np.stack(values) for values in zip(*states, strict=True)))


def linear_loss(state: LinearState, *, target: ArrayLike, x_std: ArrayLike, sigma: ArrayLike) -> Values:
    """E L = sigma_x^2 E^2 / 2 + sigma^2 n^2 / 2, exact for the linear net (equation (3))."""
    with np.errstate(over="ignore", invalid="ignore"):
        E = np.asarray(state.a, dtype=float) - target
        return 0.5 * (np.square(x_std) * E**2 + np.square(sigma) * np.square(state.n))


def catapult_map(f: ArrayLike, lam: ArrayLike, *, eta: ArrayLike, width: ArrayLike) -> tuple[Values, Values]:
    """f' = (1 - eta lam + eta^2 f^2/n) f,  lam' = lam + (eta f^2/n)(eta lam - 4)  (equation (12), CAT).

    Lazy for eta lam_0 < 2, catapult up to 4, divergent above. Raises ValueError for negative eta, or width below 1.
    """
    (eta,) = _at_least(0, eta=eta)
    (width,) = _at_least(1, width=width)
    f, lam = np.asarray(f, dtype=float), np.asarray(lam, dtype=float)
    with np.errstate(over="ignore", invalid="ignore"):
        square = eta * f**2 / width
        return (1 - eta * lam + eta * square) * f, lam + square * (eta * lam - 4)


def _at_least(minimum: float, **arguments: ArrayLike) -> list[NDArray[np.float64]]:
    """The arguments as float64 arrays; ValueError naming the first one that is NaN or below the minimum."""
    arrays = []
    for name, value in arguments.items():
        try:
            if value is None:
                raise TypeError
            array = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            raise ValueError(f"{name}={value!r} must be a number, or an array of numbers, >= {minimum:g}.") from None
        if not (array >= minimum).all():
            bad = array[~(array >= minimum)].flat[0]
            raise ValueError(f"{name}={bad:g} must be >= {minimum:g}.")
        arrays.append(array)
    return arrays

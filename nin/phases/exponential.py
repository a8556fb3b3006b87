"""The curve ln(A exp(-rate t) + c), with a floor and perhaps a second rate: fits, and rates that fit as well."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import leastsq
from scipy.special import expit, logit

from nin.phases.residuals import running_median

Array = Float[np.ndarray, " n"]
Parameters = Float[np.ndarray, " p"]


def curve(p: Parameters, x: Array, knee: float = np.inf) -> tuple[Array, Float[np.ndarray, "free n"]]:
    """p[0] + ln((1 - h) e^-s + h), h = expit(p[2]), s = p[1] x, and the derivatives by all p but p[2] = -inf (h = 0).

    With p[3], the rate is p[1] before the knee and p[3] after it.
    """
    before, after = np.minimum(x, knee), np.maximum(x - knee, 0)
    s = p[1] * before + p[3] * after if len(p) == 4 else p[1] * before
    h, e = expit(p[2]), np.exp(-np.clip(s, -50, 700))
    u = e + h * (1 - e)
    share = (1 - h) * e / u
    rows = [np.ones_like(x), -share * before, h * (1 - h) * (1 - e) / u, -share * after][: len(p)]
    shape = np.log(u) if h else -s
    return p[0] + shape, np.array([row for row, value in zip(rows, p, strict=True) if value != -np.inf])


def fit(
    x: Array,
    y: Array,
    start: Parameters,
    weights: Array | float = 1.0,
    knee: float = np.inf,
    tolerance: float = 1e-9,
) -> Parameters:
    """The parameters of `curve` by Levenberg-Marquardt (MINPACK); p[2] = -inf, no floor, is kept.

    tolerance: relative change of the squares, or of the parameters, at which it stops.
    """
    free, latest = start != -np.inf, {}

    def full(q: np.ndarray) -> np.ndarray:
        p = start.copy()
        p[free] = q
        return p

    def at(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """MINPACK asks for the curve and then for its Jacobian at the same q: compute both once."""
        if latest.get("q") != (key := q.tobytes()):
            latest.update(q=key, value=curve(full(q), x, knee))
        return latest["value"]

    with np.errstate(all="ignore"):  # trial steps may overflow
        q = leastsq(
            lambda q: weights * (at(q)[0] - y),
            start[free],
            Dfun=lambda q: weights * at(q)[1],
            col_deriv=True,
            full_output=True,  # without a warning if it stops early
            ftol=tolerance,
            xtol=tolerance,
            maxfev=100,
        )[0]
    return full(q) if np.isfinite(q).all() else start


def guess(x: Array, y: Array) -> Parameters:
    """The best by mean distance of 20 rates, from a slope of 0.3 in all to the whole fall in one gap, and 3 floors."""
    rates = np.geomspace(0.3 / x[-1], max(1, np.ptp(y)) / np.diff(x).min(), 20)[:, None]
    depths = np.median(y[-max(3, len(y) // 8) :]) - y[0] - np.array([0.05, 0.5, 3])
    h = np.exp(np.minimum(depths, -0.05))
    off = y[:, None] - np.log(np.exp(-rates[:, :, None] * x[:, None]) * (1 - h) + h)  # (rates, steps, floors)
    level = np.median(off, axis=1)
    i, j = np.unravel_index(np.abs(off - level[:, None]).sum(1).argmin(), level.shape)
    return np.array([level[i, j], rates[i, 0], logit(h[j])])


def fit_break(x: Array, y: Array, rough: Parameters) -> tuple[float, np.ndarray]:
    """Where a change of the rate fits best: at 1/4, 1/2 or 3/4 of the fall; and that fit."""
    smooth = running_median(y)
    knees = [x[np.argmax(smooth <= smooth[0] + part * (smooth.min() - smooth[0]))] for part in (0.25, 0.5, 0.75)]
    fits = [fit(x, y, np.append(rough, rough[1]), knee=knee, tolerance=1e-4) for knee in knees]
    best = int(np.argmin([np.square(y - curve(p, x, knee)[0]).sum() for p, knee in zip(fits, knees, strict=True)]))
    return knees[best], fits[best]


def fastest(x: Array, y: Array, weights: Array, line: Parameters, inflation: float) -> float:
    """The largest rate that fits as well as the line at 95 %, if a floor bends the curve."""
    rates, w = line[1] * np.geomspace(1, 30, 32)[:, None], np.square(weights)
    e = np.exp(-rates * x)  # (rates, steps)
    h = np.clip((np.exp(-line[1] * x[-1]) - e[:, -1:]) / (1 - e[:, -1:]), 1e-9, 1 - 1e-9)  # of the same fall
    for _ in range(2):  # Gauss-Newton in ln h and the start
        u = e + h * (1 - e)
        off, slope = (z - (z @ w / w.sum())[:, None] for z in (y - np.log(u), h * (1 - e) / u))
        move = ((off * slope) @ w / (np.square(slope) @ w))[:, None]
        square = np.square(off - move * slope) @ w
        h = np.minimum(h * np.exp(np.clip(move, -1, 1)), 1 - 1e-9)
    least = np.square(y - curve(line, x)[0]) @ w
    score = np.sqrt(np.maximum(square / least - 1, 0) * (len(x) - 2) / inflation)
    out = int(np.argmax(score > 1.96)) if (score > 1.96).any() else len(score) - 1
    return float(np.interp(1.96, score[max(out - 1, 0) : out + 1], rates[max(out - 1, 0) : out + 1, 0]))

"""Where a measured curve first rises to zero, with the standard error that the scatter of its parts implies."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

FACTOR = 2.0  # between points of the scan: a rise above zero over less than a factor 2 can be missed
SPAN = 2.0**20  # the scan ends at start / SPAN and at start * SPAN
TOLERANCE = 1e-2  # relative, of the crossing: less than a tenth of the standard errors met in practice

Curve = Callable[[float], Float[np.ndarray, " parts"]]


@dataclass(frozen=True)
class Crossing:
    """The smallest t at which the mean of a curve's parts is >= 0, and its standard error.

    at      0 if the curve is negative nowhere in the scan, inf if it never reaches zero there
    stderr  sd(D_k) / (sqrt(K) |D'|) at the crossing, over K independent parts D_k; NaN at 0 and inf, and where the
            curve jumps from a negative value to one that is not finite
    """

    at: float
    stderr: float


def first_crossing(curve: Curve, start: float, *, tolerance: float = TOLERANCE) -> Crossing:
    """The first crossing of D(t) = mean_k D_k(t) from negative values to zero or more, t > 0.

    A scan rises from `start` by FACTOR at a time to the first point with D >= 0; values that are not finite count as
    such. If already D(start) >= 0, the scan first goes down by FACTOR^4 at a time until D < 0. The bracket is refined
    by Brent's method on D(t) / t, which is a straight line for a quadratic loss along its gradient.

    curve      t -> D_k(t), the values of the independent parts (K,)
    tolerance  relative, of the crossing
    """
    seen: dict[float, np.ndarray] = {}

    def over_t(t: float) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            if t not in seen:
                seen[t] = np.asarray(curve(t), dtype=float) / t
            mean = float(seen[t].mean())
        return mean if math.isfinite(mean) else math.inf

    low = start
    while over_t(low) >= 0:
        if low <= start / SPAN:
            return Crossing(0.0, math.nan)
        low /= FACTOR**4
    high = FACTOR * low
    while over_t(high) < 0:
        if high >= start * SPAN:
            return Crossing(math.inf, math.nan)
        low, high = high, FACTOR * high
    while over_t(high) == math.inf and high > (1 + tolerance) * low:  # Brent's method needs finite values
        middle = math.sqrt(low * high)
        low, high = (middle, high) if over_t(middle) < 0 else (low, middle)
    if over_t(high) < math.inf:
        high = float(brentq(over_t, low, high, xtol=tolerance * low, rtol=tolerance))
    return Crossing(high, _standard_error(seen, high))


def _standard_error(seen: dict[float, np.ndarray], at: float) -> float:
    """sd / (sqrt(K) |slope|); the slope is that of the parabola through the crossing and a point on either side."""
    means = {t: float(parts.mean()) for t, parts in seen.items() if np.isfinite(parts).all()}
    if at not in means:
        return math.nan
    sides = [[t for t in means if t < 0.99 * at], [t for t in means if t > 1.01 * at]]
    near = [min(side, key=lambda t: abs(t - at)) for side in sides if side]
    chords = [((means[t] - means[at]) / (t - at), 1 / abs(t - at)) for t in near]
    slope = sum(chord * weight for chord, weight in chords) / sum(weight for _, weight in chords)
    return float(seen[at].std(ddof=1) / math.sqrt(len(seen[at])) / abs(slope))

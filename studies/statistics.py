"""Slopes, intervals and verdicts that the notebooks report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

Numbers = Sequence[float] | np.ndarray | pd.Series


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    stderr: float


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half-width of its 95 % interval (Student's t); half is NaN for a single value."""

    mean: float
    half: float
    count: int


@dataclass(frozen=True)
class Band:
    """A geometric mean over seeds and the ends of its 95 % interval (Student's t of the logarithms)."""

    mean: float
    low: float
    high: float


def verdict(band: Band, *, side: int, control: float = np.nan) -> str:
    """Whether a ratio over seeds supports the claim that it is above 1 (side=1) or below 1 (side=-1).

    "reproduced": the whole interval lies on the claim's side of 1 and beyond the control, which is the same ratio in a
    case without the claimed effect (NaN: no control). "within chance": it lies on the claim's side of 1, but not beyond
    the control. "not reproduced": it lies on the other side of 1. "no detectable effect": it contains 1, or there are
    too few seeds for an interval.

    >>> verdict(Band(1.5, 1.2, 1.9), side=1), verdict(Band(1.5, 1.2, 1.9), side=1, control=1.4)
    ('reproduced', 'within chance')
    """
    if not (band.low > 1 or band.high < 1):
        return "no detectable effect"
    if (band.low > 1) != (side > 0):
        return "not reproduced"
    reached = control >= band.low if side > 0 else control <= band.high
    return "within chance" if reached else "reproduced"


def loglog_slope(x: Numbers, y: Numbers) -> Estimate:
    """d ln y / d ln x by least squares over the finite, positive pairs; NaN for fewer than 3.

    >>> round(loglog_slope([1, 2, 4], [8, 2, 0.5]).value, 6)
    -2.0
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if good.sum() < 3:
        return Estimate(np.nan, np.nan)
    fit = stats.linregress(np.log(x[good]), np.log(y[good]))
    return Estimate(float(fit.slope), float(fit.stderr))


def mean_interval(values: Numbers) -> Interval:
    """Mean of the finite values and its 95 % interval, mean +- t(0.975, n - 1) s / sqrt n."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(np.nan, np.nan, 0)
    if len(values) == 1:
        return Interval(float(values[0]), np.nan, 1)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean()), float(half), len(values))


def geometric_band(values: Numbers) -> Band:
    """Geometric mean of the positive values and its 95 % interval, exp(mean +- half) of their logarithms.

    >>> round(geometric_band([1, 4]).mean, 6)
    2.0
    """
    values = np.asarray(values, dtype=float)
    interval = mean_interval(np.log(values[values > 0]))
    return Band(*(float(np.exp(interval.mean + side * interval.half)) for side in (0, -1, 1)))

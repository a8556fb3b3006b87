"""Lines of means over seeds, with their range or their 95 % interval, as several studies draw them."""

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.typing import ColorType

from studies.statistics import Numbers, geometric_band, mean_interval

BAND = {"alpha": 0.2, "lw": 0}


def line_with_range(
    ax: Axes, x: Numbers, y: Numbers, *, color: ColorType, center: str = "mean", **style: object
) -> None:
    """Plot the mean (or median) of the finite y at each x, with a band from the smallest to the largest.

    style: keyword arguments of `matplotlib.lines.Line2D`. Raises ValueError unless both axes are linear.
    """
    _line(ax, x, y, estimator=center, errorbar=("pi", 100), err_kws=BAND, color=color, mec=color, **style)


def line_with_interval(
    ax: Axes, x: Numbers, y: Numbers, *, color: ColorType, geometric: bool = False, band: bool = False, **style: object
) -> None:
    """Plot the mean of the finite y at each x with its 95 % interval (Student's t), drawn as bars or as a band.

    geometric: plot the geometric mean and its interval instead. style: keyword arguments of
    `matplotlib.lines.Line2D`. Raises ValueError unless both axes are linear.
    """
    mean, ends = (_geometric_mean, _geometric_ends) if geometric else (_mean, _ends)
    bars = {"elinewidth": style.get("lw"), "capsize": 1.5}
    look = {"err_style": "band", "err_kws": BAND} if band else {"err_style": "bars", "err_kws": bars}
    # Hollow points cover the bars.
    _line(ax, x, y, estimator=mean, errorbar=ends, color=color, mec=color, mfc="w", zorder=2.1, **look, **style)


def _line(ax: Axes, x: Numbers, y: Numbers, **kwargs: object) -> None:
    """seaborn.lineplot without a legend or axis labels, on linear axes: it averages logarithms on logarithmic axes."""
    scales = (ax.get_xscale(), ax.get_yscale())
    if scales != ("linear", "linear"):
        raise ValueError(f"ax has the scales {scales}; both must be linear here, so set them after drawing the lines.")
    sns.lineplot(x=np.asarray(x), y=np.asarray(y), ax=ax, legend=False, **kwargs)


def _mean(values: Numbers) -> float:
    return mean_interval(values).mean


def _ends(values: Numbers) -> tuple[float, float]:
    interval = mean_interval(values)
    return interval.mean - interval.half, interval.mean + interval.half


def _geometric_mean(values: Numbers) -> float:
    return geometric_band(values).mean


def _geometric_ends(values: Numbers) -> tuple[float, float]:
    band = geometric_band(values)
    return band.low, band.high

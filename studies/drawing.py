"""What several studies draw alike: lines of means over seeds, with their range or interval; ticks and legends."""

from collections.abc import Iterable

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
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


def few_ticks(axis: Axis, most: int = 5) -> None:
    """Label two to `most` round numbers of a logarithmic axis, in plain decimals."""
    low, high = sorted(axis.get_view_interval())
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [place for place in np.outer(powers, steps).ravel() if low <= place <= high]
        if len(ticks) > 2:
            break
    if len(ticks) < 2:
        ticks = [place for place in MaxNLocator(4).tick_values(low, high) if low <= place <= high]
    axis.set_ticks(ticks[:: -(-len(ticks) // most)])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axes: Iterable[Axes], **look: object) -> None:
    """One legend below the panels with the labels of all of `axes`, each once; look: of `Figure.legend`."""
    lines = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="outside lower center", **({"ncols": len(lines)} | look))

"""What a referee would object to in a printed figure: missing or overlapping ticks, clipped text, small fonts, legends
on the data. Measured on the figure as it is saved, without the code that mends it (`nin.support.legible`)."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from drawn import figure_of
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nin.figures import style

SMALLEST = 6.0  # points
FEWEST = 2  # labelled ticks
OVERLAP = 0.05  # part of the smaller of two labels; boxes include the space above and below the digits
OUTSIDE = 0.5  # points of a box beyond the canvas: antialiasing
COVERED = 0.02  # part of a panel's curves (by length), points or bars within a legend's box


def rendered(name: str) -> Figure:
    """A figure in its printed layout: at the resolution of the saved png."""
    figure = figure_of(name)
    if figure.dpi != style()["savefig.dpi"]:
        with mpl.rc_context(style()):
            figure.set_dpi(style()["savefig.dpi"])
            figure.draw_without_rendering()
    return figure


def axes_of(figure: Figure) -> list[Axes]:
    """Visible panels, colour bars and second scales."""
    return [ax for own in figure.axes for ax in (own, *own.child_axes) if ax.get_visible() and ax.axison]


def axis_of(ax: Axes) -> dict[str, Axis]:
    return {"x": ax.xaxis, "y": ax.yaxis}


def tick_texts(axis: Axis) -> Iterator[tuple[float, Text]]:
    for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
        yield from ((tick.get_loc(), text) for text in (tick.label1, tick.label2))


def shown_ticks(axis: Axis) -> list[Text]:
    """Labels that are drawn: visible, not empty, at a place within the limits."""
    low, high = np.sort(axis.get_transform().transform(axis.get_view_interval()))
    slack = 1e-6 * (high - low)
    found = [(axis.get_transform().transform([at])[0], text) for at, text in tick_texts(axis)]
    inside = [text for at, text in found if low - slack <= at <= high + slack]
    return [text for text in inside if text.get_visible() and text.get_text().strip()]


def shown_texts(figure: Figure) -> list[Text]:
    """All text that is drawn: tick labels beyond the limits of their axis are not."""
    axes = [ax for own in figure.axes for ax in (own, *own.child_axes)]
    ticks = {id(text) for ax in axes for axis in axis_of(ax).values() for _, text in tick_texts(axis)}
    ticks -= {id(text) for ax in axes_of(figure) for axis in axis_of(ax).values() for text in shown_ticks(axis)}
    hidden = [ax for ax in axes if not ax.get_visible()]
    ticks |= {id(text) for ax in hidden for text in ax.findobj(Text)}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in texts if id(text) not in ticks]


def all_legends(figure: Figure) -> list[Legend]:
    return [*figure.legends, *(ax.get_legend() for ax in axes_of(figure) if ax.get_legend())]


def ticks(figure: Figure) -> list[str]:
    """Axes with fewer than two labels, unless it shows an image without ticks or shares those of its row or column."""
    faults = []
    for place, ax in enumerate(axes_of(figure)):
        for side, axis in axis_of(ax).items():
            alone = not any(has_same_scale(ax, other, side) for other in axes_of(figure) if other is not ax)
            image = bool(ax.images) and not len(axis.get_majorticklocs())
            second = ax in [child for own in figure.axes for child in own.child_axes] and not len(shown_ticks(axis))
            colorbar = ax.get_label() == "<colorbar>" and not len(shown_ticks(axis))  # it has one axis
            if len(shown_ticks(axis)) < FEWEST and alone and not (image or second or colorbar):
                faults.append(f"{side} axis of panel {place} ({ax.get_title()}) has {len(shown_ticks(axis))} labels")
    return faults


def has_same_scale(ax: Axes, other: Axes, side: str) -> bool:
    """Whether a panel hides its labels, and another of its row (y) or column (x) with the same limits has some."""
    first = next((text for _, text in tick_texts(axis_of(ax)[side])), None)
    texts = [text for _, text in tick_texts(axis_of(ax)[side])]
    if first is None or any(text.get_visible() and text.get_text().strip() for text in texts):
        return False
    mine, theirs = axis_of(ax)[side], axis_of(other)[side]
    beside = {"x": ("x0", "x1"), "y": ("y0", "y1")}[side]
    aligned = all(abs(getattr(ax.bbox, end) - getattr(other.bbox, end)) < 2 for end in beside)
    same = np.allclose(mine.get_view_interval(), theirs.get_view_interval()) and mine.get_scale() == theirs.get_scale()
    return aligned and same and len(shown_ticks(theirs)) >= FEWEST


def overlaps(figure: Figure) -> list[str]:
    """Pairs of labels of one axis that lie on each other."""
    faults = []
    for ax in axes_of(figure):
        for side, axis in axis_of(ax).items():
            texts = sorted(shown_ticks(axis), key=lambda text: getattr(text.get_window_extent(), f"{side}0"))
            for first, second in pairwise(texts):
                if lie_on_each_other(first, second):
                    faults.append(f"{side} axis of {ax.get_title()!r}: {first.get_text()} and {second.get_text()}")
    return faults


def lie_on_each_other(first: Text, second: Text) -> bool:
    one, two = first.get_window_extent(), second.get_window_extent()
    turn = np.deg2rad(first.get_rotation())
    if abs(np.sin(2 * turn)) > 0.1:  # boxes of turned text overlap; the lines need their height between them
        height = first.get_fontsize() * first.get_figure(root=True).dpi / 72
        return abs(two.x1 - one.x1) * abs(np.sin(turn)) + abs(two.y1 - one.y1) * abs(np.cos(turn)) < height
    both = Bbox.intersection(one, two)
    return both is not None and area(both) > OVERLAP * min(area(one), area(two))


def area(box: Bbox) -> float:
    return box.width * box.height


def clipped(figure: Figure) -> list[str]:
    """Texts and legends beyond the canvas, and texts that their panel cuts."""
    slack = OUTSIDE * figure.dpi / 72
    found = [(text.get_text(), text.get_window_extent(), text) for text in shown_texts(figure)]
    found += [("a legend", legend.get_window_extent(), None) for legend in all_legends(figure)]
    faults = [f"{name!r} leaves the canvas" for name, box, _ in found if leaves(box, figure.bbox, slack)]
    cut = [(name, box, text.axes.bbox) for name, box, text in found if text and text.axes and text.get_clip_box()]
    return faults + [f"{name!r} is cut by its panel" for name, box, panel in cut if leaves(box, panel, slack)]


def leaves(box: Bbox, canvas: Bbox, slack: float) -> bool:
    low, high = np.subtract(box.p0, canvas.p0), np.subtract(canvas.p1, box.p1)
    return bool(min(*low, *high) < -slack)


def fonts(figure: Figure) -> list[str]:
    """Texts that are too small at the width of the page, 5.5 inches in the style."""
    shrunk = style()["figure.figsize"][0] / figure.get_figwidth()
    texts = [(text.get_text(), text.get_fontsize() * shrunk) for text in shown_texts(figure)]
    return [f"{text!r} has {size:.1f} pt" for text, size in texts if size < SMALLEST - 1e-6]


def legends_on_data(figure: Figure) -> list[str]:
    """Legends whose box covers more than COVERED of the curves, points or bars of a panel."""
    faults = []
    for legend in all_legends(figure):
        box = legend.get_window_extent()
        for place, ax in enumerate(axes_of(figure)):
            points = np.concatenate([np.empty((0, 2)), *curves_and_points(ax)])
            inside = ((points > box.p0) & (points < box.p1)).all(axis=1)
            bars = [bar.get_window_extent() for group in ax.containers if isinstance(group, BarContainer)
                    for bar in group if bar.get_height()]  # fmt: skip
            parts = [inside.mean() if len(points) else 0.0]
            parts += [np.mean([bar.overlaps(box) for bar in bars])] if bars else []
            if max(parts) > COVERED:
                faults.append(f"a legend covers {max(parts):.1%} of panel {place} ({ax.get_title()})")
    return faults


def curves_and_points(ax: Axes) -> Iterator[np.ndarray]:
    """Pixels along each curve, one apart, and at each scattered point; those within the panel."""
    for line in ax.lines:
        if line.get_visible() and line.get_transform() == ax.transData:
            drawn = line.get_linestyle() != "None"
            yield within(ax, in_pixels(ax, line.get_xydata()), joined=drawn)
    for dots in ax.collections:
        if isinstance(dots, PathCollection) and dots.get_visible():
            yield within(ax, in_pixels(ax, dots.get_offsets()), joined=False)


def in_pixels(ax: Axes, data: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        pixels = ax.transData.transform(np.ma.filled(np.ma.asarray(data, dtype=float), np.nan))
    return np.clip(pixels[np.isfinite(pixels).all(axis=1)], -1e4, 1e4)


def within(ax: Axes, pixels: np.ndarray, *, joined: bool) -> np.ndarray:
    parts = [pixels]
    if joined:
        for one, two in pairwise(pixels):
            parts.append(np.linspace(one, two, int(np.hypot(*(two - one))), endpoint=False).reshape(-1, 2))
    pixels = np.concatenate(parts)
    return pixels[((pixels >= ax.bbox.p0) & (pixels <= ax.bbox.p1)).all(axis=1)]


FAULTS: dict[str, Callable[[Figure], list[str]]] = {
    "ticks": ticks, "overlaps": overlaps, "clipped": clipped, "fonts": fonts, "legends": legends_on_data,
}  # fmt: skip

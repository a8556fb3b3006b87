"""Make a figure legible at its printed size: no small text, two labelled ticks on each axis, no overlaps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

SMALLEST_TEXT = 6.0  # points; smaller text is hard to read in print
FEWEST_LABELS = 2  # one labelled tick gives no scale
DIGITS = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5), tuple(range(1, 10)))  # labelled on a log axis, the sparsest first
PLAIN = (1e-3, 1e4)  # numbers between these are labelled as they are, others as powers of ten
INTERVALS = (5, 4, 3, 2, 6, 8, 10)  # most intervals between ticks, in the order in which they are tried
STEPS = (1, 2, 2.5, 5, 10)  # matplotlib's AutoLocator
OVERLAP = 0.05  # part of the smaller label's box: boxes include the space around the digits
COVERED = 0.01  # part of a panel's curves below its legend


def make_legible(figure: Figure) -> None:
    """Raise text to SMALLEST_TEXT, label enough ticks without overlaps, and move legends that cover data.

    Changes only ticks that matplotlib chose itself; a figure without these faults keeps its bytes.
    """
    axes = [panel for ax in figure.axes for panel in (ax, *ax.child_axes) if panel.get_visible() and panel.axison]
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), SMALLEST_TEXT))
    for axis in _axis_of(axes):  # ticks that are made later
        size = axis.get_tick_params().get("labelsize")
        if isinstance(size, int | float) and size < SMALLEST_TEXT:
            axis.set_tick_params(which="both", labelsize=SMALLEST_TEXT)
    with _positions_kept(figure):
        figure.draw_without_rendering()
        for _ in range(2):  # labels of another width change the panels
            if not any([_mend(axis) for axis in _axis_of(axes)]):
                break
            figure.draw_without_rendering()
        for ax in axes:
            legend = ax.get_legend()
            if legend is not None and covered(ax, legend) > COVERED:
                _move(figure, ax, legend)


def labels(axis: Axis) -> list[Text]:
    """The tick labels of an axis that are drawn: visible, not empty, within the limits."""
    low, high = sorted(axis.get_transform().transform(axis.get_view_interval()))
    slack = 1e-6 * (high - low)
    found = []
    for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
        place = axis.get_transform().transform([tick.get_loc()])[0]
        if low - slack <= place <= high + slack:
            found += [text for text in (tick.label1, tick.label2) if text.get_visible() and text.get_text().strip()]
    return found


def overlapping(texts: list[Text]) -> bool:
    """Whether neighbours among the labels of an axis overlap; between turned labels a line's height must be left."""
    boxes = sorted(((text.get_window_extent(), text) for text in texts), key=lambda pair: _begin(*pair))
    for (first, text), (second, _) in pairwise(boxes):
        turn = np.deg2rad(text.get_rotation())
        if abs(np.sin(2 * turn)) > 0.1:
            line = text.get_fontsize() * text.get_figure(root=True).dpi / 72
            if (second.x1 - first.x1) * abs(np.sin(turn)) < line:
                return True
            continue
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        smaller = min(first.width * first.height, second.width * second.height)
        if min(width, height) > 0 and width * height > OVERLAP * smaller:
            return True
    return False


def _begin(box: Bbox, text: Text) -> tuple[float, float]:
    """The place of a label along its axis: turned ones, of different lengths, all end at their ticks."""
    turned = abs(np.sin(2 * np.deg2rad(text.get_rotation()))) > 0.1
    return (box.x1 if turned and text.get_ha() == "right" else box.x0), box.y0


def covered(ax: Axes, legend: Legend) -> float:
    """The part of a panel's curves (by length) and points (by number) that lies within a legend's box."""
    box = legend.get_window_extent()
    points = np.concatenate([np.empty((0, 2)), *_points(ax)])
    inside = (points > (box.x0, box.y0)).all(axis=1) & (points < (box.x1, box.y1)).all(axis=1)
    return float(inside.mean()) if len(points) else 0.0


def _points(ax: Axes) -> Iterator[np.ndarray]:
    """Points along each curve, every two pixels, and scattered points: those within the panel, in pixels."""
    curves = [(line.get_xydata(), line.get_linestyle() != "None") for line in ax.lines
              if line.get_transform() == ax.transData and line.get_visible()]  # fmt: skip
    curves += [(dots.get_offsets(), False) for dots in ax.collections if dots.get_offset_transform() == ax.transData]
    panel = ax.get_window_extent()
    for data, joined in curves:
        with np.errstate(all="ignore"):
            pixels = ax.transData.transform(np.ma.filled(np.ma.asarray(data, dtype=float), np.nan))
        pixels = np.clip(pixels[np.isfinite(pixels).all(axis=1)], -1e4, 1e4)
        if joined and len(pixels) > 1:
            length = np.concatenate([[0], np.hypot(*np.diff(pixels, axis=0).T).cumsum()])
            at = np.linspace(0, length[-1], int(length[-1] / 2) + 2)
            pixels = np.column_stack([np.interp(at, length, column) for column in pixels.T])
        yield pixels[((pixels >= panel.p0) & (pixels <= panel.p1)).all(axis=1)]


def _axis_of(axes: list) -> Iterator[Axis]:  # of Axes and secondary axes
    for ax in axes:
        yield from (ax.xaxis, ax.yaxis)


@contextmanager
def _positions_kept(figure: Figure) -> Iterator[None]:
    """Put the panels back where they were: a layout that starts from another one differs in its last bits."""
    before = [(ax, ax.get_position(original=True), ax.get_position(), ax.get_in_layout()) for ax in figure.axes]
    try:
        yield
    finally:
        for ax, original, active, within in before:
            ax.set_position(original, which="original")
            ax.set_position(active, which="active")
            ax.set_in_layout(within)


def _good(axis: Axis) -> bool:
    texts = labels(axis)
    return len(texts) >= FEWEST_LABELS and not overlapping(texts)


def _mend(axis: Axis) -> bool:
    """Try other ticks on an axis whose labels are too few or overlap; whether it has changed."""
    first, locator = axis.get_major_ticks()[:1], axis.get_major_locator()
    hidden = not first or not (first[0].label1.get_visible() or first[0].label2.get_visible())
    chosen = isinstance(axis.get_major_formatter(), ScalarFormatter | LogFormatter)
    log = axis.get_scale() == "log" and isinstance(locator, LogLocator)
    linear = axis.get_scale() == "linear" and isinstance(locator, MaxNLocator)
    if hidden or not chosen or not (log or linear) or _good(axis):
        return False
    before = (axis.get_major_locator(), axis.get_major_formatter(), axis.get_minor_formatter())
    for change in _log_ticks() if log else _linear_ticks():
        change(axis)
        axis.get_ticklabels(which="both")  # updates the ticks
        if _good(axis):
            return True
    axis.set_major_locator(before[0])
    axis.set_major_formatter(before[1])
    axis.set_minor_formatter(before[2])
    return False


def _linear_ticks() -> Iterator[Callable[[Axis], None]]:
    for intervals in INTERVALS:
        yield lambda axis, n=intervals: axis.set_major_locator(MaxNLocator(n, steps=STEPS))


def _log_ticks() -> Iterator[Callable[[Axis], None]]:
    """Labels at these digits of each decade; then at fewer decades; then at round numbers."""

    def by_digits(axis: Axis, digits: tuple[int, ...], decades: int | None) -> None:
        axis.set_major_locator(LogLocator(numticks=decades))
        format = FuncFormatter(lambda value, _: _number(value, _is_plain(axis)) if _digit(value) in digits else "")
        axis.set_major_formatter(format)
        axis.set_minor_formatter(format)

    def rounded(axis: Axis, intervals: int) -> None:
        axis.set_major_locator(MaxNLocator(intervals, steps=STEPS))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, _is_plain(axis))))
        axis.set_minor_formatter(NullFormatter())

    for digits in DIGITS:
        yield lambda axis, digits=digits: by_digits(axis, digits, None)
    for decades in (4, 3, 2):
        yield lambda axis, decades=decades: by_digits(axis, (1,), decades)
    for intervals in INTERVALS:
        yield lambda axis, n=intervals: rounded(axis, n)


def _digit(value: float) -> int:
    """The first digit of a tick at d 10^n; 0 for a number between."""
    digit = value / 10.0 ** np.floor(np.log10(value) + 1e-9)
    return round(digit) if abs(digit - round(digit)) < 1e-6 else 0


def _is_plain(axis: Axis) -> bool:
    low, high = sorted(axis.get_view_interval())
    return bool(PLAIN[0] <= low and high <= PLAIN[1])


def _number(value: float, plain: bool) -> str:
    if plain:
        return f"{value:.6g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    digit = value / 10.0**exponent
    power = f"10^{{{exponent}}}"
    return f"${power}$" if round(digit, 6) == 1 else rf"${digit:.6g}\times {power}$"


def _move(figure: Figure, ax: Axes, legend: Legend) -> None:
    """Put a legend where matplotlib finds the most room, unless it covers more there."""
    place, before = legend._loc, covered(ax, legend)
    legend.set_loc("best")
    figure.draw_without_rendering()
    if covered(ax, legend) > before:
        legend._loc = place

"""Whether a drawn figure can be read at its printed size: what does not fit, in words."""

import contextlib
import functools
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
from matplotlib import _mathtext
from matplotlib.axes import Axes
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nin.support.legible import covered, labels, overlapping

SMALLEST_TEXT = 6.0  # points; smaller text is hard to read in print
SCRIPTS = 6 / 7  # size of an exponent or index beside that of its base: 6 pt beside 7; matplotlib's own is 0.7
SMALLEST_PANEL = (0.6, 0.5)  # inches; in smaller panels nothing can be read off
HIGHEST = 9.2  # inches: a page
COVERED = 0.02  # part of a panel's curves below a legend
SLACK = 0.5  # points

_formulas = MathTextParser("path")
_parsed = functools.lru_cache(1024)(MathTextParser._parse_cached.__wrapped__)  # formulas with large scripts


@contextlib.contextmanager
def large_scripts() -> Iterator[None]:
    """Let exponents and indices of formulas be SCRIPTS as large as their base."""
    before = _mathtext.SHRINK_FACTOR, MathTextParser._parse_cached
    try:
        _mathtext.SHRINK_FACTOR, MathTextParser._parse_cached = SCRIPTS, _parsed
        yield
    finally:
        _mathtext.SHRINK_FACTOR, MathTextParser._parse_cached = before


def smallest(text: Text) -> float:
    """The size of the smallest character of a text, exponents and indices included, in points."""
    size = text.get_fontsize()
    if text.get_text().count("$") < 2 or not text.get_parse_math():
        return size
    font = FontProperties(size=size, math_fontfamily=text.get_math_fontfamily())
    with contextlib.suppress(ValueError):
        return min([size, *(glyph[1] for line in text.get_text().splitlines()
                            for glyph in _formulas.parse(line, 72, font).glyphs)])  # fmt: skip
    return size


def enlarge(figure: Figure) -> bool:
    """Raise texts, and the labels of ticks, until no character is below SMALLEST_TEXT; whether one was."""
    changed = False
    for ax in panels_of(figure):
        for axis in (ax.xaxis, ax.yaxis):
            least = min([smallest(text) / text.get_fontsize() for text in labels(axis)], default=1.0)
            size = axis.get_tick_params(which="major").get("labelsize", mpl.rcParams["xtick.labelsize"])
            if isinstance(size, int | float) and size * least < SMALLEST_TEXT - 1e-3:
                axis.set_tick_params(which="both", labelsize=SMALLEST_TEXT / least)
                changed = True
    groups = [legend.findobj(Text) for legend in figure.findobj(Legend)]  # alike within a legend
    for group in [*groups, *([text] for text in figure.findobj(Text))]:
        factor = max([SMALLEST_TEXT / smallest(text) for text in group if text.get_text()], default=1.0)
        if factor > 1 + 1e-3:
            for text in group:
                text.set_fontsize(text.get_fontsize() * factor)
            changed = True
    return changed


def problem(figure: Figure) -> str:
    """What cannot be read in print, the first of what there is, or ""; the figure is laid out at its size."""
    return next(_problems(figure), "")


def panels_of(figure: Figure) -> list[Axes | SecondaryAxis]:
    """Visible panels, colour bars and second scales."""
    return [ax for own in figure.axes for ax in (own, *own.child_axes) if ax.get_visible() and ax.axison]


def _problems(figure: Figure) -> Iterator[str]:
    if figure.get_figheight() > HIGHEST:
        yield f"it would be {figure.get_figheight():.0f} in high, more than a page"
        return
    panels = panels_of(figure)
    for ax in panels:
        size = ax.bbox.size / figure.dpi
        if ax.get_label() != "<colorbar>" and ax in figure.axes and (size < SMALLEST_PANEL).any():
            yield f"a panel is only {size[0]:.2f} x {size[1]:.2f} in"
    for ax in panels:
        for axis in (ax.xaxis, ax.yaxis):
            if overlapping(labels(axis)):
                yield f"ticks of {_name(ax)} overlap"
    boxes = list(_boxes(figure, panels))
    canvas, slack = figure.bbox, SLACK * figure.dpi / 72
    for name, box, _ in boxes:
        if min(*(box.p0 - canvas.p0), *(canvas.p1 - box.p1)) < -slack:
            yield f"{name} leaves the figure"
    for number, (name, box, owner) in enumerate(boxes):
        for other, another, its in boxes[number + 1 :]:
            both = Bbox.intersection(box, another)
            if owner is not its and both is not None and min(both.size) > 2 * slack:
                yield f"{name} and {other} overlap"
    for ax in [ax for ax in panels if ax in figure.axes]:
        for legend in [found for found in (ax.get_legend(), *figure.legends) if found]:
            if (part := covered(ax, legend)) > COVERED:
                yield f"a legend covers {part:.0%} of the curves of {_name(ax)}"


def _boxes(figure: Figure, panels: list[Axes | SecondaryAxis]) -> Iterator[tuple[str, Bbox, object]]:
    """The titles, labels and legends that are drawn, and the ticks of each axis as one, with what they belong to."""
    for ax in panels:
        for axis in (ax.xaxis, ax.yaxis):
            for text in labels(axis):
                if abs(np.sin(2 * np.deg2rad(text.get_rotation()))) < 0.1:
                    yield f"the tick {text.get_text()}", _text(text), axis
            if axis.label.get_visible() and axis.label.get_text():
                yield repr(axis.label.get_text()), _text(axis.label), axis.label
        for text in (ax.title, *ax.texts):
            if text.get_visible() and text.get_text():
                yield repr(text.get_text()), _text(text), text
        if legend := ax.get_legend():
            yield f"the legend of {_name(ax)}", legend.get_window_extent(), legend
    for text in figure.texts:
        if text.get_visible() and text.get_text():
            yield repr(text.get_text()), _text(text), text
    for legend in figure.legends:
        yield "the legend", legend.get_window_extent(), legend


def _text(text: Text) -> Bbox:
    return text.get_window_extent()


def _name(ax: Axes | SecondaryAxis) -> str:
    return f"panel {ax.get_title()!r}" if ax.get_title() else "a panel"

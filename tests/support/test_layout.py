"""Catches a layout that puts panels or ticks elsewhere than a drawing of the figure does."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from nin.support.layout import lay_out
from nin.support.legible import labels


def several(layout: str | None) -> Figure:
    """Log and linear scales, an image that keeps its aspect, its colour bar, a second scale, an inset."""
    figure = Figure(figsize=(5, 3), layout=layout)
    axes = figure.subplots(2, 2)
    axes[0, 0].loglog([1e-4, 1e3], [1e-2, 1e5])
    axes[0, 0].set(xlabel="$t$", ylabel="a label\nof two lines")
    axes[0, 0].secondary_yaxis("right", functions=(np.sqrt, np.square)).set_ylabel("second")
    figure.colorbar(axes[0, 1].imshow(np.arange(12).reshape(3, 4)), ax=axes[0, 1])
    axes[1, 0].plot([0, 123456], [0, 1], label="a curve")
    axes[1, 0].legend()
    axes[1, 1].inset_axes((0.5, 0.5, 0.4, 0.4)).plot([0, 1])
    axes[1, 1].set_aspect("equal")
    return figure


def places(figure: Figure) -> list:
    """The box of each panel, and the text and box of each label of a tick."""
    panels = [panel for ax in figure.axes for panel in (ax, *ax.child_axes)]
    found = [(panel.get_position().bounds, panel.bbox.bounds) for panel in panels]
    texts = [text for panel in panels for axis in (panel.xaxis, panel.yaxis) for text in labels(axis)]
    return found + [(text.get_text(), text.get_window_extent().bounds) for text in texts]


@pytest.mark.parametrize("layout", ["constrained", None])
def test_everything_is_where_a_drawing_puts_it(layout):
    laid, drawn, neither = several(layout), several(layout), several(layout)
    for height in (3.0, 4.0):
        laid.set_figheight(height)
        drawn.set_figheight(height)
        lay_out(laid)
        drawn.draw_without_rendering()
        assert places(laid) == places(drawn) and len(places(laid)) > 30
    assert places(neither) != places(drawn)


def test_large_scripts_leave_small_ones_behind():
    """Formulas are kept for each size of scripts: none is drawn with that of the other."""
    from nin.companion.papers.fitting import large_scripts

    parser, formula = mpl.mathtext.MathTextParser("path"), "$10^{-3}$"
    small = parser.parse(formula).width
    with large_scripts():
        large = parser.parse(formula).width
        with large_scripts():
            assert parser.parse(formula).width == large
    assert parser.parse(formula).width == small < large
    with large_scripts():
        assert parser.parse(formula).width == large

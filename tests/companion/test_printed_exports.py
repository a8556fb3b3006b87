"""Catches exports that cannot be read at the width of a venue's column: small characters, texts on each other or cut
off, legends on the data; and one-column figures that are written though they have no such form.

Measured by `print_faults`, not by the code that mends and refuses them (`nin.companion.papers.fitting`)."""

import os
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import print_faults

from nin.companion.papers import export as exporting
from nin.companion.papers.fitting import large_scripts
from nin.figures import Saved
from nin.figures.style import alone

PAPER = Path(__file__).parents[2] / "figures" / "paper"
EVERY = sorted(path.stem for path in PAPER.glob("*.json"))
WIDTHS = [(venue, column) for venue, found in exporting.VENUES.items() for column in found.widths]
# The narrowest width for all figures, each other width for every eighth; `make prints` measures all of all.
CASES = [
    (name, *width)
    for place, width in enumerate(WIDTHS)
    for number, name in enumerate(EVERY)
    if os.environ.get("NIN_PRINTS") == "all" or width == ("icml", "one") or number % 8 == place
]


def characters(figure):
    """Texts with a character below six points, and its size."""
    found = []
    for text in print_faults.shown_texts(figure):
        sizes = [text.get_fontsize()]
        for line in text.get_text().splitlines():
            if line.count("$") >= 2:
                font = FontProperties(size=text.get_fontsize(), math_fontfamily=text.get_math_fontfamily())
                sizes += [size for _, size, *_ in MathTextParser("path").parse(line, 72, font).glyphs]
        if min(sizes) < 6 - 1e-3:
            found.append(f"{text.get_text()!r} has {min(sizes):.2f} pt")
    return found


def crossings(figure):
    """Titles, axis labels and legends on each other."""
    axes = print_faults.axes_of(figure)
    texts = [text for ax in axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_visible() and text.get_text()]
    boxes += [("a legend", legend.get_window_extent()) for legend in print_faults.all_legends(figure)]
    found = []
    for place, (name, box) in enumerate(boxes):
        for other, another in boxes[place + 1 :]:
            both = mpl.transforms.Bbox.intersection(box, another)
            if both is not None and min(both.size) > figure.dpi / 72:
                found.append(f"{name!r} and {other!r}")
    return found


KINDS = ("overlaps", "clipped", "legends")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "venue", "column"), CASES)
def test_what_is_exported_can_be_read_in_print(name, venue, column, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(PAPER.parent))
    look = exporting.look_of(venue, column)
    figure = exporting.draw(Saved(name, "paper"), look)
    try:
        problem = exporting._problem(figure, look)
        if problem and column == "one":
            return  # it is not written
        with alone(look), large_scripts():
            found = {kind: print_faults.FAULTS[kind](figure) for kind in KINDS}
            found |= {"characters": characters(figure), "crossings": crossings(figure)}
        assert not problem and not any(found.values()), (problem, found)
        assert figure.get_figwidth() == pytest.approx(exporting.width_of(venue, column))
        sizes = [ax.bbox.size / figure.dpi for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]
        assert min(map(min, sizes)) > 0.45
    finally:
        plt.close(figure)

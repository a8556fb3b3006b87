"""Figures for one column of a page: panels flow into blocks of a few columns, legends below what they explain."""

from contextlib import suppress
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from nin.support.legible import COVERED, covered

NARROW = 5.0  # inches: a figure of less width is narrow
LEAST = 1.5  # inches for each panel of a narrow figure, with its labels
LEAST_SHARED = 1.0  # and for those that share their scale of y, if the figure is higher than a page otherwise
TEXT = 5.5  # inches: the width that heights are chosen for
LOWEST, PAGE = 0.86, 8.6  # inches of a row of panels, with its labels, and of all
PANEL = 0.62  # part of a row that is panel


class NarrowFigure(Figure):
    """A figure whose legends outside the panels stand below them, in as many columns as fit.

    blocks  panels (rows, columns) that stand below each other, in the order of their columns
    row     height of a row of panels with its labels, in inches
    taken   sides with a legend
    """

    blocks: tuple[np.ndarray, ...] = ()
    row: float = 0.0
    taken: tuple[str, ...] = ()

    def legend(self, *args: Any, loc: str | None = None, ncols: int = 1, **look: Any) -> Legend:
        """`Figure.legend`, below or above the panels instead of beside them, and no wider than the figure."""
        look = {name: value for name, value in look.items() if not name.endswith("fontsize")}  # that of the column
        if loc and loc.startswith("outside"):
            sides = ("upper", "lower") if "upper" in loc else ("lower", "upper")
            side = next((side for side in sides if side not in self.taken), sides[0])
            self.taken = (*self.taken, side)
            loc, ncols = f"outside {side} center", max(ncols, 3)
        for columns in range(ncols, 0, -1):
            made = super().legend(*args, loc=loc, ncols=columns, **look)
            if columns == 1 or made.get_window_extent().width < 0.94 * self.bbox.width:
                return made
            made.remove()
        raise AssertionError

    def settle(self, *, taller: float = 1.0) -> None:
        """Label the first panel of each block as that of the first, and move legends off the curves, below panels.

        taller  factor by which the rows grow
        """
        self.row *= taller
        for block in self.blocks[1:]:
            for first, ax in zip(self.blocks[0][:, 0], block[:, 0], strict=True):
                if ax.get_shared_y_axes().joined(first, ax):
                    ax.set_ylabel(ax.get_ylabel() or first.get_ylabel())
        rows = sum(len(block) for block in self.blocks)
        self.set_figheight(rows * self.row + 1.5)  # a layout without room is none
        self._lay_out()
        self._give_room()
        for ax in self.axes:
            width, height = ax.bbox.size
            for text, room, turned in ((ax.yaxis.label, height, True), (ax.xaxis.label, width, False),
                                       (ax.title, width, False)):  # fmt: skip
                _break(text, 1.1 * room, turned)
        self._lay_out()
        self._give_room()
        for ax in self.axes:
            legend = ax.get_legend()
            if legend and ax.axison and (covered(ax, legend) > COVERED or _too_large(ax, legend)):
                self._hang(ax, legend)
                self._lay_out()
                self._give_room()

    def _lay_out(self) -> None:
        """Place the panels as `draw_without_rendering` does, which visits all that is in them as well."""
        with suppress(ValueError):  # as in Figure.draw
            self.get_layout_engine().execute(self)
        for ax in self.axes:
            locator = ax.get_axes_locator()
            ax.apply_aspect(locator(ax, None) if locator else None)

    def _give_room(self) -> None:
        """Give the figure the height at which its panels have PANEL of their rows."""
        rows = [block[row, 0] for block in self.blocks for row in range(len(block))]
        before, missing = None, 0.0
        for _ in range(4):
            there = sum(ax.get_position().height for ax in rows) * self.get_figheight()
            if before is not None and abs(there - before) < 0.3 * abs(missing):  # its width limits an image
                self.set_figheight(len(rows) * self.row)
                self._lay_out()
                return
            before, missing = there, PANEL * self.row * len(rows) - there
            if abs(missing) < 0.02:
                return
            self.set_figheight(self.get_figheight() + missing)
            self._lay_out()

    def _hang(self, ax: Axes, legend: Legend) -> None:
        """Put a legend below its panel's labels."""
        legend.set_in_layout(False)
        low = ax.get_tightbbox().y0 - ax.bbox.y0
        legend.set_in_layout(True)
        down = ScaledTranslation(0, low / self.dpi, self.dpi_scale_trans)
        legend.set_loc("upper center")
        legend.set_bbox_to_anchor((0.5, 0.0), ax.transAxes + down)


def flowed(rows: int, columns: int, *, width: float, height: float, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns) in a figure so narrow that only some of the columns stand beside each other.

    Blocks of all rows of these columns stand below each other; the last may have fewer.
    height  of a panel, as part of its width; kwargs: of `matplotlib.pyplot.subplots`
    """
    across = max(1, min(columns, int(width / LEAST)))
    if kwargs.get("sharey") in (True, "all", "row") and rows * -(-columns // across) * LOWEST > PAGE:
        across = min(columns, int(width / LEAST_SHARED))
    count = -(-columns // across)
    wide = width / across
    tall = min(height * wide, max(height * TEXT / columns, 0.75 * wide))
    tall = max(LOWEST, min(tall, PAGE / (count * rows)))
    look = {"figsize": (width, count * rows * tall), "layout": "constrained", "FigureClass": NarrowFigure}
    if count == 1:
        figure, axes = plt.subplots(rows, columns, squeeze=False, **look, **kwargs)
        figure.blocks, figure.row = (axes,), tall
        return figure, axes
    shares = {side: _share(kwargs.get(f"share{side}", False)) for side in "xy"}
    ratios = list(kwargs.get("height_ratios", [1] * rows)) * count
    figure = plt.figure(**look)
    grid = figure.add_gridspec(count * rows, across, height_ratios=ratios)
    axes = np.empty((rows, columns), dtype=object)
    for column in range(columns):
        block, beside = divmod(column, across)
        for row in range(rows):
            with_whom = {
                f"share{side}": {"all": axes[0, 0], "row": axes[row, 0], "col": axes[0, column], "none": None}[share]
                for side, share in shares.items()
            }
            axes[row, column] = ax = figure.add_subplot(grid[block * rows + row, beside], **with_whom)
            if shares["x"] in ("all", "col") and row < rows - 1:
                ax.tick_params("x", which="both", labelbottom=False)
            if shares["y"] in ("all", "row") and beside:
                ax.tick_params("y", which="both", labelleft=False)
    figure.blocks = tuple(axes[:, start : start + across] for start in range(0, columns, across))
    figure.row = tall
    return figure, axes


def _share(given: bool | str) -> str:
    return {True: "all", False: "none"}.get(given, given)


def _too_large(ax: Axes, legend: Legend) -> bool:
    box = legend.get_window_extent()
    return bool(box.width > ax.bbox.width or box.height > ax.bbox.height)


def _break(text: Text, room: float, turned: bool) -> None:
    """Break a line longer than the room, in pixels, at the blank outside formulas that is nearest its middle."""
    box, line = text.get_window_extent(), text.get_text()
    if (box.height if turned else box.width) <= room or "\n" in line:
        return
    blanks = [place for place, letter in enumerate(line) if letter == " " and line[:place].count("$") % 2 == 0]
    if blanks:
        place = min(blanks, key=lambda place: abs(place - len(line) / 2))
        text.set_text(line[:place] + "\n" + line[place + 1 :])

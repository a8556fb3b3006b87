"""The style of all figures, the colours of the phases, and panels of the text's width."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from tueplots import axes, figsizes, fontsizes

from nin.figures.narrow import NARROW, flowed
from nin.support.arguments import check_count, check_number

# seaborn's palette "colorblind"; the phases use five of its colours
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9")
PHASE_COLORS = {
    "decoupled": "#0173b2",
    "decay": "#029e73",
    "growing": "#949494",
    "catapult": "#de8f05",
    "divergent": "#cc78bc",
}


def style() -> dict[str, Any]:
    """rcParams of all figures: NeurIPS text width and font sizes, matplotlib's own fonts, a colour-blind-safe palette.

    Use it as `with matplotlib.rc_context(nin.figures.style()): ...`; `nin figures export` offers other venues.
    """
    return (
        axes.lines()
        | figsizes.neurips2024()
        | fontsizes.neurips2024()
        | {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "mathtext.fontset": "dejavusans",
            "text.usetex": False,
            "pdf.fonttype": 42,
            "svg.hashsalt": "nin",
            "savefig.dpi": 200,
            "figure.dpi": 100,
            "axes.prop_cycle": mpl.cycler(color=PALETTE),
            "axes.grid": True,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.5,
            "lines.linewidth": 1.2,
            "lines.markersize": 3,
            "legend.frameon": False,
        }
    )


@contextmanager
def alone(look: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib's own settings with `style` and a look over them, whatever the user has set; that returns afterwards.

    Also the colours of the letters "b" to "w", which seaborn.set_theme changes.
    """
    colors = mpl.colors.get_named_colors_mapping()
    letters = {letter: colors[letter] for letter in mpl.colors.BASE_COLORS}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style() | {"timezone": "UTC"} | dict(look or {}))
        try:
            _set(colors, mpl.colors.BASE_COLORS)
            yield
        finally:
            _set(colors, letters)


def _set(colors: dict[str, Any], letters: Mapping[str, Any]) -> None:
    for letter, color in letters.items():  # one by one, so that matplotlib forgets what it had looked up
        if colors[letter] != color:
            colors[letter] = color


def panels(rows: int, columns: int, *, height: float = 0.75, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the style's text width with axes (rows, columns), each `height` times as high as it is wide.

    At the width of one column of a page, the columns of panels that do not fit stand below the others.
    """
    check_count("rows", rows)
    check_count("columns", columns)
    check_number("height", height, exclusive=True)
    width = mpl.rcParams["figure.figsize"][0]
    if width < NARROW:
        return flowed(rows, columns, width=width, height=height, **kwargs)
    size = (width, rows * height * width / columns)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **kwargs)

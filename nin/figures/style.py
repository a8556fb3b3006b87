"""The style of all figures, the colours of the phases, and panels of the text's width."""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from tueplots import axes, figsizes, fontsizes

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


def panels(rows: int, columns: int, *, height: float = 0.75, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the style's text width with axes (rows, columns), each `height` times as high as it is wide."""
    width = mpl.rcParams["figure.figsize"][0]
    size = (width, rows * height * width / columns)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **kwargs)

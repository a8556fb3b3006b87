"""Elements that the figures of several studies share."""

import pandas as pd
from matplotlib.axes import Axes

from studies.statistics import geometric_band


def band_over_seeds(ax: Axes, rows: pd.DataFrame, quantity: str, **style: object) -> None:
    """Plot the geometric mean of `quantity` over seeds against `place`, with its 95 % interval."""
    bands = rows.groupby("place")[quantity].agg(geometric_band)
    errors = [[band.mean - band.low for band in bands], [band.high - band.mean for band in bands]]
    ax.errorbar(bands.index, [band.mean for band in bands], errors, mfc="w", ms=3, lw=1, capsize=1.5, **style)
    ax.set_yscale("log")

"""A record as a figure in a notebook, drawn anew while training goes on."""

import io
import time
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

from nin.figures import style, trajectories

SECONDS = 2.0  # between two drawings
SHARE = 0.05  # of the time, at most, for drawing


class Live:
    """Draws a log below the cell that runs, in place, every SECONDS and in at most SHARE of the time.

    Raises ValueError outside a notebook.
    """

    def __init__(self) -> None:
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            get_ipython = display = None
        if get_ipython is None or get_ipython() is None or not hasattr(get_ipython(), "kernel"):
            raise ValueError(
                "live=True draws in a notebook; in a script, nin.figures.trajectories(record.frame()) is it."
            )
        self._display, self._handle = display, None
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time for the next drawing."""
        return time.perf_counter() >= self._next

    def draw(self, log: pd.DataFrame, title: str) -> None:
        """Draw a log with a title in the place of the last drawing."""
        begun = time.perf_counter()
        image = picture(log, title)
        if self._handle is None:
            self._handle = self._display(image, display_id=True)
        else:
            self._handle.update(image)
        now = time.perf_counter()
        self._next = now + max(SECONDS, (now - begun) / SHARE)


def picture(log: pd.DataFrame, title: str) -> Any:
    """The figure `trajectories` of a log with a title, as an image that a notebook shows."""
    from IPython.display import Image

    with mpl.rc_context(style()), io.BytesIO() as buffer:
        figure = trajectories(log)
        figure.suptitle(title, fontsize="small")
        figure.savefig(buffer, format="png", dpi=120)
        plt.close(figure)
        return Image(data=buffer.getvalue(), format="png")

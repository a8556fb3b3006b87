"""One line of progress for each notebook that runs: a bar of its cells in a terminal, else a line at its end."""

import multiprocessing
import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from nin.support.progress import ProgressBar


class Cells:
    """How many cells of a notebook are done, of how many: told by papermill in one process, read in another."""

    def __init__(self) -> None:
        self._done = multiprocessing.get_context("spawn").Array("i", 2)

    @property
    def done(self) -> tuple[int, int]:
        return tuple(self._done)

    @property
    def bar(self) -> dict[str, Any]:
        """Options for papermill's bar, which then writes here."""
        return {"file": self, "bar_format": "{n_fmt}/{total_fmt}", "mininterval": 0, "miniters": 1, "leave": True}

    def write(self, text: str) -> None:
        done, _, cells = text.strip().partition("/")
        if done.isdecimal() and cells.isdecimal():
            self._done[:] = int(done), int(cells)

    def flush(self) -> None:
        pass


class Lines:
    """The lines of all notebooks; a context, since the bars are closed at the end."""

    def __init__(self, *, shown: bool, of: int) -> None:
        self.shown, self.of, self.ended = shown, of, 0
        self.terminal = sys.stderr.isatty()
        self.bars: dict[str, tqdm] = {}

    def show(self, cells: Mapping[str, tuple[int, int]]) -> None:
        """Draw the bars: of each notebook the cells that are done, and how many there are."""
        if not self.shown or not self.terminal:
            return
        for notebook, (done, total) in cells.items():
            if notebook not in self.bars:
                free = set(range(len(self.bars) + 1)) - {abs(bar.pos) for bar in self.bars.values()}
                options = {"desc": notebook, "unit": "cell", "position": min(free)}
                self.bars[notebook] = ProgressBar(progress=True, total=None, **options)
                self.bars[notebook].leave = True
            bar = self.bars[notebook]
            bar.total, bar.n = total or None, done
            bar.refresh()

    def end(self, notebook: str, seconds: float, error: str | None) -> None:
        """Say that a notebook has ended: how long it took, and whether it failed."""
        self.ended += 1
        if bar := self.bars.pop(notebook, None):
            bar.close()
        elif self.shown:
            how = f"failed after {seconds:.0f} s" if error else f"{seconds:.0f} s"
            print(f"{notebook}: {how} ({self.ended} of {self.of})", file=sys.stderr, flush=True)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self.bars.values():
            bar.close()

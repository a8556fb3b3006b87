"""Progress bars that stay on one line if the cursor cannot move up."""

import sys
import threading
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class ProgressBar(tqdm):
    """tqdm on stderr; if that is not a terminal, a nested bar is a note at the end of the outer bar's line.

    Notebooks and files have no cursor: each refresh of a second line would stay there as a separate line.
    The lock belongs to one process, and no thread monitors it. tqdm's own lock is shared with forked workers: if a
    worker is killed while holding it, it stays locked for all of them, even for bars that are not shown.
    """

    monitor_interval = 0

    def __init__(self, iterable: Iterable | None = None, *, progress: bool, **options: Any) -> None:
        super().__init__(iterable, disable=not progress, leave=None, miniters=1, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw this bar on its own line, or append its name and percentage to the outer bar."""
        outer = next((other for other in self._instances if other.pos == 0), self)
        if outer is self or not (self.pos if pos is None else pos) or sys.stderr.isatty():
            super().display(msg, pos)
            return
        share = f"{self.n / self.total:.0%}" if self.total else f"{self.n} {self.unit}"
        outer.set_postfix_str("" if msg == "" else f"{self.desc} {share}")


ProgressBar.set_lock(threading.RLock())

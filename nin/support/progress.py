"""Progress bars that stay on one line where the cursor cannot move up."""

import sys
import threading
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class ProgressBar(tqdm):
    """tqdm on stderr; where that is no terminal, a bar within another one is a note at the end of the outer one's line.

    Notebooks and files know no cursor: each refresh of a second line would stay there as a line of its own.
    Its lock is of one process, and no thread watches it: tqdm's lock is shared with forked workers, and where one is
    killed while it holds it, stays locked for all of them, even for bars that are not shown.
    """

    monitor_interval = 0

    def __init__(self, iterable: Iterable | None = None, *, progress: bool, **options: Any) -> None:
        super().__init__(iterable, disable=not progress, leave=None, miniters=1, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw this bar on its line, or its name and share behind the outer bar."""
        outer = next((other for other in self._instances if other.pos == 0), self)
        if outer is self or not (self.pos if pos is None else pos) or sys.stderr.isatty():
            super().display(msg, pos)
            return
        share = f"{self.n / self.total:.0%}" if self.total else f"{self.n} {self.unit}"
        outer.set_postfix_str("" if msg == "" else f"{self.desc} {share}")


ProgressBar.set_lock(threading.RLock())

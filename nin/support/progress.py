"""Progress in one line: tqdm's bar in a terminal, a sentence that is updated in a notebook."""

import io
import sys
import threading
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class ProgressBar(tqdm):
    """tqdm on stderr; a nested bar is a note at the end of the outer bar's line, unless that is a terminal.

    Files have no cursor: each refresh of a second line would stay there as a separate line. In a notebook the line is
    an output that is updated, black on white, and what stays of it says how far it came and not how long it took:
    a notebook that runs twice is saved alike.
    The lock belongs to one process, and no thread monitors it. tqdm's own lock is shared with forked workers: if a
    worker is killed while holding it, it stays locked for all of them, even for bars that are not shown.
    """

    monitor_interval = 0
    _line: Any = None  # of a bar that a notebook shows

    def __init__(self, iterable: Iterable | None = None, *, progress: bool, **options: Any) -> None:
        self._in_notebook = progress and _in_notebook()
        if self._in_notebook:
            options["file"] = io.StringIO()  # what tqdm writes at the end of a line
        super().__init__(iterable, disable=not progress, leave=None, miniters=1, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw this bar on its own line, or append its name and percentage to the outer bar."""
        outer = next((other for other in self._instances if other.pos == 0), self)
        nested = outer is not self and (self.pos if pos is None else pos)
        if nested and (self._in_notebook or not sys.stderr.isatty()):
            share = f"{self.n / self.total:.0%}" if self.total else f"{self.n} {self.unit}"
            outer.set_postfix_str("" if msg == "" else f"{self.desc} {share}")
        elif self._in_notebook:
            self._show("" if msg == "" else self._sentence(ended=self.disable))
        else:
            super().display(msg, pos)

    def _sentence(self, *, ended: bool) -> str:
        """training: 3 of 12 runs, 25 %, 20 s left; along a run 40%."""
        name, of = self.desc.removesuffix(": "), f" of {self.total}" if self.total else ""
        unit = "" if self.unit == "it" else f" {self.unit}{'s' * ((self.total or self.n) != 1)}"
        parts = [f"{name}: {self.n}{of}{unit}" if name else f"{self.n}{of}{unit}"]
        if self.total and not ended:
            parts.append(f"{self.n / self.total:.0%}".replace("%", " %"))
            done, left, elapsed = self.n - self.initial, self.total - self.n, self.format_dict["elapsed"]
            parts += [f"{_duration(left * elapsed / done)} left"] if done > 0 and left > 0 else []
        return ", ".join(parts) + (f"; {self.postfix}" if self.postfix and not ended else "")

    def _show(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._line is None:
            self._line = display(content, raw=True, display_id=True)
        else:
            self._line.update(content, raw=True)


ProgressBar.set_lock(threading.RLock())


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook; IPython is not loaded to find out."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"

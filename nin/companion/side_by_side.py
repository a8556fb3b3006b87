"""Notebooks run side by side: each in a process of its own, whose only child is the kernel."""

import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nin
from nin.companion.ending import end_with_parent, end_workers
from nin.companion.lines import Cells, Lines
from nin.support import cores, former, paths

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kB on Linux
EVERY = 0.5  # seconds between looks at the cells that are done


@dataclass(frozen=True)
class Outcome:
    """The outcome of running one notebook.

    seconds     from the start of its process to the end of its kernel
    peak_bytes  peak resident memory of the kernel
    error       None, or the last line of the traceback
    executed    the notebook with its outputs, up to the error if it failed
    figures     folder of the profile's figures and checks.csv
    written     the files in that folder that this run wrote
    up_to_date  whether all this is from an earlier run, and would be the same now
    """

    notebook: str
    seconds: float
    peak_bytes: int
    error: str | None
    executed: Path
    figures: Path
    written: tuple[Path, ...]
    up_to_date: bool = False


def execute(
    plans: Sequence[tuple[Path, Mapping[str, Any]]],
    finished: Callable[[Path, Outcome], None],
    *,
    jobs: int,
    executed: Path,
    figures: Path,
    progress: bool,
) -> None:
    """Run notebooks with their parameters, `jobs` at once, in this order; call `finished` with each as it ends.

    The cores are shared: a kernel computes on one thread, or on more if there are more cores than jobs. Whatever ends
    this function early ends the kernels as well.
    """
    waiting, running, others = list(plans), {}, multiprocessing.active_children()
    journals: dict[Path, Path] = {}
    with _environment(figures.parent, jobs) as folder, Lines(shown=progress, of=len(plans)) as lines:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    notebook, plan = waiting.pop(0)
                    journals[notebook] = folder / f"{len(journals)}.written"
                    one = _Running(notebook, executed / notebook.name, figures, journals[notebook])
                    running[one.start(plan)] = one
                done, _ = wait(running, timeout=EVERY, return_when=FIRST_COMPLETED)
                lines.show({one.notebook.stem: one.cells.done for one in running.values()})
                for future in done:
                    one = running.pop(future)
                    outcome = one.outcome(future, set(journals.values()) - {one.journal})
                    lines.end(outcome.notebook, outcome.seconds, outcome.error)
                    finished(one.notebook, outcome)
        except BaseException:  # Ctrl-C or a signal: the pools would wait for the notebooks' ends
            end_workers(others, running)
            raise
        finally:
            for one in running.values():
                one.pool.shutdown()


@dataclass
class _Running:
    """A notebook in a fresh process that loads papermill but not torch."""

    notebook: Path
    output: Path
    figures: Path
    journal: Path
    cells: Cells = field(default_factory=Cells)

    def start(self, plan: Mapping[str, Any]) -> Future:
        former.mark(self.figures, self.notebook.stem)
        self.before, self.started = _stamps(self.figures), time.monotonic()
        context = multiprocessing.get_context("spawn")
        given = (os.getpid(), self.cells, str(self.journal))
        self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=given)
        return self.pool.submit(_execute, self.notebook, self.output, plan)

    def outcome(self, future: Future, others: Collection[Path]) -> Outcome:
        """What came of it; others: the journals of the other notebooks.

        A file belongs to the notebook whose journal has it. One that was not written by nin is in none: it belongs to
        every notebook that ran when it was written.
        """
        try:
            error, peak = future.result()
        except Exception as exception:  # the process was killed
            error, peak = _last_line(exception), 0
        self.pool.shutdown()
        mine, theirs = _journal(self.journal), set().union(*map(_journal, others))
        changed = [path for path, stamp in _stamps(self.figures).items() if self.before.get(path) != stamp]
        written = tuple(path for path in changed if path in mine or path not in theirs)
        seconds = time.monotonic() - self.started
        return Outcome(self.notebook.stem, seconds, peak, error, self.output, self.figures, written)


_cells: Cells  # of the notebook of this process


def _begin(parent: int, cells: Cells, journal: str) -> None:
    """What the process of a notebook does first."""
    global _cells
    _cells = cells
    os.environ[paths.WRITTEN] = journal
    logging.disable(logging.CRITICAL)  # papermill warns about types that it cannot read
    end_with_parent(parent)


def _execute(notebook: Path, output: Path, plan: Mapping[str, Any]) -> tuple[str | None, int]:
    """In the process of a notebook: run it; return the last line of its error, and the peak memory of its kernel."""
    import papermill

    error = None
    try:
        papermill.execute_notebook(
            notebook,
            output,
            dict(plan),
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar=_cells.bar,
            coalesce_streams=True,  # keep only the last state of a progress bar
        )
    except Exception as exception:
        error = _last_line(exception)
    return error, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * MAXRSS_UNIT


@contextmanager
def _environment(figures: Path, jobs: int) -> Iterator[Path]:
    """The environment for child processes, whose kernels run this interpreter and this nin; yields a folder for notes.

    Folders are absolute, and the threads those of one of `jobs` kernels that share the cores.
    """
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory(prefix="nin-kernel-") as folder:
        write_kernel_spec(Path(folder) / "kernels" / "python3", extra_arguments=["--log-level=CRITICAL"])
        variables = {
            "NIN_FIGURES": str(figures),
            "JUPYTER_PATH": _before(folder, "JUPYTER_PATH"),
            "PYTHONPATH": _before(str(Path(nin.__file__).parents[1]), "PYTHONPATH"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # silences the debugger's note on frozen modules
            "MALLOC_MMAP_THRESHOLD_": str(2**23),  # glibc: larger tensors are freed at once and leave no holes
            "MALLOC_TRIM_THRESHOLD_": str(2**27),  # and that of smaller ones is kept for the next
        }
        variables |= cores.variables(max(1, cores.cores() // jobs))
        if data := paths.data():
            variables["NIN_DATA"] = str(data.absolute())
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _before(folder: str, variable: str) -> str:
    return os.pathsep.join(filter(None, (folder, os.environ.get(variable))))


def _journal(path: Path) -> set[Path]:
    """The files that a kernel has written with nin."""
    return set(map(Path, path.read_text().splitlines())) if path.exists() else set()


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Files of a folder -> a stamp that changes when the file is rewritten, even with the same content."""
    found = {}
    for path in sorted(folder.glob("*")):
        try:
            stat = path.stat()
        except FileNotFoundError:  # a temporary file of another notebook, replaced since
            continue
        if path.is_file() and not path.name.startswith("."):
            found[path] = stat.st_mtime_ns, stat.st_ino
    return found


def _last_line(exception: Exception) -> str:
    if hasattr(exception, "ename"):  # papermill's error for a cell that failed
        name, message = exception.ename, exception.evalue
    else:
        name, message = type(exception).__name__, str(exception)
    return f"{name}: {' '.join(message.split())}".removesuffix(": ")

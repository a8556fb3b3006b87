"""The typed runner: all parameters are checked before anything starts; each notebook runs in its own process."""

import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nin.companion.ending import end_with_parent, end_workers, ending_on_signals
from nin.companion.notebooks import chosen, profile_values
from nin.companion.parameters import parameters, parse_all
from nin.support import cores, paths

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kB on Linux


@dataclass(frozen=True)
class Outcome:
    """The outcome of running one notebook.

    seconds     from the start of its process to the end of its kernel
    peak_bytes  peak resident memory of the kernel
    error       None, or the last line of the traceback
    executed    the notebook with its outputs, up to the error if it failed
    figures     folder of the profile's figures and checks.csv
    written     the files in that folder that this run wrote
    """

    notebook: str
    seconds: float
    peak_bytes: int
    error: str | None
    executed: Path
    figures: Path
    written: tuple[Path, ...]


def run(
    notebooks: Sequence[str | Path] = (),
    *,
    profile: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> list[Outcome]:
    """Run notebooks (all, if none is named) one after the other; if one fails, the others still run.

    overrides  parameter -> text or value, in place of the profile's; every notebook run must have the parameter
    out        folder for the executed notebooks, with their figures in out/figures/PROFILE; None: runs/PROFILE and
               figures/PROFILE, or with overrides runs/custom, so that the profile's own results are kept
    progress   show papermill's bar of cells on stderr

    Each kernel runs this interpreter and starts in the notebook's folder. Values are checked before the first starts:
    ValueError for an unknown notebook, profile or parameter or a bad value, OSError if a folder cannot be created.
    Ctrl-C, SIGTERM and SIGHUP end the kernel and say what is left (KeyboardInterrupt, SystemExit); what is done, and
    the notebook up to its present cell, are kept. If this process is killed, the kernel ends too.
    """
    plans, executed = _plans(notebooks, profile, overrides or {}), _folder(profile, overrides, out)
    custom = out is not None or bool(overrides)
    figures = executed / "figures" / profile if custom else paths.figures(profile).absolute()
    outcomes: list[Outcome] = []
    with ending_on_signals():
        try:
            for notebook, plan in plans:
                outcomes.append(_execute(notebook, plan, executed, figures, progress))
        except (KeyboardInterrupt, SystemExit):
            left = ", ".join(notebook.stem for notebook, _ in plans[len(outcomes) :])
            print(
                f"\nnin: stopped; {len(outcomes)} of {len(plans)} notebooks are finished, left: {left}.",
                file=sys.stderr,
            )
            raise
    return outcomes


def prepare(
    notebooks: Sequence[str | Path] = (),
    *,
    profile: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> list[Path]:
    """Write notebooks with the parameters that `run` would use, without executing them; return their paths.

    Existing outputs are kept. Arguments, folders and errors are those of `run`.
    """
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    plans, folder = _plans(notebooks, profile, overrides or {}), _folder(profile, overrides, out)
    written = []
    for notebook, plan in plans:
        content = parameterize_notebook(load_notebook_node(str(notebook)), _plain(plan))
        del content.metadata["papermill"]  # it describes an execution
        paths.write(folder / notebook.name, nbformat.writes(content).encode())
        written.append(folder / notebook.name)
    return written


def _plans(
    notebooks: Sequence[str | Path], profile: str, overrides: Mapping[str, Any]
) -> list[tuple[Path, dict[str, Any]]]:
    """The notebooks (all, if none is named) and the parameters of each."""
    return [(notebook, _plan(notebook, profile, overrides)) for notebook in chosen(notebooks)]


def _folder(profile: str, overrides: Mapping[str, Any] | None, out: Path | None) -> Path:
    """The folder for the executed notebooks, created if it is missing."""
    runs = paths.root() / "runs"
    folder = Path(out) if out is not None else runs / "custom" if overrides else runs / profile
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _plain(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Values of types that papermill can write."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plan.items()}


def _plan(notebook: Path, profile: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a notebook, given a profile and overrides."""
    known = parameters(notebook)
    if not any(p.name == "profile" and p.type == "str" for p in known):
        raise ValueError(
            f'{notebook.name} lacks the parameter `profile: str = "quick"`; add it to its parameters cell.'
        )
    if "profile" in overrides:
        raise ValueError(f"profile={overrides['profile']!r}: the runner sets it; choose it with --profile.")
    of_profile = profile_values(profile).get(notebook.stem, {})
    given = parse_all(known, of_profile, name=f"{profile}.yaml: {notebook.stem}")
    given |= parse_all(known, overrides, name=notebook.stem)
    return {p.name: p.default for p in known} | given | {"profile": profile}


def _execute(notebook: Path, plan: dict[str, Any], executed: Path, figures: Path, progress: bool) -> Outcome:
    """Run one notebook in a fresh process that loads papermill but not torch, and whose only child is the kernel."""
    import papermill

    output, before, started = executed / notebook.name, _stamps(figures), time.monotonic()
    error, peak, others = None, 0, multiprocessing.active_children()
    with (
        _environment(figures.parent),
        ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(os.getpid(),),
        ) as process,
    ):
        try:
            execution = process.submit(
                papermill.execute_notebook,
                notebook,
                output,
                _plain(plan),
                kernel_name="python3",
                cwd=notebook.parent,
                progress_bar={"desc": notebook.stem, "leave": True} if progress else False,
                coalesce_streams=True,  # keep only the last state of a progress bar
            )
            execution.result()
        except Exception as exception:
            error = _last_line(exception)
        except BaseException:  # Ctrl-C or a signal: the pool would wait for the notebook's end
            end_workers(others, execution)
            raise
        try:
            peak = process.submit(resource.getrusage, resource.RUSAGE_CHILDREN).result().ru_maxrss * MAXRSS_UNIT
        except Exception as exception:
            error = error or _last_line(exception)
    written = tuple(path for path, stamp in _stamps(figures).items() if before.get(path) != stamp)
    return Outcome(notebook.stem, time.monotonic() - started, peak, error, output, figures, written)


def _begin(parent: int) -> None:
    """What the process of a notebook does first."""
    logging.disable(logging.CRITICAL)  # papermill warns about types that it cannot read
    end_with_parent(parent)


@contextmanager
def _environment(figures: Path) -> Iterator[None]:
    """The environment for child processes: absolute folders, and a python3 kernel that runs this interpreter."""
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory(prefix="nin-kernel-") as folder:
        write_kernel_spec(Path(folder) / "kernels" / "python3", extra_arguments=["--log-level=CRITICAL"])
        variables = {
            "NIN_FIGURES": str(figures),
            "JUPYTER_PATH": os.pathsep.join(filter(None, (folder, os.environ.get("JUPYTER_PATH")))),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # silences the debugger's note on frozen modules
            "MALLOC_MMAP_THRESHOLD_": str(2**23),  # glibc: larger tensors are freed at once and leave no holes
        } | cores.variables()
        if data := paths.data():
            variables["NIN_DATA"] = str(data.absolute())
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Files of a folder -> a stamp that changes when the file is rewritten, even with the same content."""
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return {path: ((stat := path.stat()).st_mtime_ns, stat.st_ino) for path in files}


def _last_line(exception: Exception) -> str:
    if hasattr(exception, "ename"):  # papermill's error for a cell that failed
        name, message = exception.ename, exception.evalue
    else:
        name, message = type(exception).__name__, str(exception)
    return f"{name}: {' '.join(message.split())}".removesuffix(": ")

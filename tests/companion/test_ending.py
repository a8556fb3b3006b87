"""Catches: a kernel or a worker that outlives the command that started it, results that are lost when it is stopped."""

import os
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import written

PARAMETERS = 'profile: str = "quick"  # parameter set'
SLEEP = """import os, pathlib, time
folder = pathlib.Path(os.environ["NIN_FIGURES"])
folder.mkdir(parents=True, exist_ok=True)
begun = folder / f"begun{os.getpid()}"
begun.write_text(str(os.getpid()))
begun.rename(folder / f"pid{os.getpid()}")  # whole as soon as it is seen
time.sleep(600)"""
LIMIT = 5  # seconds in which everything has ended


@pytest.fixture
def clone(tmp_path):
    """A clone with a notebook that ends at once and one that does not, and the command that runs them."""
    for name, cells in (("01_good", ["print(1)"]), ("02_long", ["print(2)", SLEEP]), ("03_next", ["print(3)"])):
        written.notebook(tmp_path / "notebooks" / f"{name}.ipynb", PARAMETERS, *cells, title="# Question")
    written.command(tmp_path)
    return tmp_path


def heeding() -> None:
    """Under nohup SIGHUP is ignored, in the background of a script SIGINT, and a child inherits that."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def started(
    clone: Path, *arguments: str, sleeping: int = 1, **options
) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """The command, once as many notebooks sleep, and all processes that it started."""
    command = [*written.command(clone), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding, **options
    )
    try:
        for _ in range(1200):
            if len(list(clone.glob("out/**/pid*"))) >= sleeping or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        kernels = {int(path.read_text()) for path in clone.glob("out/**/pid*")}
        assert len(kernels) >= sleeping and kernels <= {child.pid for child in family}
    except BaseException:
        process.kill()
        print(*process.communicate(), sep="\n")
        raise
    return process, family


def stopped(process: subprocess.Popen, family: list[psutil.Process], number: int) -> str:
    """Send the command a signal: all ends within LIMIT seconds. Returns what it printed on stderr."""
    begun = time.monotonic()
    os.kill(process.pid, number)
    try:
        _, errors = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    _, alive = psutil.wait_procs(family, timeout=LIMIT - min(time.monotonic() - begun, LIMIT - 0.1))
    assert not [one for one in alive if running(one)]
    return errors


def running(process: psutil.Process) -> bool:
    """Whether a process computes: one that has ended may wait for the system to forget it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_nothing_outlives_the_command(clone, number):
    """Sent to the command alone, as a scheduler, make, nohup and a container do."""
    process, family = started(clone, "--jobs", "1", start_new_session=True)
    errors = stopped(process, family, number)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert "1 of 3 notebooks are finished, left: 02_long, 03_next." in errors and "Traceback" not in errors
    kept = [nbformat.read(clone / "out" / f"{name}.ipynb", 4) for name in ("01_good", "02_long")]
    printed = ["".join(o.get("text", "") for c in book.cells for o in c.get("outputs", ())) for book in kept]
    assert printed == ["1\n", "2\n"]


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_nothing_outlives_the_command_with_several_jobs(clone, number):
    """Two kernels sleep and one heeds no SIGTERM; each notebook is kept up to its present cell, what is done stays."""
    deaf = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}"
    for name, cell in (("04_deaf", deaf), ("05_long", SLEEP)):
        book = nbformat.read(clone / "notebooks" / "02_long.ipynb", 4)
        book.cells[-1].source = cell
        nbformat.write(book, clone / "notebooks" / f"{name}.ipynb")
    process, family = started(clone, "--jobs", "3", sleeping=3, start_new_session=True)
    errors = stopped(process, family, number)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert "2 of 5 notebooks are finished, left: 02_long, 04_deaf, 05_long." in errors
        assert "Traceback" not in errors
    for name in ("02_long", "04_deaf", "05_long"):
        book = nbformat.read(clone / "out" / f"{name}.ipynb", 4)
        assert [o["text"] for c in book.cells for o in c.get("outputs", ())] == ["2\n"]
    done = subprocess.run([*process.args, "01", "03"], capture_output=True, text=True)
    assert "01_good: up to date" in done.stderr and "03_next: up to date" in done.stderr


@pytest.mark.slow
def test_a_kernel_that_is_killed_is_reported_and_the_next_runs(clone):
    process, _ = started(clone, "--jobs", "1")
    os.kill(int(next(clone.glob("out/**/pid*")).read_text()), signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "DeadKernelError" in printed
    book = nbformat.read(clone / "out" / "03_next.ipynb", 4)
    assert any(o.get("text") == "3\n" for c in book.cells for o in c.get("outputs", ()))

"""Progress bars: nested ones on one line where the cursor cannot move up."""

import subprocess
import sys

import pytest

from nin.support.progress import ProgressBar


def nested():
    for _ in ProgressBar(range(3), progress=True, desc="outer", unit="run", mininterval=0):
        for _ in ProgressBar(range(5), progress=True, desc="inner", unit="step", mininterval=0):
            pass


def test_nested_bars_share_a_line_where_stderr_is_no_terminal(capsys):
    nested()
    written = capsys.readouterr().err
    assert "\x1b" not in written and written.count("\n") == 1
    assert "inner 40%" in written
    last = written.rstrip("\n").rsplit("\r", 1)[1]
    assert "3/3" in last and "inner" not in last


def test_nested_bars_have_lines_of_their_own_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    nested()
    assert "\x1b[A" in capsys.readouterr().err


def test_an_inner_bar_of_unknown_length_is_counted(capsys):
    for _ in ProgressBar(range(1), progress=True, desc="outer", mininterval=0):
        for _ in ProgressBar(iter("abc"), progress=True, desc="inner", unit="letter", mininterval=0):
            pass
    assert "inner 2 letter" in capsys.readouterr().err


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_alone_is_silent_or_ends_at_its_last_state(capsys, progress):
    assert list(ProgressBar("ab", progress=progress, desc="alone")) == ["a", "b"]
    assert ("2/2" in capsys.readouterr().err) is progress


KILLED = """
import os, threading
from nin.support.progress import ProgressBar

list(ProgressBar("ab", progress=True))
if (child := os.fork()) == 0:
    ProgressBar.get_lock().acquire()
    os._exit(0)
os.waitpid(child, 0)
list(ProgressBar("ab", progress=False))
assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_worker_that_dies_with_the_lock_stops_no_other_process():
    subprocess.run([sys.executable, "-c", KILLED], check=True, timeout=60, capture_output=True)

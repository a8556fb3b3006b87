"""Progress: nested bars on one line where the cursor cannot move up; red or growing lines, or times, in notebooks."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

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


class Output:
    """An output of a notebook's cell; `states` are all that it showed."""

    def __init__(self):
        self.states = []

    def update(self, content, *, raw):
        self.states.append(content["text/plain"])


@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a cell, in a process that takes itself for a kernel."""
    made = []

    def display(content, *, raw, display_id):
        made.append(Output())
        made[-1].update(content, raw=raw)
        return made[-1]

    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr("IPython.display.display", display)
    return made


def test_a_notebook_shows_one_line_that_is_updated_and_keeps_no_times(outputs, capsys):
    nested()
    assert len(outputs) == 1 and capsys.readouterr() == ("", "")
    states = outputs[0].states
    assert states[0] == "outer: 0 of 3 runs, 0 %" and states[-1] == "outer: 3 of 3 runs"
    assert any(re.fullmatch(r"outer: 1 of 3 runs, 33 %, \d+ s left; inner 40%", state) for state in states)
    assert all("\n" not in state for state in states)


def test_what_stays_of_an_interrupted_bar_says_how_far_it_came(outputs):
    with pytest.raises(KeyboardInterrupt):
        for number in ProgressBar(range(4), progress=True, desc="outer", unit="run", mininterval=0):
            if number == 2:
                raise KeyboardInterrupt
    assert outputs[0].states[-1] == "outer: 2 of 4 runs"


def test_a_notebook_is_told_nothing_without_progress(outputs):
    assert list(ProgressBar("ab", progress=False)) == ["a", "b"] and not outputs


@pytest.mark.slow
def test_a_kernel_saves_the_last_line_between_its_prints():
    code = (
        "print('a')\nfrom nin.support.progress import ProgressBar\nlist(ProgressBar('xyz', progress=True))\nprint('b')"
    )
    book = new_notebook(cells=[new_code_cell(code)])
    NotebookClient(book).execute()
    shown = [output.get("text") or output["data"]["text/plain"] for output in book.cells[0].outputs]
    assert shown == ["a\n", "3 of 3", "b\n"]

"""Catches: a soak test that no longer runs, forgets a kind of fault, or ends well though something was lost."""

import argparse
import re
import runpy
import subprocess
import sys

import pytest

from nin.support import paths

SOAK = paths.root() / "tests" / "soak"


@pytest.fixture
def soak(monkeypatch):
    """What the command consists of; it takes no process of other tests for one of its own."""
    monkeypatch.syspath_prepend(str(SOAK))
    found = runpy.run_path(str(SOAK / "__main__.py"), run_name="soak")
    monkeypatch.setitem(found["Scene"].end.__globals__, "strays", list)
    return found


@pytest.mark.slow
def test_the_command_prints_a_table(tmp_path):
    command = [sys.executable, str(SOAK), "moved", "tags", "--seed", "3", "--scale", "0.01"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done
    machine, seed, _, head, _, *rows, _, verdict = done.stdout.splitlines()
    assert "cores" in machine and seed == "seed 3, scale 0.01"
    columns = ["fault", "tried", "lost", "doubled", "wrong", "left behind", "seconds", "without the guard"]
    assert [cell.strip() for cell in head.strip("|").split("|")] == columns
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["a store is moved to a strange path", "YAML that has functions called"]
    assert all(row[1:6] == ["1", "0", "0", "0", "0"] and re.fullmatch(r".+: 1 of \d", row[7]) for row in cells)
    assert re.fullmatch(r"2 tries of 2 kinds in \d+ minutes, [\d.]+ of a processor: nothing was lost, .*", verdict)
    assert verdict.endswith(", and every broken version was noticed.")


def test_every_kind_is_among_them(soak):
    with_kinds = {path.stem for path in SOAK.glob("*.py") if "\nKINDS = [" in path.read_text()}
    assert set(soak["MODULES"].split()) == with_kinds and len(with_kinds) > 10


def test_harm_and_a_check_that_cannot_fail_are_told_and_end_badly(soak, tmp_path, capsys):
    def attempt(scene):
        if scene.number == 1:
            scene.found("lost", "a run")

    arguments = argparse.Namespace(seed=5, scale=1.0, one=None)
    kind = soak["Kind"]("mine", "a fault of mine", attempt, 2, {"nothing": lambda: None}, 2)
    found = soak["score"](kind, tmp_path, arguments)
    assert found.cells[:6] == ["a fault of mine", 2, 1, 0, 0, 0] and found.cells[7] == "nothing: 1 of 2"
    assert soak["concluded"]([found], 60.0, 30.0) == 1
    said = capsys.readouterr().out
    assert "a fault of mine: lost: a run\n    python tests/soak mine --seed 5 --scale 1 --try 1" in said
    found.harm.clear()
    assert soak["concluded"]([found], 60.0, 30.0) == 0
    found.rivals["another"] = (0, 2)
    assert soak["concluded"]([found], 60.0, 30.0) == 1
    assert "A check that cannot fail: a fault of mine (without another) was not noticed." in capsys.readouterr().out

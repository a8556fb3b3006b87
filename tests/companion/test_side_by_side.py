"""Catches: notebooks that wait for each other, a file given to the wrong one, rows of checks or lines that are lost."""

import io
import json
import sys
from pathlib import Path

import pytest
import written

from nin.__main__ import main
from nin.companion import runner
from nin.companion.lines import Cells, Lines
from nin.companion.runner import run
from nin.support import cores, paths

TOGETHER = """import os, time
from nin.support import paths
folder = paths.figures(profile)
paths.write(folder / f"{NAME}_begun.csv", b"1")
for other in OTHERS:
    while not (folder / f"{other}_begun.csv").exists():
        time.sleep(0.05)
paths.write(folder / f"{NAME}_threads.csv", os.environ["OMP_NUM_THREADS"].encode())"""
BY_HAND = '(folder / f"{NAME}_by_hand.txt").write_text("1")'


def save(folder: Path, name: str, *cells: str) -> None:
    parameters = 'profile: str = "quick"  # parameter set'
    written.notebook(folder / "notebooks" / f"{name}.ipynb", parameters, f"NAME = {name!r}", *cells)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    for name in ("NIN_FIGURES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "quick.yaml").write_text("{}")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [None, 3])
def test_notebooks_run_at_once_and_each_has_its_files(clone, monkeypatch, capfd, jobs):
    """Each waits until all have begun; the one that fails does not stop the others."""
    names = ["01_a", "02_b", "03_c"]
    for name in names:
        fails = ["raise RuntimeError('no')"] if name == "02_b" else []
        save(clone, name, f"OTHERS = {names}", TOGETHER, *([BY_HAND] if name == "03_c" else []), *fails)
    monkeypatch.setattr(runner.cores, "processes", lambda of: 3)
    outcomes = run(["03", "01", "02"], jobs=jobs)
    assert [o.notebook for o in outcomes] == ["03_c", "01_a", "02_b"]
    assert [o.error for o in outcomes] == [None, None, "RuntimeError: no"]
    for outcome in outcomes:
        own = {path.name for path in outcome.written} - {"03_c_by_hand.txt"}
        assert own == {f"{outcome.notebook}_begun.csv", f"{outcome.notebook}_threads.csv"}
        threads = (outcome.figures / f"{outcome.notebook}_threads.csv").read_text()
        assert threads == str(max(1, cores.cores() // 3)) and outcome.peak_bytes > 20e6
    assert "03_c_by_hand.txt" in {path.name for path in outcomes[0].written}
    lines = capfd.readouterr().err.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == names
    assert {line.rpartition(" (")[2] for line in lines} == {"1 of 3)", "2 of 3)", "3 of 3)"}
    assert ["failed after" in line for line in sorted(lines)] == [False, True, False]


@pytest.mark.slow
def test_one_at_a_time_has_all_threads(clone, monkeypatch):
    monkeypatch.setattr(cores, "cores", lambda: 6)
    for name in ("01_a", "02_b"):
        save(clone, name, "OTHERS = []", TOGETHER)
    assert [o.error for o in run(jobs=1, progress=False)] == [None, None]
    assert (clone / "figures" / "quick" / "02_b_threads.csv").read_text() == "6"
    assert [o.error for o in run(jobs=2, force=True, progress=False)] == [None, None]
    assert (clone / "figures" / "quick" / "02_b_threads.csv").read_text() == "3"


def test_the_longest_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda profile: tmp_path / profile)
    recorded = {("quick", "a"): ("02_b", 5), ("quick", "b"): ("02_b", 9), ("quick", "c"): ("01_a", 7),
                ("paper", "a"): ("01_a", 900), ("paper", "b"): ("03_c", 8), ("paper", "e"): ("05_e", 1)}  # fmt: skip
    for (profile, figure), (notebook, seconds) in recorded.items():
        (tmp_path / profile).mkdir(exist_ok=True)
        sidecar = json.dumps({"notebook": notebook, "seconds": seconds})
        (tmp_path / profile / f"{figure}.json").write_text(sidecar)
    (tmp_path / "quick" / "other.json").write_text("[]")
    names = ["01_a", "02_b", "03_c", "04_new", "05_e"]
    ordered = runner._longest_first([Path(f"{name}.ipynb") for name in names], tmp_path / "quick")
    assert [path.stem for path in ordered] == ["04_new", "02_b", "03_c", "01_a", "05_e"]


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_a_number_of_jobs_that_is_none(clone, capsys, jobs):
    save(clone, "01_a")
    try:
        assert main(["run", "--jobs", jobs]) == 2
    except SystemExit as stop:
        assert stop.code == 2
    assert "jobs" in capsys.readouterr().err


def test_the_bars_of_a_terminal_show_the_cells_of_each(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Lines(shown=True, of=2) as lines:
        lines.show({"01_a": (3, 12), "02_b": (0, 0)})
        lines.show({"01_a": (12, 12), "02_b": (1, 7)})
        lines.end("01_a", 3.0, None)
        lines.show({"02_b": (2, 7), "03_c": (1, 9)})
    shown = sys.stderr.getvalue()
    assert all(text in shown for text in ("01_a:", "3/12", "12/12", "02_b:", "2/7", "03_c:", "1/9"))


def test_cells_are_told_by_papermills_bar():
    from tqdm import tqdm

    cells = Cells()
    bar = tqdm(total=12, **cells.bar)
    for done in range(1, 4):
        bar.update()
        assert cells.done == (done, 12)
    bar.close()
    assert cells.done == (3, 12)

"""Catches: a notebook that is skipped although something that decides about its results has changed, or a file that it
wrote is gone; one that runs again although nothing has; a failure that a later run passes over."""

import json
import os
from pathlib import Path

import pytest
import written

import nin
from nin.__main__ import main
from nin.companion import up_to_date
from nin.companion.side_by_side import Outcome
from nin.companion.up_to_date import Stamp, deciding, listed, summary
from nin.support import paths, provenance

PARAMETERS = 'profile: str = "quick"  # parameter set\nlr: float = 0.05  # learning rate [> 0]'
WRITE = """from nin.support import paths
paths.write(paths.figures(profile) / f"{NAME}a.csv", str(lr).encode())
paths.write(paths.figures(profile) / f"{NAME}a.json", b"{}")"""
CHECKS = """import nin.checks
nin.checks.save([nin.checks.Check("slope", "eq. (4)", lr, 0.05)], notebook=NAME, profile=profile)"""


def save(path: Path, *cells: str, outputs: str = "") -> Path:
    return written.notebook(path, PARAMETERS, f"NAME = {path.stem!r}", *cells, outputs=outputs)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with its own package `nin`, for the hashes alone, three studies, data, and a notebook."""
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setenv("NIN_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("NIN_FIGURES", raising=False)
    files = {
        "nin/__init__.py": "",
        "nin/model/layers.py": "x = 1",
        "studies/__init__.py": "",
        "studies/first/measure.py": "from studies.shared import mean",
        "studies/other/measure.py": "",
        "studies/shared.py": "def mean(): ...",
        "data/golden.csv": "1,2",
        "data/cache/mnist/t10k-images-idx3-ubyte.gz": "x",
        "elsewhere/MNIST/raw/train-images-idx3-ubyte": "y",
        "elsewhere/large.bin": "z",
        "notebooks/beside.py": "",
        "notebooks/profiles/quick.yaml": "{}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    save(tmp_path / "notebooks" / "01_one.ipynb", "from studies.first import measure", "other_things = 1")
    return tmp_path


@pytest.fixture
def stamped(clone, monkeypatch):
    """A function that says why the notebook has to run, after it has run once."""
    monkeypatch.setattr(nin, "__file__", str(clone / "nin" / "__init__.py"))
    notebook, executed, figures = clone / "notebooks" / "01_one.ipynb", clone / "runs", clone / "figures" / "quick"
    plan = {"profile": "quick", "lr": 0.05}
    stamp = Stamp(notebook, executed, figures)

    def reasons(**changes):
        return stamp.reasons(deciding(notebook, plan | changes))

    assert reasons() == ["it has not finished here before"]
    figures.mkdir(parents=True)
    executed.mkdir()
    (executed / "01_one.ipynb").write_text("executed")
    (figures / "01a.csv").write_text("1")
    (figures / "checks.csv").write_text("notebook,name,holds\n01_one,slope,True\n02_two,slope,True\n")
    written = (figures / "01a.csv", figures / "checks.csv")
    outcome = Outcome("01_one", 2.5, 1000, None, executed / notebook.name, figures, written)
    stamp.write(outcome, deciding(notebook, plan))
    assert reasons() == []
    assert stamp.outcome() == Outcome(*list(vars(outcome).values())[:-1], up_to_date=True)
    reasons.stamp = stamp
    return reasons


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("nin/model/layers.py", "nin/model/layers.py changed"),
        ("nin/model/new.py", "nin/model/new.py is new"),
        ("studies/first/measure.py", "studies/first/measure.py changed"),
        ("studies/shared.py", "studies/shared.py changed"),
        ("studies/__init__.py", "studies/__init__.py changed"),
        ("notebooks/beside.py", "beside.py changed"),
        ("data/golden.csv", "data/golden.csv changed"),
        ("data/cache/mnist/t10k-images-idx3-ubyte.gz", "data/cache/mnist/t10k-images-idx3-ubyte.gz changed"),
        ("elsewhere/MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-images-idx3-ubyte changed"),
        ("elsewhere/MNIST/raw/train-labels-idx1-ubyte", "MNIST/raw/train-labels-idx1-ubyte is new"),
        ("figures/quick/01a.csv", "01a.csv was changed"),
        ("runs/01_one.ipynb", "01_one.ipynb was changed"),
        ("runs/stamps/01_one.json", "it has not finished here before"),
    ],
)
def test_it_runs_again_when_the_content_of_a_file_changes(clone, stamped, file, reason):
    path = clone / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}# a comment\n")
    assert stamped() == [reason]
    if before is None:
        path.unlink()
    else:
        path.write_text(before)
    assert stamped() == []


@pytest.mark.parametrize(
    "file", ["studies/other/measure.py", "elsewhere/large.bin", "notebooks/profiles/quick.yaml", "README.md"]
)
def test_what_decides_nothing_may_change(clone, stamped, file):
    (clone / file).write_text("changed")
    for path in clone.rglob("*"):  # a checkout, a copy
        os.utime(path)
    assert stamped() == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("nin/model/layers.py", "nin/model/layers.py is gone"),
        ("data/golden.csv", "data/golden.csv is gone"),
        ("figures/quick/01a.csv", "01a.csv is missing"),
        ("figures/quick/checks.csv", "checks.csv is missing"),
        ("runs/01_one.ipynb", "01_one.ipynb is missing"),
    ],
)
def test_it_runs_again_when_a_file_is_gone(clone, stamped, file, reason):
    (clone / file).unlink()
    assert stamped() == [reason]


def test_of_the_checks_its_own_count(clone, stamped):
    table = clone / "figures" / "quick" / "checks.csv"
    rows = table.read_text()
    table.write_text(rows.replace("02_two,slope,True", "02_two,slope,False\n03_three,slope,True"))
    assert stamped() == []
    table.write_text(rows.replace("01_one,slope,True", "01_one,slope,False"))
    assert stamped() == ["checks.csv was changed"]


def test_cells_parameters_and_versions_decide_and_outputs_do_not(clone, stamped, monkeypatch):
    path = clone / "notebooks" / "01_one.ipynb"
    cells = ["from studies.first import measure", "other_things = 1"]
    save(path, *cells, outputs="seen in JupyterLab")
    assert stamped() == []
    assert stamped(lr=0.1, seeds=3) == ["lr 0.05 -> 0.1", "seeds None -> 3"]
    save(path, cells[0], cells[1] + "  # why")
    assert stamped() == ["the notebook changed"]
    save(path, *cells)
    found = provenance.versions(up_to_date.PACKAGES)
    monkeypatch.setattr(provenance, "versions", lambda packages: found | {"torch": "9.9"})
    assert stamped() == [f"torch {found['torch']} -> 9.9"]


def test_a_study_that_is_named_in_any_way_decides(clone, monkeypatch):
    monkeypatch.setattr(nin, "__file__", str(clone / "nin" / "__init__.py"))
    ways = ["import studies.other.measure", "from studies import (first,\n    other)", "load('studies.other')"]
    for way in ways:
        notebook = save(clone / "notebooks" / "02_two.ipynb", "%matplotlib inline", way)
        assert "code studies/other/measure.py" in deciding(notebook, {})
    notebook = save(clone / "notebooks" / "02_two.ipynb", "other = 1")
    assert not [name for name in deciding(notebook, {}) if "studies" in name]


def test_a_stamp_of_another_version_or_damaged_is_none(stamped):
    path = stamped.stamp.path
    content = json.loads(path.read_text())
    for bad in ("", "[]", "{}", json.dumps(content | {"schema": 0}), json.dumps(content)[:-20]):
        path.write_text(bad)
        assert stamped() == ["it has not finished here before"]


def test_reasons_and_what_decides_in_one_line(clone, stamped):
    assert listed(["a", "b"]) == "a, b" and listed(list("abcde")) == "a, b, c and 2 more"
    found = deciding(clone / "notebooks" / "01_one.ipynb", {"lr": 1})
    assert ": the notebook, 1 parameters, 6 files of code, 3 of data, " in summary(found)
    assert summary(found) != summary(found | {"parameter lr": "2"})


@pytest.fixture
def running(clone):
    """The clone with a notebook whose check holds at lr = 0.05, and one that fails."""
    save(clone / "notebooks" / "01_one.ipynb", WRITE, CHECKS)
    save(clone / "notebooks" / "02_bad.ipynb", WRITE, CHECKS, "raise RuntimeError('no')")
    return clone


@pytest.mark.slow
def test_only_what_changed_runs_again(running, capsys):
    figure = running / "figures" / "quick" / "01_onea.csv"
    assert main(["run", "01"]) == 0
    first, shown = figure.stat().st_mtime_ns, capsys.readouterr().out
    assert main(["run", "01"]) == 0
    again = capsys.readouterr()
    assert figure.stat().st_mtime_ns == first and "01_one: up to date" in again.err
    assert "up to date" in again.out and "1 checks, 0 do not hold; 1 notebooks, 0 failed." in again.out
    for title in ("figures in", "checks\n"):
        table, later = (text[text.index(title) :].split("\n\n")[0] for text in (shown, again.out))
        assert table == later
    assert main(["run", "01", "--why"]) == 0
    assert "up to date" in capsys.readouterr().out
    figure.unlink()
    assert main(["run", "01", "--why"]) == 0 and not figure.exists()
    assert "01_onea.csv is missing" in capsys.readouterr().out
    assert main(["run", "01"]) == 0 and figure.exists()
    second = figure.stat().st_mtime_ns
    assert main(["run", "01", "--force"]) == 0 and figure.stat().st_mtime_ns > second


@pytest.mark.slow
def test_a_failure_is_never_up_to_date_and_a_broken_check_stays_one(running, capsys):
    for _ in range(2):
        assert main(["run", "02"]) == 1
        printed = capsys.readouterr()
        assert "02_bad: RuntimeError: no" in printed.out and "up to date" not in printed.err + printed.out
    for count in range(2):
        assert main(["run", "01", "lr=0.5"]) == 1
        printed = capsys.readouterr()
        assert "1 checks, 1 do not hold; 1 notebooks, 0 failed." in printed.out
        assert ("01_one: up to date" in printed.err) == bool(count)


@pytest.mark.slow
def test_code_that_changes_while_a_notebook_runs_is_not_taken_for_what_it_ran_with(running):
    notebook = running / "notebooks" / "01_one.ipynb"
    save(notebook, WRITE, CHECKS, f"open({str(running / 'notebooks' / 'beside.py')!r}, 'a').write('# later')")
    assert main(["run", "01"]) == 0
    assert not list(running.glob("runs/**/stamps/*"))


@pytest.mark.slow
def test_what_a_notebook_left_is_not_up_to_date_once_it_runs_again(running):
    assert main(["run", "01"]) == 0
    stamp = running / "runs" / "quick" / "stamps" / "01_one.json"
    assert stamp.exists()
    save(running / "notebooks" / "01_one.ipynb", "raise RuntimeError('no')")
    assert main(["run", "01"]) == 1 and not stamp.exists()

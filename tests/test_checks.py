"""Catches: a claim that holds though it does not, and checks of one notebook that overwrite another's."""

import subprocess
import sys
import time

import pytest

from nin import checks
from nin.checks import Check
from nin.figures import begin
from nin.support import paths


@pytest.mark.parametrize(
    ("measured", "predicted", "tolerance", "relation", "holds"),
    [
        (1.04, 1, 0.05, "=", True),
        (1.06, 1, 0.05, "=", False),
        (0.94, 1, 0.05, "=", False),
        (0.5, 1, 0.05, "<=", True),
        (1.06, 1, 0.05, "<=", False),
        (2.0, 1, 0.05, ">=", True),
        (0.94, 1, 0.05, ">=", False),
        (float("nan"), 1, 9, "=", False),
        (float("nan"), 1, 9, ">=", False),
        (float("inf"), 1, 9, ">=", False),
        (1.0, float("nan"), 9, "=", False),
        (1.0, float("inf"), 9, "<=", False),
    ],
)
def test_holds(measured, predicted, tolerance, relation, holds):
    assert Check("a claim", "somewhere", measured, predicted, tolerance, relation).holds is holds


@pytest.mark.parametrize(
    ("rival", "holds"),
    [(None, True), (2.0, True), (float("inf"), True), (1.04, False), (0.96, False), (float("nan"), False)],
)
def test_a_check_that_its_rival_passes_does_not_hold(rival, holds):
    check = Check("a claim", "somewhere", 1.01, 1, 0.05, rival=rival)
    assert check.holds is check.tests is holds
    assert Check("a claim", "somewhere", 1.2, 1, 0.05, rival=2.0).holds is False


@pytest.mark.usefixtures("unchecked")
def test_bad_claims_are_named():
    with pytest.raises(ValueError, match="relation='==' is unknown; choose one of =, <=, >="):
        Check("a", "b", 1, 1, 0, "==")
    with pytest.raises(ValueError, match="tolerance=-1.0 must be"):
        Check("a", "b", 1, 1, -1)
    with pytest.raises(ValueError, match="tolerance=inf must be a finite number >= 0"):
        Check("a", "b", 1, 1, float("inf"))


def test_rivals_are_kept_and_tables_without_them_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    shown = checks.save([Check("a", "s", 1, 1, rival=3), Check("b", "s", 1, 1)], notebook="02", profile="quick")
    assert shown["rival"].tolist()[0] == 3 and shown["rival"].isna().tolist() == [False, True]
    path = paths.figures("quick") / "checks.csv"
    assert checks.table()["rival"].tolist()[0] == 3
    old = "notebook,name,source,measured,predicted,tolerance,relation,holds\n01,c,s,3.0,3.0,0.0,=,True\n"
    path.write_text(old)
    assert checks.table()["rival"].isna().all()
    checks.save([Check("d", "s", 1, 1, rival=2)], notebook="02", profile="quick")
    assert checks.table()[["notebook", "holds"]].values.tolist() == [["01", True], ["02", True]]


def test_a_notebook_replaces_its_own_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    checks.save([Check("a", "s", 1, 1), Check("b", "s", 2, 1)], notebook="02", profile="quick")
    checks.save([Check("c", "s", 3, 3)], notebook="01", profile="quick")
    shown = checks.save([Check("d", "s", 4, 4)], notebook="02", profile="quick")
    assert list(shown.columns) == ["name", "source", "measured", "predicted", "tolerance", "relation", "holds"]
    table = checks.table(paths.figures("quick"))
    assert table[["notebook", "name", "holds"]].values.tolist() == [["01", "c", True], ["02", "d", True]]
    assert checks.table().equals(table)
    assert len(checks.table(paths.figures("paper"))) == 0


def test_checks_of_a_former_run_are_told_until_the_notebook_saves_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    for notebook in ("01", "02"):
        begin(notebook, profile="quick", parameters={})
        checks.save([Check("a", "s", 1, 1)])
    assert checks.table()["former"].tolist() == [False, False]
    begin("02", profile="quick", parameters={})
    assert checks.table()[["notebook", "former"]].values.tolist() == [["01", False], ["02", True]]
    checks.save([Check("a", "s", 2, 1)])
    assert checks.table()[["notebook", "former", "holds"]].values.tolist() == [
        ["01", False, True],
        ["02", False, False],
    ]
    assert [path.name for path in (tmp_path / "quick").iterdir()] == ["checks.csv"]


def test_texts_that_look_like_numbers_or_nothing_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    checks.save([Check("NA", "null", 1, float("nan")), Check("02", "nan", 2, 2)], notebook="01", profile="quick")
    checks.save([], notebook="02", profile="quick")
    table = checks.table()
    assert table[["notebook", "name", "source"]].values.tolist() == [["01", "NA", "null"], ["01", "02", "nan"]]
    assert table["predicted"].isna().tolist() == [True, False] and table["holds"].tolist() == [False, True]


@pytest.mark.slow
def test_eight_processes_that_save_at_once_lose_nothing(tmp_path, monkeypatch):
    """With many saves each, and another that is killed while it holds the folder."""
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    holder = (
        "import sys, time; from pathlib import Path; from nin.support.exclusive import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)\n"
    )
    writer = (
        "import sys, time; from nin import checks\n"
        "while time.time() < float(sys.argv[2]): time.sleep(0.001)\n"
        "for number in range(8): checks.save([checks.Check(str(number), 's', 1, 1)], notebook=sys.argv[1])\n"
    )
    (tmp_path / "quick").mkdir()
    with subprocess.Popen([sys.executable, "-c", holder, str(tmp_path / "quick")], stdout=subprocess.PIPE) as holding:
        holding.stdout.readline()
        start = str(time.time() + 1)
        writing = [subprocess.Popen([sys.executable, "-c", writer, f"0{n}", start]) for n in range(8)]
        time.sleep(0.1)
        holding.kill()
    assert [process.wait() for process in writing] == [0] * 8
    assert checks.table()[["notebook", "name"]].values.tolist() == [[f"0{n}", "7"] for n in range(8)]

"""Catches: a claim that holds though it does not, and checks of one notebook that overwrite another's."""

import pytest

from nin import checks
from nin.checks import Check
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
    ],
)
def test_holds(measured, predicted, tolerance, relation, holds):
    assert Check("a claim", "somewhere", measured, predicted, tolerance, relation).holds is holds


@pytest.mark.usefixtures("unchecked")
def test_bad_claims_are_named():
    with pytest.raises(ValueError, match="relation='==' is unknown; choose one of =, <=, >="):
        Check("a", "b", 1, 1, 0, "==")
    with pytest.raises(ValueError, match="tolerance=-1.0 must be"):
        Check("a", "b", 1, 1, -1)


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

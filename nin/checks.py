"""A claim and its outcome: measured, predicted, tolerance, holds; the rows of figures/PROFILE/checks.csv."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from nin.support import former, paths, provenance
from nin.support.arguments import check_choice, check_kind, described
from nin.support.exclusive import exclusive

COLUMNS = ["notebook", "name", "source", "measured", "predicted", "tolerance", "relation", "rival", "holds"]
TEXT = ("notebook", "name", "source", "relation")
NUMBERS = ("measured", "predicted", "tolerance", "rival")
RELATIONS = ("=", "<=", ">=")


@dataclass(frozen=True)
class Check:
    """One claim: `measured relation predicted`, within an absolute tolerance, and its rival, which must not hold.

    name       what is claimed, in a few words
    source     where it is stated: "NIN prediction 7" of docs/reference, or a paper
    relation   "=": |measured - predicted| <= tolerance; "<=", ">=": one-sided, the tolerance on the allowed side
    rival      the value that would be measured if the claim were false: a null, a control, another theory; None: none
    A measured or predicted value that is NaN or infinite never holds, nor does a check that its rival passes as well
    or whose rival is NaN: it tests nothing.
    Raises ValueError for an unknown relation and for a tolerance that is negative, NaN or infinite.
    """

    name: str
    source: str
    measured: float
    predicted: float
    tolerance: float = 0.0
    relation: Literal["=", "<=", ">="] = "="
    rival: float | None = None

    def __post_init__(self) -> None:
        check_choice("relation", self.relation, RELATIONS)
        for field in ("name", "source"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field):
                raise ValueError(f"{field}={getattr(self, field)!r} must be a text that is not empty.")
        for field in ("measured", "predicted", "tolerance", *(["rival"] if self.rival is not None else [])):
            object.__setattr__(self, field, _number(field, getattr(self, field)))
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance={self.tolerance!r} must be a finite number >= 0.")

    @property
    def holds(self) -> bool:
        """Whether the measurement supports the claim, and the rival would not."""
        if not math.isfinite(self.measured) or not math.isfinite(self.predicted):
            return False
        return self._allows(self.measured) and self.tests

    @property
    def tests(self) -> bool:
        """Whether the rival fails, so that the check can; True without a rival."""
        return self.rival is None or not (math.isnan(self.rival) or self._allows(self.rival))

    def _allows(self, value: float) -> bool:
        excess = value - self.predicted
        low, high = self.relation != "<=", self.relation != ">="
        return not (low and excess < -self.tolerance) and not (high and excess > self.tolerance)


def _number(field: str, value: Any) -> float:
    """The value as a float; ValueError for one that is not a number."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{described(field, value)} must be a number.") from None


def save(checks: Sequence[Check], *, notebook: str | None = None, profile: str | None = None) -> pd.DataFrame:
    """Replace a notebook's rows in its profile's checks.csv with these checks, and return them as a table.

    The table has a column `rival` if a check has one. Several processes may save at once: each keeps its rows.
    notebook, profile   None: those of the last `nin.figures.begin`; ValueError if there was none
    """
    if isinstance(checks, Check) or not isinstance(checks, Iterable) or isinstance(checks, str):
        raise ValueError(f"{described('checks', checks)} must be a sequence of nin.checks.Check.")
    checks = list(checks)
    for check in checks:
        check_kind("checks", check, Check, "a sequence of nin.checks.Check")
    source = provenance.source()
    for field, value in (("notebook", notebook), ("profile", profile)):
        if value is not None and not paths.is_plain(value):
            raise ValueError(f"{field}={value!r} must be a plain name, without folders and not beginning with a dot.")
    notebook, profile = notebook or source.notebook, profile or source.profile
    if notebook is None:
        raise ValueError("notebook=None: name the notebook, or call nin.figures.begin before checks are saved.")
    rows = [dataclasses.asdict(check) | {"notebook": notebook, "holds": check.holds} for check in checks]
    new = pd.DataFrame(rows, columns=COLUMNS)
    folder = paths.figures(profile)
    with paths.explained(folder / "checks.csv"):
        folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        old = table(folder)[COLUMNS]
        whole = pd.concat([frame for frame in (old[old["notebook"] != notebook], new) if len(frame)] or [new])
        whole = whole.sort_values("notebook", kind="stable")
        paths.write(folder / "checks.csv", whole.to_csv(index=False).encode())
        former.replaced(folder, checks=notebook)
    return new.drop(columns="notebook" if new["rival"].notna().any() else ["notebook", "rival"])


def table(folder: Path | None = None) -> pd.DataFrame:
    """All checks in a figures folder (None: that of the quick profile), one row for each claim; empty if none exist.

    Its column `former` tells which are of a former run: their notebook was started again and has not saved any since.
    """
    folder = paths.figures("quick") if folder is None else Path(folder)
    path = folder / "checks.csv"
    if not path.exists():
        return pd.DataFrame(columns=[*COLUMNS, "former"])
    texts, missing = dict.fromkeys(TEXT, str), {name: [""] for name in NUMBERS}
    found = pd.read_csv(path, dtype=texts, na_values=missing, keep_default_na=False)
    found = found.reindex(columns=COLUMNS)  # tables of earlier versions have no rivals
    return found.assign(former=found["notebook"].isin(former.checks(folder)))

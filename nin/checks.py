"""A claim and its outcome: measured, predicted, tolerance, holds; the rows of figures/PROFILE/checks.csv."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from nin.support import paths, provenance
from nin.support.arguments import check_choice

COLUMNS = ["notebook", "name", "source", "measured", "predicted", "tolerance", "relation", "holds"]
TEXT = ("notebook", "name", "source", "relation")
RELATIONS = ("=", "<=", ">=")


@dataclass(frozen=True)
class Check:
    """One claim: `measured relation predicted`, within an absolute tolerance.

    name       what is claimed, in a few words
    source     where it is stated: "NIN prediction 7" of docs/reference, or a paper
    relation   "=": |measured - predicted| <= tolerance; "<=", ">=": one-sided, the tolerance on the allowed side
    A measured value that is NaN or infinite never holds.
    """

    name: str
    source: str
    measured: float
    predicted: float
    tolerance: float = 0.0
    relation: Literal["=", "<=", ">="] = "="

    def __post_init__(self) -> None:
        check_choice("relation", self.relation, RELATIONS)
        for field in ("measured", "predicted", "tolerance"):
            object.__setattr__(self, field, float(getattr(self, field)))
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance={self.tolerance!r} must be a number >= 0.")

    @property
    def holds(self) -> bool:
        """Whether the measurement supports the claim."""
        if not math.isfinite(self.measured):
            return False
        excess = self.measured - self.predicted
        low, high = self.relation != "<=", self.relation != ">="
        return not (low and excess < -self.tolerance) and not (high and excess > self.tolerance)


def save(checks: Sequence[Check], *, notebook: str | None = None, profile: str | None = None) -> pd.DataFrame:
    """Replace a notebook's rows in its profile's checks.csv with these checks, and return them as a table.

    notebook, profile   None: those of the last `nin.figures.begin`; ValueError if there was none
    """
    source = provenance.source()
    notebook, profile = notebook or source.notebook, profile or source.profile
    if notebook is None:
        raise ValueError("notebook=None: name the notebook, or call nin.figures.begin before checks are saved.")
    rows = [dataclasses.asdict(check) | {"notebook": notebook, "holds": check.holds} for check in checks]
    new = pd.DataFrame(rows, columns=COLUMNS)
    folder = paths.figures(profile)
    old = table(folder)
    whole = pd.concat([frame for frame in (old[old["notebook"] != notebook], new) if len(frame)])
    whole = whole.sort_values("notebook", kind="stable")
    paths.write(folder / "checks.csv", whole.to_csv(index=False).encode())
    return new.drop(columns="notebook")


def table(folder: Path | None = None) -> pd.DataFrame:
    """All checks in a figures folder (None: that of the quick profile), one row for each claim; empty if none exist."""
    path = (paths.figures("quick") if folder is None else Path(folder)) / "checks.csv"
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT, str)) if path.exists() else pd.DataFrame(columns=COLUMNS)

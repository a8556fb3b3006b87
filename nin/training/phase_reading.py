"""The phase of a recorded run, or why it cannot be told."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from nin.phases import Criteria, criteria
from nin.training.recorder import EARLY

KNOWS = 0.8  # ratio of the clean loss to that on shuffled targets, 1 for a new network, below which it was trained


@dataclass(frozen=True)
class PhaseReading:
    """The phase of a run so far, or None with the reason why it cannot be told.

    certainty  probability that the comparisons behind the label come out the same again; NaN if unknown
    criteria   the numbers that decide it (`nin.phases.criteria`)
    """

    phase: str | None
    certainty: float
    why: str
    criteria: Criteria | None

    def __str__(self) -> str:
        if self.phase is None:
            return f"cannot tell the phase: {self.why}"
        sure = "" if np.isnan(self.certainty) else f", certainty {self.certainty:.2f}"
        return f"{self.phase}{sure}" + (f" ({self.why})" if self.why else "")


def read_phase(frame: pd.DataFrame, norms: pd.DataFrame, *, first: int, at_start: tuple[float, float]) -> PhaseReading:
    """The phase from the tables of a `nin.Record`, whose method `phase` says when it cannot be told.

    first     the step at which the record begins
    at_start  the clean loss there, and the same on shuffled targets
    """
    if frame.empty:
        return PhaseReading(None, np.nan, "nothing was recorded yet", None)
    frame = frame.assign(niw_norm=frame["niw_norm"] / frame["niw_decay"].fillna(1.0))
    found = criteria(frame[["step", "noisy_loss", "expected_loss", "ratio_stderr", "niw_norm"]])
    found = replace(found, first=float(first)) if first else found
    notes = _trained(*at_start)
    if found.phase in ("divergent", "catapult"):
        notes += ["unless plain SGD spikes by itself: see nin.predict(...).own"] if found.phase == "catapult" else []
        return PhaseReading(found.phase, found.certainty, "; ".join(notes), found)
    last, scales = frame["step"].iloc[-1] - first, norms.groupby("layer")["sigma"].nunique()
    reasons = {
        found.doubt: bool(found.doubt),
        f"only {last} steps were recorded, and a catapult may take {EARLY}": last < EARLY,
        f"{frame['optimizer'].iloc[0]} decays W_NI by an amount that is not a known factor; use "
        "noisy.parameter_groups(weight_decay=...), which does not decay it": frame["niw_decay"].isna().any(),
        "sigma changed during the run": scales.max() > 1,
    }
    if any(reasons.values()):
        return PhaseReading(None, np.nan, "; ".join(why for why, holds in reasons.items() if holds), found)
    return PhaseReading(found.phase, found.certainty, "; ".join(notes), found)


def _trained(clean: float, shuffled: float) -> list[str]:
    """Whether the network knew the targets at the first step, in words."""
    if not clean < KNOWS * shuffled:
        return []
    return [f"the network was trained before: clean loss {clean:.2g} at the start, {shuffled:.2g} on shuffled targets"]

"""From a trajectory, by thresholds, to its phase."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

PHASES = ("decoupled", "decay", "catapult", "divergent")
SPIKE = 1.05  # ratio of the peak of the noisy loss to its start that counts as a spike; batch noise stays below
SPIKE_WINDOW = 50  # steps; a catapult peaks after ~ln(width) of them
DECAYED = 0.9  # ratio of |W_NI| at the end to its start below which the node has decayed: kappa T of order one


@dataclass(frozen=True)
class Criteria:
    """The numbers that decide the phase of a run.

    spike   largest noisy loss within the spike window over the initial one (inf if it overflows)
    kept    mean NIW size over the last tenth of the records, over the initial one
    peak    largest NIW size over the initial one
    finite  whether the noisy loss and the NIW stay finite to the end
    limit   spike above which a run counts as a catapult
    """

    spike: float
    kept: float
    peak: float
    finite: bool
    limit: float = SPIKE

    @property
    def collapsed(self) -> bool:
        """Whether a run that spiked never recovered: its NIW ends larger than it began, within 10 % of its peak.

        ReLU networks survive a blow-up as a constant predictor with loss ln C, whose NIW receives no gradient.
        """
        return self.spike > self.limit and self.kept > 1 and self.kept > DECAYED * self.peak

    @property
    def phase(self) -> str:
        """divergent: not finite, or collapsed; catapult: spike > 1.05; decay: kept < 0.9; else decoupled."""
        if not self.finite or self.collapsed:
            return "divergent"
        if self.spike > self.limit:
            return "catapult"
        return "decay" if self.kept < DECAYED else "decoupled"


DIVERGED_AT_ONCE = Criteria(spike=np.inf, kept=np.nan, peak=np.nan, finite=False)


def criteria(
    frame: pd.DataFrame, *, niw: str = "niw_norm", spike_window: int = SPIKE_WINDOW, limit: float = SPIKE
) -> Criteria:
    """Measure one run, a frame with the columns step, noisy_loss and niw_norm.

    niw           column that holds the size of the noise injection weights; use "noise_output" for the wide linear net,
                  where |W_NI| barely moves
    spike_window  steps in which a spike counts, by default the first 50
    limit         spike above which the run counts as a catapult
    A NaN at the last step means that the run diverged; a NaN before it, that the step was not measured.
    Raises ValueError for a missing column, an empty frame, a frame of several runs, or no row with both values.
    """
    _check_one_run(frame, niw)
    frame = frame.sort_values("step")
    last = frame[["noisy_loss", niw]].iloc[-1]
    measured = frame.dropna(subset=["noisy_loss", niw])
    if measured.empty:
        if len(frame) == 1 and pd.notna(last[niw]):
            return DIVERGED_AT_ONCE
        raise ValueError(f"frame has no row with both noisy_loss and {niw}; pass the records of a run that has a node.")
    step, loss = measured["step"].to_numpy(dtype=float), measured["noisy_loss"].to_numpy(dtype=float)
    size = measured[niw].abs().to_numpy(dtype=float)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return Criteria(
            limit=limit,
            spike=float(loss[step <= step[0] + spike_window].max() / loss[0]),
            kept=float(size[-max(1, len(size) // 10) :].mean() / size[0]),
            peak=float(size.max() / size[0]),
            finite=bool(np.isfinite([*loss, *size, *last]).all()),
        )


def _check_one_run(frame: pd.DataFrame, niw: str) -> None:
    missing = {"step", "noisy_loss", niw} - set(frame.columns)
    if missing:
        raise ValueError(f"frame has no column {', '.join(sorted(missing))}; it needs step, noisy_loss and {niw}.")
    if frame.empty:
        raise ValueError("frame is empty; a run has at least one row.")
    if frame["step"].duplicated().any():
        raise ValueError("frame holds several runs; classify one at a time: for run, rows in frame.groupby('run').")


def classify(
    frame: pd.DataFrame, *, niw: str = "niw_norm", spike_window: int = SPIKE_WINDOW, limit: float = SPIKE
) -> str:
    """The phase of one run: "decoupled", "decay", "catapult" or "divergent" (see Criteria and `criteria`)."""
    return criteria(frame, niw=niw, spike_window=spike_window, limit=limit).phase

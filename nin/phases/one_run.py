"""From a trajectory to its phase, by explicit criteria with their errors."""

from dataclasses import dataclass
from math import erf, isnan, log, sqrt

import numpy as np
import pandas as pd
from jaxtyping import Float

from nin.phases.curves import check_steps, check_table, numbers
from nin.phases.spikes import Spike, batch_spike, expected_spike
from nin.support.arguments import check_kind, check_number

PHASES = ("decoupled", "decay", "catapult", "divergent")
GROWING = "growing"  # none of the four: the node grows without a spike that it causes, as when fixed noise is memorised
OUTCOMES = ("decoupled", "decay", GROWING, "catapult", "divergent")  # all that `classify` returns
VERSION = 2  # of the criteria: a label that other criteria gave is computed anew
SPIKE = 1.05  # ratio of the peak of the noisy loss to its start that counts as a spike
SPIKE_WINDOW = 50  # steps; a catapult peaks after ~ln(width) of them
DECAYED = 0.9  # ratio of |W_NI| at the end to its start below which the node has decayed: kappa T of order one
GREW = 1 / DECAYED  # the same change of ln |W_NI| upward
STILL = 2e-3  # relative motion of |W_NI| over its last tenth below which the network is dead: no gradient reaches it
# Standard errors that make a spike. Expected losses: 2 would miss more spikes than it spares false ones (`python -m
# benchmarks phases`). Batch losses: the largest of some 200 means is judged, and small batches have heavy tails.
SURE, SURE_OF_BATCHES = 1.0, 4.5
# The largest gap, as a fraction of the step where it begins (and at least 2 steps), between two measurements that show
# any spike between them. Those of `nin.train` are a fifth apart; a catapult peaks after ln(width) steps, 4 to 7, and
# falls as fast.
SPARSE = 1 / 3
RATIO = ", and a spike is a ratio of losses; subtract a lower bound"
NOT_NEGATIVE = {  # columns, and why
    "noisy_loss": RATIO,
    "expected_loss": RATIO,
    "ratio_stderr": ", and an error is not",
    "niw_decay": ", and weight decay keeps the sign of the weights",
    "weight_decay": ", and weights would grow by it",
}


@dataclass(frozen=True)
class Criteria:
    """The numbers that decide the phase of a run, and their errors.

    spike         largest noisy loss after the first step, within the spike window, over the initial one; inf if it
                  overflows
    spike_stderr  its standard error; NaN if unknown
    plain_spike   the same of plain training, without noise, on the same batches; NaN if unknown
    kept          mean NIW size over the last tenth of the records, over the initial one
    kept_stderr   its standard error from the scatter of that tenth
    peak          largest NIW size over the initial one; early_peak: that within the spike window
    motion        largest minus smallest NIW size in the last tenth, over their mean
    finite        whether the noisy loss and the NIW stay finite to the end
    limit         spike above which a run counts as a catapult
    expected      whether spike is that of the expected loss, not of mini-batches
    gap           steps between two measurements of the loss within the spike window that are too far apart to show a
                  spike between them (SPARSE), the first such pair; None if there is none
    first         the step of the first measurement
    decayed       whether weight decay acts on |W_NI| by a factor that is not known
    """

    spike: float
    kept: float
    peak: float
    finite: bool
    limit: float = SPIKE
    spike_stderr: float = np.nan
    plain_spike: float = np.nan
    kept_stderr: float = np.nan
    early_peak: float = np.nan
    motion: float = 0.0
    expected: bool = False
    gap: tuple[float, float] | None = None
    first: float = 0.0
    decayed: bool = False

    @property
    def spiked(self) -> bool:
        """Whether the noisy loss spiked: above the limit, and beyond its error.

        An expected loss must exceed its start by SURE standard errors. A batch loss must exceed the limit by
        SURE_OF_BATCHES standard errors, or |W_NI|, which scatters less, must rise above the limit at the same time.
        """
        if not self.spike > self.limit:
            return False
        if self.spike == np.inf or self.spike_stderr == 0:
            return True
        if self.expected:
            return self.spike - 1 > SURE * self.spike_stderr
        return self._away > SURE_OF_BATCHES or self.early_peak > self.limit

    @property
    def _away(self) -> float:
        """Standard errors between spike and limit; those of batches are errors of ln spike."""
        if self.expected:
            return (self.spike - self.limit) / self.spike_stderr
        return log(self.spike / self.limit) / (self.spike_stderr / self.spike)

    @property
    def by_node(self) -> bool:
        """Whether the spike, if there is one, is the node's: ln spike is more than twice that of plain training."""
        return isnan(self.plain_spike) or self.spike > max(self.plain_spike, 1.0) ** 2

    @property
    def plain(self) -> str:
        """What plain SGD does by itself within the spike window: "stable", "spikes", "diverges", or "unknown"."""
        if isnan(self.plain_spike):
            return "unknown"
        return "diverges" if self.plain_spike == np.inf else "spikes" if self.plain_spike > self.limit else "stable"

    @property
    def collapsed(self) -> bool:
        """Whether a run that spiked is dead: its NIW grew, ends within 10 % of its peak and no longer moves.

        ReLU networks survive a blow-up as a constant predictor with loss ln C, whose NIW receives no gradient.
        """
        return self.spiked and self.kept > GREW and self.kept > DECAYED * self.peak and self.motion < STILL

    @property
    def phase(self) -> str:
        """divergent: not finite, or collapsed; catapult: a spike of the node; else by |W_NI| at the end.

        kept < 0.9 of its peak or of its start: decay; else kept > 1 / 0.9: growing, which is none of the four phases;
        else decoupled. A spike that plain SGD makes by itself does not count as a catapult (see `plain`).
        """
        if not self.finite or self.collapsed:
            return "divergent"
        if self.spiked and self.by_node:
            return "catapult"
        if self.kept < DECAYED * max(self.peak, 1.0):
            return "decay"
        return GROWING if self.kept > GREW else "decoupled"

    @property
    def doubt(self) -> str:
        """Why the label may be wrong whatever the errors are, in a clause; "" if nothing is known against it.

        A run that is divergent, or a catapult, stays so however sparse its record is.
        """
        if self.phase in ("divergent", "catapult"):
            return ""
        if self.first > 0:
            return f"the record begins at step {self.first:g}, and a spike before it would not be seen"
        if self.decayed:
            return "weight decay shrinks |W_NI| by a factor that is not known; decay_node=False spares it"
        if self.gap is not None:
            return f"nothing was measured between steps {self.gap[0]:g} and {self.gap[1]:g}, where a spike may lie"
        return ""

    @property
    def certainty(self) -> float:
        """Probability that the comparisons behind the label come out the same again, given the standard errors.

        Normal errors of the spike and of kept are assumed; 1 for a run that is not finite; NaN if an error is unknown
        or if there is a `doubt`.
        """
        if not self.finite:
            return 1.0
        if self.doubt:
            return np.nan
        sure = 1.0 if self.spike in (0, np.inf) or self.spike_stderr == 0 else _side(self._away)
        if self.phase in ("catapult", "divergent"):
            return sure
        borders = DECAYED * max(self.peak, 1.0), GREW
        return sure * min(_side((self.kept - border) / (self.kept_stderr or 1e-300)) for border in borders)


DIVERGED_AT_ONCE = Criteria(spike=np.inf, kept=np.nan, peak=np.nan, finite=False)


def criteria(
    frame: pd.DataFrame, *, niw: str = "niw_norm", spike_window: int = SPIKE_WINDOW, limit: float = SPIKE
) -> Criteria:
    """Measure one run, a frame with the columns step, noisy_loss and niw_norm.

    If they are there, these columns are used as well: expected_loss and ratio_stderr (the noisy loss on fixed samples
    and noise, and the standard error of its ratio to the first), in place of noisy_loss; plain_spike; and niw_decay, or
    else weight_decay, lr and momentum of a run of SGD, to divide the fall due to weight decay out of |W_NI|. A table of
    mini-batch losses alone is judged by their scatter (`nin.phases.spikes.batch_spike`).

    niw           column that holds the size of the noise injection weights; use "noise_output" for the wide linear net,
                  where |W_NI| barely moves
    spike_window  steps in which a spike counts, by default the first 50
    limit         spike above which the run counts as a catapult
    A NaN at the last step means that the run diverged; a NaN before it, that the step was not measured.
    Raises ValueError for a missing column or one that does not hold numbers, an empty frame, a frame of several runs,
    steps that do not increase from 0 on, no row with both values, a negative loss or error, and numbers out of range.
    """
    check_number("limit", limit, minimum=1.0)
    check_number("spike_window", spike_window, exclusive=True)
    frame = _one_run(frame, niw)
    last = frame[["noisy_loss", niw]].iloc[-1]
    measured = frame.dropna(subset=["noisy_loss", niw])
    if measured.empty:
        if len(frame) == 1 and pd.notna(last[niw]):
            return DIVERGED_AT_ONCE
        raise ValueError(f"frame has no row with both noisy_loss and {niw}; pass the records of a run that has a node.")
    steps, loss = measured["step"].to_numpy(dtype=float), measured["noisy_loss"].to_numpy(dtype=float)
    size = measured[niw].abs().to_numpy(dtype=float)
    finite = bool(np.isfinite([*loss, *size, *last]).all())
    names = ("expected_loss", "ratio_stderr")
    expected = set(names) <= set(frame) and bool(frame["expected_loss"].notna().sum() > 1)
    if expected:
        columns = (measured[name].to_numpy(dtype=float) for name in names)
        spike = expected_spike(steps, *columns, window=spike_window)
    else:
        spike = batch_spike(steps, loss, window=spike_window)
    if not finite and not np.isfinite(loss[steps <= steps[0] + spike_window]).all():
        spike = Spike(np.inf, np.nan)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        decay = _weight_decay(measured, steps)
        size = size / size[0] / np.where(np.isnan(decay), 1.0, decay)
        tail = size[-max(1, len(size) // 10) :]
        return Criteria(
            spike=spike.ratio,
            spike_stderr=spike.stderr,
            plain_spike=float(frame["plain_spike"].iloc[0]) if "plain_spike" in frame else np.nan,
            kept=float(tail.mean()),
            kept_stderr=float(tail.std(ddof=1) / sqrt(len(tail))) if len(tail) > 1 else np.nan,
            peak=float(size.max()),
            early_peak=float(size[steps <= steps[0] + spike_window].max()),
            motion=float(np.ptp(tail) / tail.mean()),
            finite=finite,
            limit=limit,
            expected=expected,
            gap=_gap(steps[measured["expected_loss"].notna()] if expected else steps, spike_window),
            first=float(steps[0]),
            decayed=bool(np.isnan(decay).any()),
        )


def _gap(steps: Float[np.ndarray, " n"], window: float) -> tuple[float, float] | None:
    """The first two successive steps within the spike window that are too far apart (SPARSE)."""
    past = steps - steps[0]
    ends = np.append(past[past < window], min(past[-1], window))
    apart = np.diff(ends) > np.maximum(2, SPARSE * ends[:-1])
    place = int(np.argmax(apart)) if apart.any() else None
    return None if place is None else (float(steps[0] + ends[place]), float(steps[0] + ends[place + 1]))


def _weight_decay(frame: pd.DataFrame, steps: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The factor (n,) by which weight decay alone shrinks |W_NI|: niw_decay, else (1 - lr decay / (1 - momentum))^t.

    NaN where it is not known, as under Adam.
    """
    if "niw_decay" in frame:
        factor = frame["niw_decay"].to_numpy(dtype=float)
        return factor / factor[0]
    if not {"weight_decay", "lr", "optimizer"} <= set(frame) or frame["optimizer"].iloc[0] != "sgd":
        return np.ones(len(steps))
    momentum = frame["momentum"].iloc[0] if "momentum" in frame else 0.0
    return (1 - frame["lr"].iloc[0] * frame["weight_decay"].iloc[0] / (1 - momentum)) ** (steps - steps[0])


def _side(away: float) -> float:
    """Probability that a normal variable, this many standard errors from 0, is found on the same side again."""
    return (1 + erf(abs(away) / sqrt(2))) / 2


def _one_run(frame: pd.DataFrame | object, niw: str) -> pd.DataFrame:
    """The frame of a run with its numbers as float64; ValueError for anything else."""
    check_kind("niw", niw, str, "the name of a column")
    check_table("frame", frame, ["step", "noisy_loss", niw])
    measured = ("step", "noisy_loss", niw, *NOT_NEGATIVE, "plain_spike", "lr", "momentum")
    frame = frame.assign(**{name: numbers(name, frame[name]) for name in measured if name in frame})
    if frame["step"].duplicated().any():
        raise ValueError("frame holds several runs; classify one at a time: for run, rows in frame.groupby('run').")
    check_steps("step", frame["step"].to_numpy())
    for name in NOT_NEGATIVE:
        if name in frame and (low := frame[name].min()) < 0:
            raise ValueError(f"{name}={low:g} is negative{NOT_NEGATIVE[name]}.")
    if "momentum" in frame and frame["momentum"].max() >= 1:
        raise ValueError(f"momentum={frame['momentum'].max():g} must lie in [0, 1).")
    if "niw_decay" in frame and frame["niw_decay"].iloc[0] == 0:
        raise ValueError("niw_decay=0 at the first step; it is the factor since then, and begins at 1.")
    return frame


def classify(
    frame: pd.DataFrame, *, niw: str = "niw_norm", spike_window: int = SPIKE_WINDOW, limit: float = SPIKE
) -> str:
    """The phase of one run: "decoupled", "decay", "catapult" or "divergent"; "growing" for none of them.

    A spike that plain SGD makes by itself is not a catapult: it leaves the label that |W_NI| gives. The numbers, their
    errors, and what plain SGD does (if that was recorded) are those of `criteria`.
    """
    return criteria(frame, niw=niw, spike_window=spike_window, limit=limit).phase

"""From a trajectory, by thresholds, to its phase and its decay times; from many runs to a phase map."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from nin import theory

PHASES = ("decoupled", "decay", "catapult", "divergent")
SPIKE = 1.05  # ratio of the peak of the noisy loss to its start that counts as a spike; batch noise stays below
SPIKE_WINDOW = 50  # steps; a catapult peaks after ~ln(width) of them
# Upper ends in kappa_0 of the phases of the wide linear net: 2 and 4 are exact, 0.02 is kappa_0 T = 1 after 50 steps.
KAPPA_BOUNDS = {"decoupled": 0.02, "decay": 2.0, "catapult": theory.KAPPA_MAX, "divergent": np.inf}
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


@dataclass(frozen=True)
class DecayFit:
    """An exponential fit values ~ exp(-step / tau) within a window of steps.

    tau, stderr   decay time and its standard error, in steps; tau = inf if nothing decays
    r2            fraction of the variance of the log that the line explains
    window        first and last step of the fit
    early, late   tau of the first and the second half of the fall (in the log); several rates make them differ
    """

    tau: float
    stderr: float
    r2: float
    window: tuple[float, float]
    early: float
    late: float

    @property
    def several_rates(self) -> bool:
        """Whether the two halves of the fall differ by more than 1.5x, so that one tau describes the curve poorly."""
        return not (1 / 1.5 < self.late / self.early < 1.5) if np.isfinite([self.early, self.late]).all() else True


NO_DECAY = DecayFit(np.inf, np.nan, np.nan, (np.nan, np.nan), np.inf, np.inf)


def fit_decay(steps: ArrayLike, values: ArrayLike) -> DecayFit:
    """Least squares of ln|values| = const - step / tau in the decaying window.

    The window opens at the maximum of |values| and closes where the curve has made 95 % of its fall (in the log)
    to its lowest point, which excludes growth before and a plateau afterwards. NaN values are left out.
    Fewer than 3 points, or a fall of less than 1 %, do not count as decay: tau = inf.
    Raises ValueError for arrays of different shapes, or values that are all zero or NaN.
    """
    steps, values = np.asarray(steps, dtype=float), np.abs(np.asarray(values, dtype=float))
    if steps.shape != values.shape or steps.ndim != 1:
        raise ValueError(f"steps {steps.shape} and values {values.shape} must be one-dimensional and of equal length.")
    good = np.isfinite(values) & (values > 0) & np.isfinite(steps)
    if not good.any():
        raise ValueError("values has no finite number other than 0: nothing to fit; pass a curve that was measured.")
    steps, logs = steps[good], np.log(values[good])
    start = int(np.argmax(logs))
    steps, logs = steps[start:], logs[start:]
    fall = logs[0] - logs.min()
    if fall < 0.01:
        return NO_DECAY
    end = int(np.argmax(logs <= logs[0] - 0.95 * fall)) + 1
    if end < 3:
        return NO_DECAY
    steps, logs = steps[:end], logs[:end]
    middle = max(2, int(np.argmax(logs <= logs[0] - 0.475 * fall)) + 1)
    slope, stderr, r2 = _line(steps, logs)
    return DecayFit(
        tau=-1 / slope if slope < 0 else np.inf,
        stderr=stderr / slope**2,
        r2=r2,
        window=(float(steps[0]), float(steps[-1])),
        early=_tau(steps[:middle], logs[:middle]),
        late=_tau(steps[middle - 1 :], logs[middle - 1 :]),
    )


def _tau(steps: Float[np.ndarray, " n"], logs: Float[np.ndarray, " n"]) -> float:
    if len(steps) < 2:
        return np.inf
    slope = _line(steps, logs)[0]
    return -1 / slope if slope < 0 else np.inf


def _line(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Slope, its standard error and R^2 of the least-squares line."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    residual = float(np.square(dy - slope * dx).sum())
    stderr = np.sqrt(residual / (len(x) - 2) / (dx @ dx)) if len(x) > 2 else np.nan
    return slope, float(stderr), 1 - residual / float(dy @ dy)


RUN_FIELDS = ("seed", "sigma", "lr", "law", "resample", "lambda_H", "kappa_H", "kappa_avg", "diverged_at")
DECAYS = {"niw": "niw_norm", "train": "train_loss", "test": "test_loss"}


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each run of `Trajectories.frame()`: its settings, phase, criteria, and three decay times in steps.

    tau_niw, tau_train, tau_test: `fit_decay` of |W_NI| and of the clean training and test loss, with stderr_* and r2_*;
    tau is inf if nothing decays, and NaN, like the rest of the fit, for a run that diverged.
    """
    rows = []
    for run, curves in frame.groupby("run"):
        numbers = criteria(curves)
        row = {"run": run} | {name: curves[name].iloc[0] for name in RUN_FIELDS}
        row |= {"phase": numbers.phase, "spike": numbers.spike, "kept": numbers.kept}
        for name, column in DECAYS.items():
            fit = fit_decay(curves["step"], curves[column]) if numbers.phase != "divergent" else None
            row |= {f"tau_{name}": fit.tau if fit else np.nan, f"stderr_{name}": fit.stderr if fit else np.nan}
            row |= {f"r2_{name}": fit.r2 if fit else np.nan}
        rows.append(row)
    return pd.DataFrame(rows)


def of_kappa(kappa: float) -> str:
    """The phase of the wide linear net that theory predicts for this kappa_0 (KAPPA_BOUNDS).

    >>> of_kappa(2.5)
    'catapult'
    """
    return next(phase for phase, bound in KAPPA_BOUNDS.items() if kappa < bound)


def vote(phases: Iterable[str]) -> str:
    """The most frequent phase; a tie goes to the later one in the order of PHASES.

    >>> vote(["decay", "catapult", "decay", "catapult"])
    'catapult'
    """
    counts = Counter(phases)
    return max(counts, key=lambda phase: (counts[phase], PHASES.index(phase)))


def majority(table: pd.DataFrame, by: str | list[str] = "sigma") -> pd.DataFrame:
    """The `vote` of the runs of `phases.summarise` at each value of `by`: columns by and phase, sorted."""
    return table.groupby(by)["phase"].agg(vote).reset_index()


def boundaries(phases: pd.DataFrame) -> dict[str, float]:
    """The sigma at which each phase but the first begins: geometric mean of the two grid points around it.

    phases: columns sigma, phase, one row for each sigma. A phase that never occurs is left out; one that occurs in
    several stretches begins at the first of them.
    """
    phases = phases.sort_values("sigma")
    sigma, phase = phases["sigma"].to_numpy(), phases["phase"].to_numpy()
    begin = {}
    for index in range(1, len(sigma)):
        if phase[index] != phase[index - 1]:
            begin.setdefault(str(phase[index]), float(np.sqrt(sigma[index] * sigma[index - 1])))
    return begin


def representatives(phases: pd.DataFrame) -> dict[str, float]:
    """One sigma for each phase that occurs, from the middle of its stretch."""
    groups = phases.sort_values("sigma").groupby("phase")["sigma"]
    middle = groups.agg(lambda sigmas: sigmas.iloc[len(sigmas) // 2]).to_dict()
    return {phase: float(middle[phase]) for phase in PHASES if phase in middle}


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> float:
    """Fraction of common sigmas at which two maps have the same phase, excluding those next to a boundary of `first`.

    first, second: columns sigma, phase. NaN if no common sigma remains.
    """
    first = first.sort_values("sigma").reset_index(drop=True)
    changes = np.flatnonzero(first["phase"].to_numpy()[1:] != first["phase"].to_numpy()[:-1])
    inside = first.drop(index=sorted(set(changes) | set(changes + 1)))
    both = inside.merge(second, on="sigma", suffixes=("", "_second"))
    return float((both["phase"] == both["phase_second"]).mean()) if len(both) else np.nan


def kappa_max(table: pd.DataFrame) -> float:
    """The measured kappa_max: geometric mean of the largest kappa_H that survived and the next one that did not.

    The median over series, each of one seed and one lr; table: rows of `phases.summarise`. NaN if no run diverged.
    """
    edges = []
    for _, series in table[table["kappa_H"] > 0].groupby(["seed", "lr"]):
        alive = series[series["phase"] != "divergent"]["kappa_H"]
        dead = series[(series["phase"] == "divergent") & (series["kappa_H"] > alive.max())]["kappa_H"]
        if len(alive) and len(dead):
            edges.append(np.sqrt(alive.max() * dead.min()))
    return float(np.median(edges)) if edges else np.nan

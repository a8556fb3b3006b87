"""From the phases of many runs to a phase map: a table, votes of seeds, boundaries, and what theory expects."""

from collections import Counter
from collections.abc import Iterable
from numbers import Real

import numpy as np
import pandas as pd

from nin import theory
from nin.phases.curves import check_steps, check_table, numbers
from nin.phases.decay import fit_decay
from nin.phases.one_run import OUTCOMES, criteria
from nin.support.arguments import check_kind, described

# Upper ends in kappa_0 of the phases of the wide linear net: 2 and 4 are exact, 0.02 is kappa_0 T = 1 after 50 steps.
KAPPA_BOUNDS = {"decoupled": 0.02, "decay": 2.0, "catapult": theory.KAPPA_MAX, "divergent": np.inf}
RUN_FIELDS = ("seed", "sigma", "lr", "law", "resample", "lambda_H", "kappa_H", "kappa_avg", "diverged_at")
JUDGED = ("phase", "certainty", "spike", "spike_stderr", "plain", "plain_spike", "kept", "kept_stderr")
DECAYS = {"niw": "niw_norm", "train": "train_loss", "test": "test_loss"}
DECAY_PARTS = ("tau", "stderr", "r2", "low", "high", "floor")  # of each `DecayFit`


def summarise(frame: pd.DataFrame, *, decays: bool = True) -> pd.DataFrame:
    """One row for each run of `Trajectories.frame()`: its settings, phase, criteria, and three decay times in steps.

    phase, certainty, plain (what plain SGD does by itself), spike, kept, ...: as in `nin.phases.Criteria`.
    tau_niw, tau_train, tau_test: `fit_decay` of |W_NI| and of the clean training and test loss, with stderr_*, r2_*,
    the 95 % interval low_* to high_*, and floor_* in units of the curve; tau is inf if nothing decays, and NaN, like
    the rest of the fit, for a run that diverged and for clean losses that were not recorded (eval_points=0).

    decays  whether to fit decay times, which takes 5 to 10 ms for each of the three curves
    """
    check_table("frame", frame, ["run", "step", *RUN_FIELDS, "noisy_loss", *(DECAYS.values() if decays else ())])
    rows = []
    for run, curves in frame.groupby("run"):
        numbers = criteria(curves)
        row = {"run": run} | {name: curves[name].iloc[0] for name in RUN_FIELDS}
        row |= {name: getattr(numbers, name) for name in JUDGED}
        for name, column in DECAYS.items() if decays else ():
            seen = numbers.phase != "divergent" and curves[column].notna().any()
            fit = fit_decay(curves["step"], curves[column]) if seen else None
            row |= {f"{part}_{name}": getattr(fit, part) if fit else np.nan for part in DECAY_PARTS}
        rows.append(row)
    return pd.DataFrame(rows)


def of_kappa(kappa: float) -> str:
    """The phase of the wide linear net that theory predicts for this kappa_0 (KAPPA_BOUNDS).

    >>> of_kappa(2.5)
    'catapult'
    """
    if isinstance(kappa, bool) or not isinstance(kappa, Real) or not kappa >= 0:
        raise ValueError(f"{described('kappa', kappa)} must be a number >= 0.")
    return next(phase for phase, bound in KAPPA_BOUNDS.items() if kappa < bound or bound == np.inf)


def vote(phases: Iterable[str]) -> str:
    """The most frequent phase; a tie goes to the later one in the order of OUTCOMES.

    >>> vote(["decay", "catapult", "decay", "catapult"])
    'catapult'
    """
    known = [] if phases is None or isinstance(phases, str) else list(phases)
    if not known:
        raise ValueError(f"phases={phases!r} must be a sequence of phases; it is empty, or no sequence.")
    _check_known(known)
    counts = Counter(known)
    return max(counts, key=lambda phase: (counts[phase], OUTCOMES.index(phase)))


def _check_known(phases: Iterable[str]) -> None:
    for phase in phases:
        if phase not in OUTCOMES:
            raise ValueError(f"phases holds {phase!r}, which is none of {', '.join(OUTCOMES)}.")


def majority(table: pd.DataFrame, by: str | list[str] = "sigma") -> pd.DataFrame:
    """The `vote` of the runs of `phases.summarise` at each value of `by`: columns by and phase, sorted."""
    check_kind("by", by, (str, list), "the name of a column, or several")
    columns = [by] if isinstance(by, str) else by
    if isinstance(table, pd.DataFrame) and (unknown := [column for column in columns if column not in table]):
        raise ValueError(
            f"by={unknown[0]!r} is no column of the table; choose from {', '.join(map(str, table.columns))}."
        )
    check_table("table", table, [*columns, "phase"])
    return table.groupby(by)["phase"].agg(vote).reset_index()


def boundaries(phases: pd.DataFrame) -> dict[str, float]:
    """The sigma at which each phase but the first begins: geometric mean of the two grid points around it.

    phases: columns sigma, phase, one row for each sigma. A phase that never occurs is left out; one that occurs in
    several stretches begins at the first of them.
    """
    check_table("phases", phases, ["sigma", "phase"])
    _check_known(phases["phase"])
    phases = phases.assign(sigma=numbers("sigma", phases["sigma"])).sort_values("sigma")
    sigma, phase = phases["sigma"].to_numpy(), phases["phase"].to_numpy()
    check_steps("sigma", sigma)
    begin = {}
    for index in range(1, len(sigma)):
        if phase[index] != phase[index - 1]:
            begin.setdefault(str(phase[index]), float(np.sqrt(sigma[index] * sigma[index - 1])))
    return begin


def representatives(phases: pd.DataFrame) -> dict[str, float]:
    """One sigma for each phase that occurs, from the middle of its stretch."""
    check_table("phases", phases, ["sigma", "phase"])
    _check_known(phases["phase"])
    groups = phases.sort_values("sigma").groupby("phase")["sigma"]
    middle = groups.agg(lambda sigmas: sigmas.iloc[len(sigmas) // 2]).to_dict()
    return {phase: float(middle[phase]) for phase in OUTCOMES if phase in middle}

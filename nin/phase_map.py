"""The phases of many runs: the majority over seeds, the boundaries between the phases, and how two maps agree."""

import numpy as np
import pandas as pd

from nin.phases import PHASES


def majority(table: pd.DataFrame, by: str | list[str] = "sigma") -> pd.DataFrame:
    """The phase that most runs of `phases.summarise` have at each value of `by`: columns by and phase, sorted.

    A tie goes to the later phase in the order of PHASES.
    """
    order = table["phase"].map(PHASES.index)
    votes = order.groupby([table[name] for name in np.atleast_1d(by)])
    winner = votes.agg(lambda phases: phases.mode().max())
    return winner.map(lambda index: PHASES[int(index)]).rename("phase").reset_index()


def boundaries(phases: pd.DataFrame) -> dict[str, float]:
    """The sigma at which each phase but the first begins: geometric mean of the two grid points around it.

    phases: columns sigma, phase, one row a sigma. A phase that never occurs is missing; one that occurs in several
    stretches begins at the first.
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
    """Fraction of the common sigmas at which two maps show one phase, those next to a boundary of the first left out.

    first, second: columns sigma, phase. NaN where nothing is left to compare.
    """
    first = first.sort_values("sigma").reset_index(drop=True)
    changes = np.flatnonzero(first["phase"].to_numpy()[1:] != first["phase"].to_numpy()[:-1])
    inside = first.drop(index=sorted(set(changes) | set(changes + 1)))
    both = inside.merge(second, on="sigma", suffixes=("", "_second"))
    return float((both["phase"] == both["phase_second"]).mean()) if len(both) else np.nan


def kappa_max(table: pd.DataFrame) -> float:
    """The measured kappa_max: geometric mean of the largest kappa_H that survived and the next that did not.

    The median over the series of one seed and one lr; table: rows of `phases.summarise`. NaN without a divergent run.
    """
    edges = []
    for _, series in table[table["kappa_H"] > 0].groupby(["seed", "lr"]):
        alive = series[series["phase"] != "divergent"]["kappa_H"]
        dead = series[(series["phase"] == "divergent") & (series["kappa_H"] > alive.max())]["kappa_H"]
        if len(alive) and len(dead):
            edges.append(np.sqrt(alive.max() * dead.min()))
    return float(np.median(edges)) if edges else np.nan

"""How well predicted borders agree with measured ones: errors in log2 eta, with intervals from resampled cases."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from nin.phases.residuals import spread

CLOSE = math.log2(1.5)  # a prediction within a factor 1.5 of the measurement
RESAMPLES = 2000
MEASURED = ("onset", "divergence", "first_step", "plain_onset")


def by_setting(borders: pd.DataFrame, candidates: Sequence[str]) -> pd.DataFrame:
    """The geometric means over the seeds of each case and sigma, of measured and predicted borders alike.

    A single run scatters with its first batches, which no prediction made before can know; the mean does less.
    A prediction is inf for the setting if it is inf for any seed. own: whether plain SGD makes most of the onsets.
    """
    columns = [name for name in (*MEASURED, *candidates) if name in borders]
    with np.errstate(divide="ignore"):
        logs = borders.assign(**{name: np.log(borders[name].astype(float)) for name in columns})
    keys = ["case", "group", "sigma"]
    means = logs.groupby(keys, sort=False)[columns].mean().map(np.exp)
    own = borders.groupby(keys, sort=False)["own"].mean() > 0.5
    return means.assign(own=own, seeds=borders.groupby(keys, sort=False).size()).reset_index()


def errors(borders: pd.DataFrame, candidate: str) -> Float[np.ndarray, " n"]:
    """log2(measured / predicted) of each row (n,): -inf without a predicted onset, NaN if it is not defined."""
    with np.errstate(divide="ignore"):
        return np.log2(borders["onset"].to_numpy(dtype=float) / borders[candidate].to_numpy(dtype=float))


def score(
    borders: pd.DataFrame, candidates: Sequence[str], *, generator: np.random.Generator, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """One row for each candidate: error, within and signed, each with the ends _low and _high of its 95 % interval.

    error     median |log2(measured / predicted)|
    within    fraction of rows within a factor 1.5
    signed    median log2(measured / predicted): positive if the prediction is too early
    count     rows with a measured onset for which the candidate is defined; missed: those without a measured onset
    The intervals come from the percentiles over resampled cases, or pairs of case and seed of a single case.
    """
    measured = borders[borders["onset"].notna()]
    names = measured["case"]
    if names.nunique() < 2:
        names = names + " " + (measured["seed"].astype(str) if "seed" in measured else measured["sigma"].astype(str))
    rows = []
    for candidate in candidates:
        values = errors(measured, candidate)
        there = ~np.isnan(values)
        parts = [part.to_numpy() for _, part in pd.Series(values[there]).groupby(names.to_numpy()[there])]
        row = {"candidate": candidate, "count": int(there.sum()), "missed": len(borders) - len(measured)}
        for name, statistic in STATISTICS.items():
            row |= _with_interval(name, statistic, parts, generator, resamples)
        rows.append(row)
    return pd.DataFrame(rows)


def scatter(ratios: Float[np.ndarray, " n"]) -> float:
    """The factor of one standard deviation of ln(ratio), robustly: exp(1.4826 MAD).

    >>> scatter(np.array([2.0, 2.0, 2.0]))
    1.0
    """
    logs = np.log(ratios[np.isfinite(ratios) & (ratios > 0)])
    return float(np.exp(spread(logs))) if len(logs) else math.nan


STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "error": lambda values: float(np.median(np.abs(values))),
    "within": lambda values: float((np.abs(values) <= CLOSE).mean()),
    "signed": lambda values: float(np.median(values)),
}


def _with_interval(
    name: str, statistic: Callable, parts: list[np.ndarray], generator: np.random.Generator, resamples: int
) -> dict[str, float]:
    """The statistic of all values and its 95 % interval over resampled parts; NaN without values or with one part."""
    if not parts:
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}
    found = {name: statistic(np.concatenate(parts))}
    if len(parts) == 1:
        return found | {f"{name}_low": math.nan, f"{name}_high": math.nan}
    chosen = generator.integers(len(parts), size=(resamples, len(parts)))
    drawn = np.array([statistic(np.concatenate([parts[k] for k in choice])) for choice in chosen])
    low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
    return found | {f"{name}_low": float(low), f"{name}_high": float(high)}

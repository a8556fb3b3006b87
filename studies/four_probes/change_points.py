"""When a measured series changes along training, and whether several change together."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

DRAWS = 2000  # permutations for a chance level


def change_point(steps: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The step at which a fit by two constants jumps, and the share of the variance that the fit explains.

    argmin_c sum_{t < c} (v - mean)^2 + sum_{t >= c} (v - mean)^2: the step is the geometric mean of step + 1 on both
    sides of the jump, minus 1. All snapshots have equal weight, so log-spaced steps make time logarithmic. A straight
    line has 3/4 explained, so the share says how sudden a change is. NaN for fewer than 4 finite values, or equal ones.
    """
    steps, values = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    good = np.isfinite(values)
    steps, values = steps[good], values[good]
    total = np.square(values - values.mean()).sum() if len(values) else 0.0
    if len(values) < 4 or total <= 1e-24 * np.square(values).sum():
        return np.nan, np.nan
    cuts = (np.split(values, [k]) for k in range(1, len(values)))
    left_over = [sum(np.square(part - part.mean()).sum() for part in parts) for parts in cuts]
    k = int(np.argmin(left_over)) + 1
    return float(np.sqrt((steps[k - 1] + 1) * (steps[k] + 1)) - 1), float(1 - min(left_over) / total)


def change_points(series: pd.DataFrame) -> pd.DataFrame:
    """`change_point` of every run and quantity: run, quantity, step, explained. series: run, quantity, step, value."""
    rows = []
    for (run, quantity), part in series.sort_values("step").groupby(["run", "quantity"], sort=False):
        rows.append((run, quantity, *change_point(part["step"].to_numpy(), part["value"].to_numpy())))
    return pd.DataFrame(rows, columns=["run", "quantity", "step", "explained"])


def together(points: pd.DataFrame, *, within: float = 2.0, seed: int = 0) -> pd.DataFrame:
    """For each pair of quantities, how often both change within a factor `within` of step + 1, compared with chance.

    points: run, quantity, step; within: 2, ours. Columns: first, second; runs, the number in which both change; share
    with its 95 % interval (Wilson) in low and high; chance, the mean share when the runs of one quantity are permuted;
    p, the fraction of permutations with a share at least as large; rank, Spearman's correlation of the steps over runs
    (NaN below 4 runs).
    """
    table = points.pivot(index="run", columns="quantity", values="step")
    generator = np.random.default_rng(seed)
    rows = []
    for first, second in combinations(table.columns, 2):
        a, b = np.log(table[[first, second]].dropna().to_numpy().T + 1)
        if len(a) == 0:
            continue
        near = np.log(within) * (1 + 1e-9)
        share = np.mean(np.abs(a - b) <= near)
        shuffled = generator.permuted(np.tile(b, (DRAWS, 1)), axis=1)
        chance = (np.abs(a - shuffled) <= near).mean(1)
        interval = stats.binomtest(round(share * len(a)), len(a)).proportion_ci(method="wilson")
        varies = len(a) >= 4 and np.ptp(a) > 0 and np.ptp(b) > 0
        rank = stats.spearmanr(a, b).statistic if varies else np.nan
        p = (1 + (chance >= share - 1e-12).sum()) / (1 + DRAWS)
        rows.append((first, second, len(a), share, interval.low, interval.high, chance.mean(), p, rank))
    columns = ["first", "second", "runs", "share", "low", "high", "chance", "p", "rank"]
    return pd.DataFrame(rows, columns=columns)

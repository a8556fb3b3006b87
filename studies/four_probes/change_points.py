"""When a measured series changes along training, and whether several change together."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

MOST_SEEDS = 6  # all orders of the seeds are enumerated
DRAWS = 2000  # of the number of pairs that stand out by chance
KNOWN = ["first", "second", "runs", "share", "chance", "p", "rank"]


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


def together(points: pd.DataFrame, *, within: float = 2.0) -> pd.DataFrame:
    """For each pair of quantities, how often both change within a factor `within` of step + 1, compared with chance.

    Runs of one seed share weights, batches and noise at all sigma, so whole seeds are exchanged: the chance level is
    the share when the runs of one quantity are compared with those of another order of the seeds, at the same sigma,
    and p the fraction of all orders (the true one included) with a share at least as large. Its smallest value is one
    over the number of orders.
    points: sigma, seed, quantity, step; within: 2, ours. Columns: first, second; runs, the number in which both change;
    share; chance, the mean over orders; p; rank, Spearman's correlation of the steps over runs (NaN below 4 runs).
    Raises ValueError for more than MOST_SEEDS seeds.
    """
    names, times = _times(points)
    rows = []
    for i, j in combinations(range(len(names)), 2):
        both = np.isfinite(times[i] + times[j])
        if not both.any():
            continue
        shares = _shares(times[i], times[j], within)
        a, b = times[i][both], times[j][both]
        varies = len(a) >= 4 and np.ptp(a) > 0 and np.ptp(b) > 0
        rank = stats.spearmanr(a, b).statistic if varies else np.nan
        rows.append((names[i], names[j], len(a), shares[0], np.nanmean(shares), _p(shares)[0], rank))
    return pd.DataFrame(rows, columns=KNOWN)


def number_by_chance(points: pd.DataFrame, *, within: float = 2.0, level: float = 0.05, seed: int = 0) -> np.ndarray:
    """How many pairs have p < level in `together` if each quantity has its seeds in a random order; DRAWS such numbers.

    All pairs are counted in the same draw, so that their dependence is kept.
    """
    names, times = _times(points)
    orders = _orders(times.shape[2])
    place = {tuple(order): k for k, order in enumerate(orders)}
    small = {}
    for i, j in combinations(range(len(names)), 2):
        if np.isfinite(times[i] + times[j]).any():
            small[i, j] = _p(_shares(times[i], times[j], within)) < level
    generator, inverse = np.random.default_rng(seed), np.argsort(orders, axis=1)
    counts = np.zeros(DRAWS, dtype=int)
    for draw in range(DRAWS):
        chosen = generator.integers(len(orders), size=len(names))
        for (i, j), found in small.items():  # j's order as seen from i
            counts[draw] += found[place[tuple(orders[chosen[j]][inverse[chosen[i]]])]]
    return counts


def smallest_p(points: pd.DataFrame) -> float:
    """The smallest p that `together` can give: one over the number of orders of the seeds."""
    return 1 / len(_orders(points["seed"].nunique()))


def _times(points: pd.DataFrame) -> tuple[list[str], Float[np.ndarray, "quantities sigmas seeds"]]:
    """ln(step + 1) of the changes; NaN for a run without one."""
    table = points.pivot(index=["sigma", "seed"], columns="quantity", values="step")
    sigmas, seeds = (table.index.get_level_values(name).unique() for name in ("sigma", "seed"))
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"points has {len(seeds)} seeds; at most {MOST_SEEDS} can be exchanged in all orders.")
    table = table.reindex(pd.MultiIndex.from_product([sigmas, seeds]))
    values = np.log(table.to_numpy(dtype=float) + 1).reshape(len(sigmas), len(seeds), -1)
    return list(table.columns), values.transpose(2, 0, 1)


def _orders(seeds: int) -> np.ndarray:
    """All orders of the seeds, the true one first."""
    return np.array(list(permutations(range(seeds))))


def _shares(a: np.ndarray, b: np.ndarray, within: float) -> Float[np.ndarray, " orders"]:
    """The share of runs in which both change together, for each order of b's seeds; NaN if no run has both."""
    apart = np.abs(a[:, None] - b[:, _orders(a.shape[1])])  # (sigmas, orders, seeds)
    there = np.isfinite(apart)
    near = (apart <= np.log(within) * (1 + 1e-9)) & there
    count = there.sum((0, 2))
    return np.where(count > 0, near.sum((0, 2)) / np.maximum(count, 1), np.nan)


def _p(shares: np.ndarray) -> np.ndarray:
    """For each order, the fraction of orders with a share at least as large; NaN without a share."""
    known = np.sort(shares[np.isfinite(shares)])
    return np.where(np.isfinite(shares), 1 - np.searchsorted(known, shares - 1e-12) / len(known), np.nan)

"""Paired comparisons of methods: differences between networks that share a seed, with intervals over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from studies.statistics import Interval, mean_interval

NULL = "other seed"  # the plain network of the next seed, as if it were a method


def by_network(tested: pd.DataFrame) -> pd.DataFrame:
    """Accuracy averaged over the strengths of each test: rows (method, seed), columns tests; tested: of `evaluate`.

    With a further method NULL: the plain network ("none") of the next seed, which differs from that of its own seed by
    chance alone.
    """
    table = tested.pivot_table(index=["method", "seed"], columns="test", values="accuracy", aggfunc="mean")
    plain = table.loc[["none"]]
    other = pd.DataFrame(np.roll(plain, 1, axis=0), plain.index, plain.columns)
    return pd.concat([table, other.rename({"none": NULL}, level=0)])


def difference(accuracy: pd.DataFrame, tests: Sequence[str], method: str, against: str = "none") -> Interval:
    """Accuracy of a method minus that of another, averaged over tests, paired by seed; accuracy: of `by_network`."""
    mean = accuracy[list(tests)].mean(axis=1)
    return mean_interval(mean[method] - mean[against])


def contrast(accuracy: pd.DataFrame, tests: Sequence[str], others: Sequence[str], method: str) -> Interval:
    """The share of the plain network's errors that a method of the same seed avoids, in some tests minus in others."""
    shares = []
    for group in (tests, others):
        mean = accuracy[list(group)].mean(axis=1)
        shares.append((mean[method] - mean["none"]) / (1 - mean["none"]))
    return mean_interval(shares[0] - shares[1])


def gains(accuracy: pd.DataFrame, groups: Mapping[str, Sequence[str]], methods: Sequence[str]) -> pd.DataFrame:
    """`difference` of each method and of NULL from "none", for each group of tests: tests, method, mean, low, high."""
    rows = []
    for name, tests in groups.items():
        for method in (*methods, NULL):
            found = difference(accuracy, tests, method)
            rows.append((name, method, found.mean, found.mean - found.half, found.mean + found.half))
    return pd.DataFrame(rows, columns=["tests", "method", "mean", "low", "high"])

"""Small tables for the figures of notebook 05."""

from functools import partial

import numpy as np
import pandas as pd

from studies.robust_learning import figures
from studies.robust_learning.comparisons import NULL

GROUPS = ("clean", "Gaussian noise", "attacks")


def tuning() -> pd.DataFrame:
    """Three networks for each method and strength; best is the middle strength."""
    rows = [
        (method, strength, seed, 0.95 - 0.01 * place - 0.002 * seed, 0.8 + 0.02 * place + 0.003 * seed, place == 1)
        for method in figures.LABELS for place, strength in enumerate((1.0, 10.0, 40.0)) for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "strength", "seed", "clean", "noisy", "best"])


def phases() -> pd.DataFrame:
    """A node that gains under noise in the catapult phase, at sigma = 40, and loses everything beyond it."""
    table = tuning().query("method in ('nin_input', 'nin_frozen')").drop(columns="best")
    table["phase"] = table["strength"].map({1.0: "decoupled", 10.0: "decay", 40.0: "catapult"})
    plain = pd.DataFrame({"method": "none", "strength": 0.0, "seed": range(3), "clean": 0.95, "noisy": 0.8})
    return pd.concat([plain, table], ignore_index=True)


def gains() -> pd.DataFrame:
    rows = [
        (group, method, 0.01 * place, 0.01 * place - 0.02, 0.01 * place + 0.03)
        for group in GROUPS for place, method in enumerate((*figures.LABELS, NULL))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["tests", "method", "mean", "low", "high"])


def law() -> pd.DataFrame:
    """Four networks whose ratios scatter around 1, for ReLU around 1.3."""
    sigma = np.geomspace(0.03, 10, 6)
    tables = []
    for activation, ratio in (("tanh", 1.0), ("softplus", 1.0), ("relu", 1.3)):
        for seed in range(4):
            off = ratio * (1 + 0.02 * (seed - 1.5))
            table = pd.DataFrame({"sigma": sigma, "rise_law": 0.1 * sigma**2, "pull_law": 0.2 * sigma**2})
            table = table.assign(rise=off * table["rise_law"], pull=off * table["pull_law"])
            tables.append(table.assign(activation=activation, seed=seed))
    return pd.concat(tables)


MADE = {
    "05a_tuning_fully_connected": (figures.tuning, tuning),
    "05c_quadratic_law": (figures.law, law),
    "05d_gains_fully_connected": (figures.gains, gains),
    "05e_phases_fully_connected": (partial(figures.phases, borders={"decay": 3.0, "catapult": 20.0}), phases),
}

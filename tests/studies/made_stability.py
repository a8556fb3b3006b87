"""Small tables for the figures of notebooks 06 and 07 that have not been saved at full size yet."""

import numpy as np
import pandas as pd

from studies.spatial_stability.claims import CHANNELS, D_FALLS, D_LOWER, SPACE, Claim
from studies.spatial_stability.claims import COLUMNS as CLAIM_COLUMNS

TASK = {
    "predicted": [{"k": k, "D": 2.0**-k - 1 / 16 if k < 4 else 0.0, "G": 0.3 + 0.1 * 2**k} for k in range(1, 6)],
    "shown": "task 2, ReLU",
    "scale": 4,
}


def size_and_noise() -> pd.DataFrame:
    draws, rows = np.random.default_rng(0), []
    for architecture in ("strided_gap", "lenet"):
        for seed in range(3):
            for count in (200, 600, 1800):
                rows.append(("size", architecture, count, 0.0, seed, *(draws.random(3) + 200 / count)))
    for architecture in ("strided_gap", "vgg_gap"):
        for seed in range(3):
            for level in (0.0, 1.0, 3.0):
                rows.append(("noise", architecture, 1800, level, seed, *(0.5 + draws.random(3))))
    return pd.DataFrame(rows, columns=["study", "architecture", "n_train", "noise", "seed", "D", "G", "R"])


def claims() -> pd.DataFrame:
    """Four claims on two networks, at two layers or for the filters."""
    rows = []
    for text, side in ((D_FALLS, -1), (D_LOWER, -1), (CHANNELS, 1)):
        for number, architecture in enumerate(("strided", "vgg9")):
            for at, size in (("last hidden", 0.9), ("output", 0.5)):
                ratios = (size + 0.1 * number) ** -side * np.array([0.9, 1.0, 1.15])
                rows.append(Claim(text, architecture, at, side, ratios, "made", np.array([1.1, 0.9, 1.0])).row())
    rows.append(Claim(SPACE, "vgg9", "filters", 1, np.array([1.4, 1.5, 1.6])).row())
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


def amplitudes() -> pd.DataFrame:
    rows = []
    for net, values in (("linear", (0.1, 10.0)), ("tanh", (0.1, 1.0, 10.0)), ("relu", (0.1, 10.0))):
        for amplitude in values:
            for k in (1, 2, 3):
                G = {"linear": 1.0, "tanh": 1 + amplitude, "relu": 0.5 * k}[net]
                rows.append((net, amplitude, k, 1.01 * G, G if net != "tanh" or k == 1 else np.nan))
    return pd.DataFrame(rows, columns=["net", "amplitude", "k", "measured", "predicted"])


def trained() -> pd.DataFrame:
    rows = []
    for case, off in (("task 2, ReLU", 0.004), ("task 2, tanh", 0.2)):
        for seed in range(3):
            for law in TASK["predicted"]:
                constant = law["D"] * (1 + 0.05 * seed)
                D = constant + off * (1 + seed / 10)
                rows.append((case, seed, law["k"], D, law["G"] * (1 - 0.02 * seed), constant))
    return pd.DataFrame(rows, columns=["case", "seed", "k", "D", "G", "D_constant"])

"""Small tables for the figures of notebooks 06 and 07 that have not been saved at full size yet."""

import numpy as np
import pandas as pd

from studies.spatial_stability.claims import CHANNELS, D_FALLS, D_LOWER, SPACE, Claim
from studies.spatial_stability.claims import COLUMNS as CLAIM_COLUMNS


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

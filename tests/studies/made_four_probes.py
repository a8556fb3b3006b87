"""Small tables for the figures of notebook 10."""

from functools import partial

import numpy as np
import pandas as pd

from studies.four_probes import figures, measure

QUANTITIES = {"lambda": "curvature at the node", "effective_rank": "feature rank", "mean_order": "mean order", "R": "R"}


def pairs() -> pd.DataFrame:
    """All pairs of the quantities of notebook 10, some of which stand out, or have no rank correlation."""
    names = list(measure.MAIN.values())
    rows = [
        (first, second, 0.5 + 0.02 * i, 0.4, 0.04 if (i + j) % 5 == 0 else 0.3, np.nan if j == 12 else (j - i) / 13)
        for i, first in enumerate(names) for j, second in enumerate(names) if i < j
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["first", "second", "share", "chance", "p", "rank"])


def diagram() -> pd.DataFrame:
    """Two seeds over three noise scales and two learning rates; one run of the strongest noise diverged."""
    rows = []
    for quantity in QUANTITIES:
        for j, lr in enumerate((0.01, 0.1)):
            for i, (sigma, phase) in enumerate(((0.3, "decoupled"), (6.0, "decay"), (100.0, "catapult"))):
                for seed in (0, 1):
                    gone = (i, j, seed) == (2, 1, 1)
                    value = np.nan if gone else 1 + i + 0.1 * j + 0.02 * seed
                    rows.append((sigma, lr, seed, "divergent" if gone else phase, lr * sigma, quantity, value))
    return pd.DataFrame(rows, columns=["sigma", "lr", "seed", "phase", "kappa_1", "quantity", "value"])


MADE = {
    "10d_together": (figures.together, pairs),
    "10e_coloured": (partial(figures.coloured, quantities=QUANTITIES), diagram),
}

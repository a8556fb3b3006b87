"""Figures that have not been saved at full size yet, each with a small table that its function can draw."""

from functools import partial

import pandas as pd

from studies.phase_sweep import figures as sweep

LINES = {
    "sigma": [0.1, 1.0, 100.0], "decay": [0.5, 0.05, 0.004],
    "catapult": [0.5, 0.5, 0.02], "divergent": [1.5, 1.5, 0.06],
}  # fmt: skip


def phase_map() -> pd.DataFrame:
    """Four noise scales by three learning rates, the highest of which plain SGD does not survive."""
    phases = [["decoupled", "decay", "decay", "catapult"], ["decoupled", "decay", "growing", "divergent"],
              ["decoupled", "decay", "catapult", "divergent"]]  # fmt: skip
    rows = [
        (lr, sigma, phases[i][j], (1 + (i + j) % 3) / 3, ("stable", "stable", "spikes")[i])
        for i, lr in enumerate((0.01, 0.1, 1.0)) for j, sigma in enumerate((0.1, 1.0, 10.0, 100.0))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["lr", "sigma", "phase", "agree", "plain"])


MADE = {
    "02c_phase_map": (partial(sweep.phase_map, borders=LINES, rival=LINES), phase_map),
}

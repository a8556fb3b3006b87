"""Catches: a fraction of spikes or survivors that is not that of the borders, and a spread that hides outliers."""

import numpy as np
import pandas as pd
import pytest

from studies.phase_borders import collapse

# kappa_1 at the onset 1, 2, 4, 8; divergence at four times that, not reached in the last case; plain SGD is left out.
BORDERS = pd.DataFrame(
    {
        "case": ["a", "a", "b", "b", "c"], "group": ["g", "g", "h", "h", "h"], "own": [False] * 4 + [True],
        "one_step": 1.0, "kappa_H": [0.1, 1.0, 10.0, np.nan, 1.0],
        "onset": [0.5, 1.0, 2.0, 4.0, 1.0], "divergence": [2.0, 4.0, 8.0, np.nan, 9.0],
    }
)  # fmt: skip


def test_fractions_are_those_of_the_borders():
    table = collapse.in_units(BORDERS)
    found = collapse.fractions(table, [0.9, 2.0, 5.0, 1e3], generator=np.random.default_rng(0))
    of = found.set_index(["control", "what"])["fraction"]
    assert of["kappa_1", "spikes"].tolist() == [0, 0.5, 0.75, 1]
    assert of["kappa_1", "survives"].tolist() == [1, 1, 0.75, 0.25]  # the one that is not reached survives everywhere
    assert of["kappa_H", "spikes"].to_numpy() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1])
    assert (found["low"] <= found["fraction"]).all() and (found["fraction"] <= found["high"]).all()
    at_five = found[(found["control"] == "kappa_1") & (found["what"] == "spikes") & (found["kappa"] == 5)].iloc[0]
    assert (at_five["low"], at_five["high"]) == (0.5, 1)  # both cases a, or both cases b


def test_spread_is_that_of_the_middle_runs():
    kappa = np.r_[0.001, np.geomspace(1, 4, 18), 1000]
    table = pd.DataFrame({"control": "kappa_1", "border": "onset", "kappa": kappa})
    assert collapse.spread(table, "kappa_1", "onset") == pytest.approx(kappa[17] / kappa[2], rel=0.2)
    assert collapse.spread(table.assign(kappa=2.0), "kappa_1", "onset") == 1

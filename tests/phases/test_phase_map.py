"""Catches: boundaries off by a grid point, and votes that ignore seeds."""

import numpy as np
import pandas as pd
import pytest

from nin.phases import boundaries, majority, representatives

SIGMA = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
PHASE = ["decoupled", "decoupled", "decay", "decay", "decay", "catapult", "divergent"]
MAP = pd.DataFrame({"sigma": SIGMA, "phase": PHASE})


def test_majority_over_seeds():
    runs = pd.DataFrame({"sigma": [1, 1, 1, 2, 2], "phase": ["decay", "decay", "catapult", "decay", "catapult"]})
    assert majority(runs)["phase"].tolist() == ["decay", "catapult"]
    assert list(majority(runs.assign(lr=0.1), ["lr", "sigma"]).columns) == ["lr", "sigma", "phase"]


def test_boundaries_and_representatives():
    expected = {"decay": np.sqrt(8), "catapult": np.sqrt(512), "divergent": np.sqrt(2048)}
    assert boundaries(MAP.sample(frac=1, random_state=0)) == pytest.approx(expected)
    assert representatives(MAP) == {"decoupled": 2, "decay": 8, "catapult": 32, "divergent": 64}

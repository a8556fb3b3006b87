"""Catches: a followed run whose expected loss, and hence phase, is not that of `nin.train`."""

import numpy as np
import pytest

from nin import RunConfig, train
from nin.phases import criteria
from studies.curvature_probe.follow import follow


@pytest.mark.parametrize(("sigma", "phase"), [(0.5, "decoupled"), (80.0, "catapult"), (1e4, "divergent")])
def test_a_followed_run_has_the_phase_of_the_trained_one(blobs, sigma, phase):
    config = RunConfig(widths=(8, 8), sigma=sigma, steps=60, batch_size=32, lr=0.02, dtype="float64", seed=1)
    seen = follow(config, data=blobs, every=None)
    trained = train([config], data=blobs)
    both = seen.losses.merge(trained.frame(), on="step", suffixes=("", "_trained"))
    early = both[(both["step"] <= 50) & both["expected_loss"].notna() & (both["expected_loss"] < 1e3)]
    for name in ("expected_loss", "ratio_stderr"):
        np.testing.assert_allclose(early[name], early[f"{name}_trained"], rtol=1e-6, atol=1e-12)
    found = criteria(seen.losses.assign(plain_spike=trained.plain_spike[0]))
    assert found.expected and found.plain == "stable"
    assert found.phase == criteria(trained.table(0)).phase == phase
    assert len(early) == (21 if phase != "divergent" else len(early))


def test_without_a_node_there_is_an_expected_loss_too(blobs):
    """It is the clean loss of the fixed samples: plain training, which a twin shows."""
    config = RunConfig(widths=(8, 8), nodes=0, steps=50, batch_size=32, lr=0.02, dtype="float64", seed=1)
    losses = follow(config, data=blobs, every=None).losses
    assert losses["expected_loss"].notna().sum() == 21
    twin = train([config.replace(nodes=1, sigma=3.0)], data=blobs).plain_spike[0]
    found = losses["expected_loss"].dropna().to_numpy()
    assert found[1:].max() / found[0] == pytest.approx(twin, rel=1e-9)

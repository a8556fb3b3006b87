"""Catches: a followed run whose expected loss, and hence phase, is not that of `nin.train`; a
learning rate that a reading does not keep below its bound."""

import numpy as np
import pytest
import torch

from nin import RunConfig, load_data, train
from nin.phases import criteria
from nin.probes.curvature import Reading
from studies.curvature_probe.follow import follow
from studies.curvature_probe.sharpening import bounded_rate, sharpen


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


def test_a_bounded_rate_keeps_kappa_below_the_bound():
    """kappa = eta sigma^2 (lambda + stderr) is the bound, unless the largest rate is lower or lambda negative."""
    reading = Reading(torch.tensor([0.3, 0.1]), torch.tensor([0.1, 0.1]), torch.eye(2))
    assert bounded_rate(reading, sigma=2.0, bound=1.0, largest=9.0) == pytest.approx(1 / (4 * 0.4))
    assert bounded_rate(reading, sigma=2.0, bound=1.0, largest=0.1) == 0.1
    first = Reading(torch.tensor([0.5]), torch.tensor([torch.nan]), torch.eye(1))
    assert bounded_rate(first, sigma=1.0, bound=1.0, largest=9.0) == pytest.approx(2.0)
    flat = Reading(torch.tensor([-0.2]), torch.tensor([0.1]), torch.eye(1))
    assert bounded_rate(flat, sigma=1.0, bound=1.0, largest=9.0) == 9.0
    with pytest.raises(ValueError, match=r"sigma=0"):
        bounded_rate(reading, sigma=0.0, bound=1.0, largest=9.0)


@pytest.mark.slow
def test_a_live_reading_follows_sharpening_and_bounds_the_rate():
    """Against Lanczos on all samples; the rival, the value at the start, is off and breaks the bound."""
    data = load_data("digits")
    live, start = (
        sharpen("convolutional", data, rule=rule, sigma=8.0, steps=60, looks=3).dropna() for rule in ("live", "start")
    )
    assert (live["value"] / live["exact"] - 1).abs().max() < 0.1
    assert (64 * live["eta"] * live["exact"]).max() < 1.1 < (64 * start["eta"] * start["exact"]).max()
    assert start["eta"].nunique() == 1 < live["eta"].nunique()

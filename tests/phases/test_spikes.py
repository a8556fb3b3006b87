"""Catches: batch scatter that passes for a spike, a spike lost in it, an error bar that does not cover, a spike of
plain SGD that is called the node's, a frozen or growing node under a wrong label."""

import numpy as np
import pandas as pd
import pytest

from nin.phases import classify, criteria
from nin.phases.spikes import batch_spike, expected_spike

STEPS = np.concatenate([np.arange(51), np.arange(60, 301, 10)])
FALLING = np.exp(-STEPS / 300)
FROZEN = np.ones(len(STEPS))
BUMP = np.exp(-((STEPS - 4) ** 2) / 8)


def run(loss=FALLING, niw=FROZEN, **columns):
    return pd.DataFrame({"step": STEPS, "noisy_loss": loss, "niw_norm": niw} | columns)


def expected(ratio, stderr=0.02, **columns):
    return run(expected_loss=2.5 * ratio, ratio_stderr=np.full(len(STEPS), stderr), **columns)


def test_expected_spike_is_the_highest_value_after_the_start_with_its_error():
    loss, stderr = np.array([2.0, 1.0, 5.0, 3.0, 40.0]), np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    spike = expected_spike(np.array([0, 1, 2, 5, 60]), loss, stderr, window=50)
    assert (spike.ratio, spike.stderr) == (2.5, 0.2)
    gaps = np.array([2.0, np.nan, 5.0, np.nan, 40.0])
    assert expected_spike(np.arange(5) * 10, gaps, stderr, window=30) == spike
    assert np.isnan(expected_spike(np.array([0, 60]), loss[:2], stderr[:2], window=50).ratio)
    for last, ratio in ((0.0, 1.0), (1.0, np.inf)):
        assert expected_spike(np.arange(2), np.array([0.0, last]), stderr[:2], window=50).ratio == ratio
    assert expected_spike(np.array([0, 1]), np.array([1.0, np.inf]), stderr[:2], window=50).ratio == np.inf


@pytest.mark.parametrize("scatter", [0.02, 0.2, 0.5])
def test_batch_scatter_is_found_from_the_table_itself(scatter):
    """200 calm tables: the stated error is that of the ratio, and no table spikes by more than 3.5 errors."""
    random = np.random.default_rng(0)
    tables = FALLING * np.exp(scatter * random.normal(size=(400, len(STEPS))))
    spikes = [batch_spike(STEPS.astype(float), loss, window=50) for loss in tables]
    stated = np.array([spike.stderr / spike.ratio for spike in spikes])
    averages = np.sqrt(1 + 1 / np.array([1, 8]))  # of one batch, of eight
    assert scatter * averages[1] * 0.9 < np.median(stated) < scatter * averages[0] * 1.1
    assert np.mean([classify(run(loss)) == "catapult" for loss in tables]) <= 0.01
    if scatter > 0.1:  # the rival: the highest batch
        assert np.mean([loss[1:51].max() / loss[0] > 1.05 for loss in tables]) > 0.8


@pytest.mark.parametrize(("height", "scatter"), [(0.5, 0.02), (6.0, 0.2)])
def test_a_spike_above_the_scatter_is_found(height, scatter):
    random = np.random.default_rng(1)
    bump = np.exp(-((STEPS - 8) ** 2) / 8)
    tables = FALLING * (1 + height * bump) * np.exp(scatter * random.normal(size=(100, len(STEPS))))
    assert np.mean([classify(run(loss)) == "catapult" for loss in tables]) >= 0.95


def test_the_size_of_the_node_helps_where_the_loss_scatters():
    random = np.random.default_rng(2)
    tables = FALLING * (1 + 0.6 * BUMP) * np.exp(0.15 * random.normal(size=(100, len(STEPS))))
    found = [np.mean([classify(run(loss, niw)) == "catapult" for loss in tables]) for niw in (1 + 0 * BUMP, 1 + BUMP)]
    assert found[0] < 0.6 < 0.9 < found[1]


@pytest.mark.parametrize(
    ("phase", "height", "stderr"),
    [("catapult", 0.2, 0.05), ("decoupled", 0.2, 0.25), ("decoupled", 0.04, 0.001), ("catapult", 0.08, 0.001)],
)
def test_an_expected_spike_must_exceed_the_limit_and_its_error(phase, height, stderr):
    assert classify(expected(1 - 0.1 * (STEPS > 0) + (0.1 + height) * (STEPS == 4), stderr)) == phase


def test_the_expected_loss_decides_where_it_is_recorded():
    """With its error: without one, the batches decide."""
    loud = FALLING * (1 + 3 * BUMP)
    assert classify(run(loud)) == classify(run(loud, expected_loss=FALLING)) == "catapult"
    assert classify(expected(FALLING).assign(noisy_loss=loud)) == "decoupled"


@pytest.mark.parametrize(
    ("plain_spike", "phase", "plain"),
    [(1.0, "catapult", "stable"), (1.2, "catapult", "spikes"), (1.6, "decoupled", "spikes"),
     (9.0, "decoupled", "spikes"), (np.inf, "decoupled", "diverges"), (np.nan, "catapult", "unknown")],
)  # fmt: skip
def test_a_spike_of_plain_training_is_not_a_catapult(plain_spike, phase, plain):
    frame = expected(FALLING * (1 + 1.1 * BUMP), plain_spike=plain_spike)
    assert (classify(frame), criteria(frame).plain) == (phase, plain)


def test_a_node_that_grows_without_a_spike_is_in_none_of_the_phases():
    assert classify(expected(FALLING, niw_norm=1 + STEPS / 300)) == "growing"
    assert classify(expected(FALLING, niw_norm=1 + STEPS / 6000)) == "decoupled"


@pytest.mark.parametrize(
    ("niw", "phase"),
    [
        (np.where(STEPS < 9, 1 + STEPS, 9.0), "divergent"),  # dead: grew, and no longer moves
        (np.where(STEPS < 9, 1 + STEPS, 9.0 + 0.05 * np.sin(STEPS)), "catapult"),  # still learning
        (np.full(len(STEPS), 1 + 3e-7), "catapult"),  # frozen where it started
        (np.where(STEPS < 9, 1 + STEPS, 7.0), "catapult"),  # came down again
    ],
)
def test_only_a_dead_network_has_collapsed(niw, phase):
    assert classify(expected(FALLING * (1 + 3 * BUMP), niw_norm=niw)) == phase


@pytest.mark.parametrize(("optimizer", "phase"), [("sgd", "decoupled"), ("adam", "decay")])
def test_the_fall_due_to_weight_decay_is_divided_out(optimizer, phase):
    """With SGD the factor is known in closed form; Adam rescales it, and the table does not say how."""
    shrunk = (1 - 0.1 * 0.05) ** STEPS
    frame = expected(FALLING, niw_norm=shrunk, weight_decay=0.05, lr=0.1, momentum=0.0, optimizer=optimizer)
    assert classify(frame) == phase
    assert classify(frame.assign(niw_norm=shrunk * np.exp(-STEPS / 500))) == "decay"


def test_certainty_is_the_chance_of_the_same_label():
    """Against 4000 repetitions with normal errors, for a catapult near the limit and a node near kept = 0.9."""
    random = np.random.default_rng(3)
    sure = criteria(expected(1 - 0.1 * (STEPS > 0) + 0.28 * (STEPS == 4), 0.1 / 1.5))
    again = np.mean(sure.spike + sure.spike_stderr * random.normal(size=4000) > 1.05)
    assert sure.phase == "catapult" and sure.certainty == pytest.approx(again, abs=0.02)
    tail = 0.92 + 0.02 * random.normal(size=len(STEPS))
    sure = criteria(expected(FALLING, niw_norm=np.where(STEPS == 0, 1, tail)))
    again = np.mean(sure.kept + sure.kept_stderr * random.normal(size=4000) > 0.9)
    assert sure.phase == "decoupled" and sure.certainty == pytest.approx(again, abs=0.02)
    assert criteria(run(np.where(STEPS < 20, FALLING, np.inf))).certainty == 1

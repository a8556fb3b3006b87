"""Catches: a memory that lags behind a jump, shortens without a cause, or misstates its variance."""

import numpy as np
import pytest
from scipy.linalg import hadamard

from nin.probes.curvature.ladder import TREND_FROM, Ladder

ALL = np.ones(4)


def groups(reading, noise):
    """Eight groups of mean `reading`, with the scatter of independent numbers: `noise` is the variance of the mean."""
    return reading + (7 * noise) ** 0.5 * hadamard(8)[:, 1 : 1 + len(reading)]


def fed(readings, memory=16, noise=1.0):
    ladder = Ladder(memory, len(readings[0]))
    for reading in readings:
        ladder.add(groups(reading, noise), np.ones(len(reading)))
    return ladder


def scattered(rng, count, level=10.0):
    return level + rng.standard_normal((count, 4))


def test_memories_are_powers_of_two_up_to_the_longest():
    assert Ladder(16, 1).memories.tolist() == [1, 2, 4, 8, 16]
    assert Ladder(10, 1).memories.tolist() == [1, 2, 4, 8, 10]
    assert Ladder(1, 1).memories.tolist() == [1]


def test_noise_is_the_scatter_of_the_groups():
    ladder = fed([np.array([3.0, 1.0, 2.0, 5.0])], noise=0.3)
    np.testing.assert_allclose(ladder.means, [[3, 1, 2, 5]] * 5)
    np.testing.assert_allclose(ladder._noise, 0.3)
    assert ladder._sum_noise == pytest.approx(4 * 0.3)


def test_covariance_is_that_of_the_averages_of_white_noise():
    """Against the weights of every reading in each average, from one reading of 1 followed by zeros; no draws."""
    count, weights = 12, []
    for k in range(count):
        ladder = fed(np.eye(count)[k][:, None], memory=8)
        weights.append(np.concatenate([ladder.means[:, 0], ladder._slow[:, 0]]))
    weights = np.array(weights)  # (readings, 2 rungs)
    np.testing.assert_allclose(ladder._covariance, weights.T @ weights, atol=1e-14)
    _, covariance = ladder._sums(np.ones(1))
    corrected = np.where(ladder.memories >= TREND_FROM, 2 * weights[:, :4] - weights[:, 4:], weights[:, :4])
    np.testing.assert_allclose(covariance, corrected.T @ corrected, atol=1e-14)


@pytest.mark.parametrize("growth", [-0.02, 0.01])
def test_an_exponential_is_read_without_lag(growth):
    """The rivals: the plain average, and 2a - b, which a decay of 2 % a reading leaves 9 % too low."""
    truth = np.exp(growth * np.arange(600))
    ladder = fed(np.outer(truth, ALL), noise=1e-3)
    mean, slow = ladder.means[4].sum(), ladder._slow[4].sum()
    assert ladder.trend(4, ALL) * mean == pytest.approx(4 * truth[-1], rel=1e-9)
    assert abs(mean / (4 * truth[-1]) - 1) > 0.1
    assert abs((2 * mean - slow) / (4 * truth[-1]) - 1) > 0.015


def test_memory_is_long_where_nothing_moves_shorter_after_a_step_and_forgotten_after_a_jump():
    """The rival, the longest memory without a choice, is off by most of the step."""
    long, short, jumps, off, rival = [], [], [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        still = scattered(rng, 40)
        long.append(fed(still).choose(ALL) == 4)
        stepped = fed(np.concatenate([still, scattered(rng, 4, level=13)]))
        rung = stepped.choose(ALL) or 0
        short.append(rung < 4)
        off.append(abs(stepped.trend(rung, ALL) * stepped.means[rung].mean() - 13))
        rival.append(abs(stepped.means[4].mean() - 13))
        jumps.append(fed(np.concatenate([still, scattered(rng, 1, level=30)])).choose(ALL) is None)
    assert np.mean(long) > 0.9 and np.mean(short) > 0.9 and all(jumps)
    assert np.median(off) < 1 < 2 < np.median(rival)


@pytest.mark.slow
@pytest.mark.parametrize("wander", [0.0, 0.5])
def test_variance_covers_numbers_that_stand_still_or_wander(wander):
    """Two thirds within one standard error; without the excess of the innovations wandering numbers are not covered."""
    scores, rival = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = 20 + wander * rng.standard_normal((60, 4)).cumsum(0)
        ladder = fed(truth + rng.standard_normal((60, 4)))
        rung = ladder.choose(ALL)
        error = ladder.means[rung] - truth[-1]
        scores.append(error / np.sqrt(ladder.variance(rung, ladder.means[rung], ALL)))
        rival.append(error / np.sqrt(ladder._covariance[rung, rung] * ladder._noise))
    within, without = (np.mean(np.abs(np.concatenate(part)) < 1) for part in (scores, rival))
    assert 0.55 < within < 0.85
    if wander:
        assert without < 0.5


def test_restart_forgets_the_readings():
    ladder = fed(scattered(np.random.default_rng(0), 30))
    ladder.restart()
    ladder.add(groups(np.full(4, 3.0), 1.0), ALL)
    np.testing.assert_allclose(ladder.means, 3.0, rtol=1e-14)
    assert ladder.choose(ALL) == 4


def test_a_network_without_curvature_reads_zero():
    ladder = fed(np.zeros((5, 4)), noise=0.0)
    assert ladder.choose(ALL) == 4 and not ladder.means.any()
    np.testing.assert_array_equal(ladder.variance(4, np.zeros(4), ALL), 0)

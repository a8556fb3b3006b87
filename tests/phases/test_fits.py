"""Catches: a decay time off by a factor, an error bar that is too small, a decay where nothing decays."""

import numpy as np
import pytest

from nin.phases import fit_decay

STEPS = np.concatenate([np.arange(51), np.arange(60, 1001, 10)])


@pytest.mark.parametrize("sign", [1, -1])
def test_fit_of_one_exponential_is_exact(sign):
    fit = fit_decay(STEPS, sign * 3 * np.exp(-STEPS / 70))
    assert fit.tau == pytest.approx(70, rel=1e-9)
    assert fit.r2 == pytest.approx(1) and not fit.several_rates


def test_fit_begins_at_the_peak_and_ends_at_the_floor():
    values = np.where(STEPS < 10, np.exp(STEPS / 10), np.exp(1 - (STEPS - 10) / 50)) + 1e-6
    fit = fit_decay(STEPS, values)
    assert fit.tau == pytest.approx(50, rel=0.02)
    assert fit.window[0] == 10 and fit.window[1] < 1000


def test_fit_recovers_tau_and_its_error_under_noise():
    """200 noisy copies: the mean of tau within its error, and the stated stderr near the scatter."""
    random = np.random.default_rng(0)
    steps = np.arange(0, 300, 2)
    fits = [fit_decay(steps, np.exp(-steps / 100 + 0.05 * random.normal(size=150))) for _ in range(200)]
    taus = np.array([fit.tau for fit in fits])
    assert taus.mean() == pytest.approx(100, rel=0.01)
    assert np.mean([fit.stderr for fit in fits]) == pytest.approx(taus.std(), rel=0.3)


def test_several_rates_are_reported():
    fit = fit_decay(STEPS, 0.9 * np.exp(-STEPS / 20) + 0.1 * np.exp(-STEPS / 400))
    assert fit.several_rates and fit.late > 2 * fit.early


def test_no_decay_is_an_infinite_tau():
    for values in (np.ones(len(STEPS)), np.exp(STEPS / 100)):
        assert fit_decay(STEPS, values).tau == np.inf
    with pytest.raises(ValueError, match="values has no finite number other than 0"):
        fit_decay(STEPS, np.zeros(len(STEPS)))
    with pytest.raises(ValueError, match="must be one-dimensional and of equal length"):
        fit_decay(STEPS, np.ones(3))

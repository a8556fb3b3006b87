"""Catches: a decay time off by a factor, an error bar too small, a floor that lengthens tau, a decay of noise."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from benchmarks.decay import noise, straight_line
from nin.phases import fit_decay
from nin.phases.residuals import correlated

STEPS = np.concatenate([np.arange(51), np.arange(60, 1001, 10)])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("floor", [0, 1e-6, 0.01, 0.5, 3])
def test_fit_of_one_exponential_is_exact(sign, floor):
    fit = fit_decay(STEPS + 7, sign * (3 * np.exp(-STEPS / 70) + floor))
    assert fit.tau == pytest.approx(70, rel=1e-7)
    assert (fit.amplitude, fit.floor) == pytest.approx((3, floor), rel=1e-6, abs=1e-9)
    assert fit.r2 == pytest.approx(1) and not fit.several_rates
    assert (fit.early, fit.late) == pytest.approx((70, 70), rel=1e-4)
    assert fit.low <= fit.tau * (1 + 1e-12) and fit.tau <= fit.high * (1 + 1e-12) and fit.window == (7, 1007)


def test_fit_follows_hundreds_of_e_foldings():
    for rate in (0.9, 0.03):
        assert fit_decay(np.arange(301), np.exp(-2.0 * rate * np.arange(301))).tau == pytest.approx(
            0.5 / rate, rel=1e-9
        )
    rounded = np.exp(-2.3 * np.arange(301)) + 1e-15 * np.abs(noise(np.arange(301), 0, 1, np.random.default_rng(0))[0])
    assert fit_decay(np.arange(301), rounded).tau == pytest.approx(1 / 2.3, rel=0.05)


def test_fit_begins_at_the_peak():
    values = np.where(STEPS < 10, np.exp(STEPS / 10), np.exp(1 - (STEPS - 10) / 50)) + 1e-6
    fit = fit_decay(STEPS, values)
    assert fit.tau == pytest.approx(50, rel=1e-3) and fit.window[0] == 10


def test_fit_ends_before_growth():
    values = np.exp(-STEPS / 40) + 0.05 + 0.5 * np.maximum(STEPS - 500, 0) / 500
    fit = fit_decay(STEPS, values * np.exp(0.02 * noise(STEPS, 0, 1, np.random.default_rng(0))[0]))
    assert fit.tau == pytest.approx(40, rel=0.05) and fit.window[1] < 600


def test_fit_is_that_of_scipy_if_no_residual_is_an_outlier():
    """Uniform noise has no tails: all weights are 1."""
    logs = np.log(np.exp(-STEPS / 120) + 0.1) + np.random.default_rng(1).uniform(-0.1, 0.1, len(STEPS))
    reference, covariance = curve_fit(
        lambda t, a, tau, c: np.log(a * np.exp(-t / tau) + c), STEPS, logs, p0=(1, 100, 0.1), xtol=1e-12, ftol=1e-12
    )
    fit = fit_decay(STEPS, np.exp(logs))
    assert (fit.amplitude, fit.tau, fit.floor) == pytest.approx(tuple(reference), rel=1e-5)
    assert fit.stderr == pytest.approx(np.sqrt(covariance[1, 1]), rel=0.15)


def test_correlated_errors_against_dense_matrices():
    """The naive twin: V, its determinant and inverse in full, for each length."""
    random = np.random.default_rng(2)
    steps, weights = STEPS[30:80].astype(float), random.uniform(0.5, 1, 50)
    X = np.stack([np.ones(50), steps / 100, np.exp(-steps / 60)])
    y = noise(steps, 0.9, 1, random)[0] + X.T @ (1, 2, 3)
    A, z = X * weights, y * weights
    bread = np.linalg.inv(A @ A.T)
    r = y - X.T @ (bread @ A @ z)
    lengths = 2 * np.ptp(steps) / 2 ** np.arange(0, np.log2(2 * np.ptp(steps)) + 2, 0.5)
    likelihoods, covariances = [], []
    for length in lengths:
        V = np.exp(-np.abs(np.subtract.outer(steps, steps)) / length)
        inverse = np.linalg.inv(V)
        information = A @ inverse @ A.T
        residual = z - A.T @ np.linalg.solve(information, A @ inverse @ z)
        square = residual @ inverse @ residual
        determinants = np.linalg.slogdet(V)[1] + np.linalg.slogdet(information)[1]
        likelihoods.append(-determinants / 2 - 47 / 2 * np.log(square))
        covariances.append(square / 47 * bread @ A @ V @ A.T @ bread)
    chance = np.exp(np.array(likelihoods) - max(likelihoods))
    expected = np.tensordot(chance / chance.sum(), covariances, 1)
    found = correlated(steps, r, X, weights)
    assert found.covariance == pytest.approx(expected, rel=1e-4)
    assert found.length == pytest.approx(lengths[int(np.argmax(likelihoods))])


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_correlated_mean_has_the_effective_sample_size(rho):
    steps, random = np.arange(4000.0), np.random.default_rng(3)
    ones = np.ones(4000)
    variances = [correlated(steps, r - r.mean(), ones[None], ones) for r in noise(steps, rho, 5, random)]
    found = np.mean([errors.covariance[0, 0] for errors in variances])
    assert found == pytest.approx((1 + rho) / (1 - rho) / 4000, rel=0.15)
    means = noise(steps[:400], rho, 2000, random).mean(1)
    assert means.var() == pytest.approx((1 + rho) / (1 - rho) / 400, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tau", "floor", "rho"), [(150, 0.0, 0.95), (150, 0.05, 0.0), (150, 0.2, 0.95), (150, 0.5, 0.8)]
)
def test_bias_and_coverage(tau, floor, rho):
    """50 noisy curves: tau within 2 %, 95 % intervals cover 88 to 100 %, stderr near the scatter; a line fails."""
    curves = (np.exp(-STEPS / tau) + floor) * np.exp(0.05 * noise(STEPS, rho, 50, np.random.default_rng(4)))
    fits, lines = ([method(STEPS, values) for values in curves] for method in (fit_decay, straight_line))
    taus = np.array([fit.tau for fit in fits])
    assert taus.mean() == pytest.approx(tau, rel=0.02)
    assert np.mean([fit.low <= tau <= fit.high for fit in fits]) >= 0.88
    assert taus.std() < 1.5 * np.mean([fit.stderr for fit in fits]) < 3 * taus.std()
    assert np.mean([fit.several_rates for fit in fits]) <= 0.02
    assert np.mean([line.low <= tau <= line.high for line in lines]) < 0.6


@pytest.mark.slow
def test_interval_of_an_unfinished_decay_admits_a_floor():
    """Within one tau, a floor of 10 % is not visible, and tau can only be bounded."""
    curves = (np.exp(-STEPS / 1000) + 0.1) * np.exp(0.05 * noise(STEPS, 0.5, 40, np.random.default_rng(5)))
    fits = [fit_decay(STEPS, values) for values in curves]
    assert np.mean([fit.low <= 1000 <= fit.high for fit in fits]) >= 0.88
    assert np.median([fit.low for fit in fits]) < 900 < 1000 < np.median([fit.high for fit in fits])


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_flat_curve_has_no_tau(rho):
    curves = np.exp(0.003 * noise(STEPS, rho, 100, np.random.default_rng(6)))
    assert np.mean([np.isfinite(fit_decay(STEPS, values).tau) for values in curves]) <= 0.01
    assert np.mean([np.isfinite(straight_line(STEPS, values).tau) for values in curves]) > 0.5


def test_several_rates_are_reported_and_a_floor_is_not():
    random = np.random.default_rng(7)
    for size in (0, 0.05):
        two = (0.9 * np.exp(-STEPS / 20) + 0.1 * np.exp(-STEPS / 400)) * np.exp(size * noise(STEPS, 0, 1, random)[0])
        fit = fit_decay(STEPS, two)
        assert fit.several_rates and fit.late > 2 * fit.early
    for floor in (0.01, 0.1, 0.5):
        fit = fit_decay(STEPS, (np.exp(-STEPS / 100) + floor) * np.exp(0.05 * noise(STEPS, 0, 1, random)[0]))
        assert not fit.several_rates


def test_fit_ignores_what_was_not_measured_and_outliers():
    values = (np.exp(-STEPS / 70) + 0.1) * np.exp(0.02 * noise(STEPS, 0, 1, np.random.default_rng(8))[0])
    clean = fit_decay(STEPS, values)
    holes = np.insert(values, [3, 30, 60], [np.nan, 0, np.inf])
    assert fit_decay(np.insert(STEPS, [3, 30, 60], [3, 30, 60]), holes) == clean
    spiky = np.where(np.isin(np.arange(len(STEPS)), [40, 70, 100]), values / 20, values)
    assert fit_decay(STEPS, spiky).tau == pytest.approx(clean.tau, rel=0.02)


def test_no_decay_is_an_infinite_tau():
    for values in (np.ones(len(STEPS)), np.exp(STEPS / 100), 1 + 0.005 * np.exp(-STEPS / 70)):
        fit = fit_decay(STEPS, values)
        assert fit.tau == np.inf and np.isnan([fit.stderr, fit.low, fit.high, fit.floor]).all()
        assert not fit.several_rates
    assert fit_decay(STEPS[:4], np.exp(-STEPS[:4] / 2)).tau == np.inf
    with pytest.raises(ValueError, match="values has no finite number other than 0"):
        fit_decay(STEPS, np.zeros(len(STEPS)))
    with pytest.raises(ValueError, match="must be one-dimensional and of equal length"):
        fit_decay(STEPS, np.ones(3))

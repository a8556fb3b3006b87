"""Catches: a closed map that is not SGD, a wrong threshold or decay time, warnings from runs that blow up."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nin import theory
from nin.theory import LinearState, catapult_map, linear_map, linear_trajectory

GOLDEN = pd.read_csv(Path(__file__).parents[2] / "data" / "linear_golden.csv")
START = LinearState(a=0.0, n=1.0, V=1.0, U=1.0, W=1.0, k=0.0)


def brute_force(N, batch, steps, *, sigma, eta, label_noise, seed):
    """SGD of u, v, w by hand, and the closed map on its batch statistics: two arrays (steps + 1, 6)."""
    random = np.random.default_rng(seed)
    u, v, w = random.normal(size=(3, N))

    def order():
        return [u @ v / N**0.5, w @ v / N**0.5, v @ v / N, u @ u / N, w @ w / N, u @ w / N]

    by_hand, state = [order()], LinearState(*order())
    mapped = [list(state)]
    for _ in range(steps):
        x, eps, xi = random.normal(size=(3, batch)) * np.array([1, sigma, label_noise])[:, None]
        hidden = np.outer(x, u) + np.outer(eps, w)  # (batch, N)
        error = hidden @ v / N**0.5 - x - xi
        gradient = error @ hidden / N**0.5 / batch, np.mean(error * x) * v / N**0.5, np.mean(error * eps) * v / N**0.5
        v, u, w = v - eta * gradient[0], u - eta * gradient[1], w - eta * gradient[2]
        moments = {"p": x * x, "q": eps * eps, "c": x * eps, "label_x": xi * x, "label_eps": xi * eps}
        means = {name: value.mean() for name, value in moments.items()}
        state = linear_map(state, eta=eta, width=N, target=1.0, **means)
        by_hand.append(order())
        mapped.append(list(state))
    return np.array(by_hand), np.array(mapped, dtype=float)


@pytest.mark.parametrize(("N", "batch"), [(64, 1), (64, 128), (1024, 1), (1024, 128)])
@pytest.mark.parametrize("label_noise", [0.0, 0.5])
def test_closed_map_is_sgd(N, batch, label_noise):
    """Prediction 4, all six order parameters, 300 steps."""
    by_hand, mapped = brute_force(N, batch, 300, sigma=3.0, eta=0.01, label_noise=label_noise, seed=batch)
    scale = np.abs(by_hand).max(0)
    assert (np.abs(by_hand - mapped) / scale).max() < 1e-10


def test_golden_trajectories():
    path = linear_trajectory(START, 2000, eta=0.02, sigma=np.sqrt(GOLDEN["kappa0"] / 0.04), width=1000)
    for step in (1, 2, 5, 10):
        known = GOLDEN[f"n{step}"].notna()
        assert path.n[step][known] == pytest.approx(GOLDEN[f"n{step}"][known].to_numpy(), abs=1e-4)
    assert np.abs(path.n).max(0) == pytest.approx(GOLDEN["peak"].to_numpy(), abs=5e-3)
    assert np.abs(path.n[:, 3]).argmax() == 7
    assert path.V[-1] == pytest.approx(GOLDEN["V_end"].to_numpy(), abs=1e-3)
    end = GOLDEN["kappa0"].to_numpy() / 2 * (path.V[-1] + path.W[-1])
    assert end == pytest.approx(GOLDEN["kappa_end"].to_numpy(), abs=1e-3)


def test_golden_catapult_map():
    f, lam, peak = 1.0, 1.0, (1.0, 0)
    for step in range(1, 400):
        f, lam = catapult_map(f, lam, eta=2.5, width=1000)
        peak = max(peak, (abs(float(f)), step))
    assert peak == (pytest.approx(5.212, abs=1e-3), 5) and 2.5 * lam == pytest.approx(1.26795, abs=1e-5)
    for eta, end in ((1.5, 1.4925), (4.1, np.nan)):
        f, lam = 1.0, 1.0
        for _ in range(400):
            f, lam = catapult_map(f, lam, eta=eta, width=1000)
        assert eta * lam == pytest.approx(end, abs=1e-4, nan_ok=True)


def test_noise_only_sector_is_the_catapult_map():
    """a = target = 0, k = 0: lam = s^2 (V + W), f = s^2 n up to the scale of the loss; the same curvature path."""
    sigma, eta, N = 1.7, 0.3, 500
    state, f, lam = START, sigma * 1.0 * sigma, sigma**2 * 2.0
    for _ in range(30):
        state = linear_map(state, eta=eta, width=N, target=0.0, p=0.0, q=sigma**2, c=0.0)
        f, lam = catapult_map(f, lam, eta=eta, width=N)
        assert sigma**2 * (state.V + state.W) == pytest.approx(float(lam), rel=1e-12)
        assert sigma**2 * state.n == pytest.approx(float(f), rel=1e-12)


def test_vectorised_is_looped():
    sigma, width = np.array([[1.0], [5.0]]), np.array([100.0, 1e4, 1e6])
    together = linear_trajectory(START, 40, eta=0.02, sigma=sigma, width=width)
    for i in range(2):
        for j in range(3):
            alone = linear_trajectory(START, 40, eta=0.02, sigma=sigma[i, 0], width=width[j])
            for one, many in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one, many[:, i, j])


@pytest.mark.parametrize("width", [1e2, 1e4, 1e6])
def test_boundaries_of_the_catapult(width):
    """Prediction 8."""
    path = linear_trajectory(
        START, 3000, eta=0.02, sigma=np.sqrt(np.array([1.95, 2.05, 3.95, 4.05]) / 0.04), width=width
    )
    peak = np.abs(path.n).max(0)
    assert peak[0] == 1 and peak[1] > 1.05
    assert np.isfinite(path.n[-1]).tolist() == [True, True, True, False]


def test_decay_time():
    assert theory.decay_time(0.5) == pytest.approx(1 / np.log(2))
    assert theory.decay_time(1.5) == pytest.approx(1 / np.log(2))
    assert theory.decay_time([0, 1, 2]).tolist() == [np.inf, 0, np.inf]
    assert theory.decay_time(1e-12) == pytest.approx(1e12, rel=1e-9)
    assert theory.decay_time(3.0) == pytest.approx(1 / np.log(2))


def test_thresholds():
    assert theory.kappa(0.05, theory.sigma_catapult(0.05, 0.0657), 0.0657) == pytest.approx(2)
    assert theory.sigma_catapult(0.05, 0.0657) == pytest.approx(24.7, abs=0.05)
    assert theory.sigma_divergent(0.1, 2.0) == pytest.approx(np.sqrt(20))
    assert theory.sigma_catapult(0.1, 0.0) == np.inf


@pytest.mark.parametrize(("law", "k4"), theory.KURTOSIS.items())
@pytest.mark.parametrize("batch", [1, 8])
def test_mean_square_multiplier_against_drawn_batches(law, k4, batch):
    """Prediction 14; at kappa_MS the multiplier is 1."""
    random = np.random.default_rng(0)
    laws = {"gaussian": random.normal, "uniform": lambda size: random.uniform(-(3**0.5), 3**0.5, size),
            "rademacher": lambda size: random.choice([-1.0, 1.0], size)}  # fmt: skip
    q = np.square(laws[law](size=(200_000, batch))).mean(1)
    for kappa in (0.4, 1.3):
        expected = theory.mean_square_multiplier(kappa, batch, k4)
        assert np.mean((1 - kappa * q) ** 2) == pytest.approx(float(expected), rel=0.03)
    assert theory.mean_square_multiplier(theory.kappa_mean_square(batch, k4), batch, k4) == pytest.approx(1)


def test_stationary_variance_against_a_driven_mode():
    """w' = w - eta <eps g> - kappa/s^2 <eps^2> w, Gaussian eps: prediction 13 within 3 %."""
    random, eta, kappa, batch, lam = np.random.default_rng(1), 0.1, 0.5, 4, 2.0
    w, seen = np.zeros(20_000), []
    for step in range(60):
        eps, g = random.normal(size=(2, batch, len(w)))
        scale = kappa / (eta * lam)  # sigma^2
        w = w - eta * np.sqrt(scale) * (eps * g).mean(0) - kappa * (eps * eps).mean(0) * w
        if step >= 30:
            seen.append(np.var(w))
    expected = theory.stationary_variance(eta=eta, G=1.0, lam=lam, kappa=kappa, batch=batch)
    assert np.mean(seen) == pytest.approx(float(expected), rel=0.03)
    assert theory.stationary_variance(eta=eta, G=1, lam=lam, kappa=1.5, batch=1) == np.inf


def test_loss_is_that_of_a_large_sample():
    random = np.random.default_rng(2)
    x, eps = random.normal(size=10**6), 3 * random.normal(size=10**6)
    loss = 0.5 * np.mean((0.3 * x + 0.7 * eps - x) ** 2)
    state = LinearState(a=0.3, n=0.7, V=1, U=1, W=1, k=0)
    assert loss == pytest.approx(float(theory.linear_loss(state, target=1, x_std=1, sigma=3)), rel=0.01)


def test_fixed_noise_fits_label_noise():
    """Prediction 20: the least-squares weight of noise in the labels, 2000 data sets."""
    random = np.random.default_rng(3)
    eps, xi = 2 * random.normal(size=(2000, 50)), 0.5 * random.normal(size=(2000, 50))
    best = (eps * xi).sum(1) / (eps * eps).sum(1)
    assert best.std() == pytest.approx(float(theory.linear_optimum_rms(0.5, 2.0, 50)), rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.kappa(-1, 1, 1), "eta=-1 must be >= 0"),
        (lambda: theory.kappa(1, float("nan"), 1), "sigma=nan must be >= 0"),
        (lambda: theory.kappa(1, "loud", 1), "sigma='loud' must be a number"),
        (lambda: theory.sigma_catapult(0.1, -2), "lam=-2 must be >= 0"),
        (lambda: theory.decay_time(-0.1), "kappa=-0.1 must be >= 0"),
        (lambda: theory.kappa_mean_square(0, 3), "batch=0 must be >= 1"),
        (lambda: linear_trajectory(START, -1, eta=0.1, sigma=1, width=9), "steps=-1 must be an integer >= 0"),
        (lambda: linear_trajectory(START, 1, eta=0.1, sigma=1, width=0.5), "width=0.5 must be >= 1"),
        (lambda: catapult_map(1, 1, eta=-1, width=9), "eta=-1 must be >= 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

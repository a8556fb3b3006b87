"""Catches: a pull, a walk or a curvature that is not that of the network, a law that is not that of SGD, an integral
that drifts, a deviation that is not the largest over time."""

import numpy as np
import pandas as pd
import pytest
import torch

import nin
from nin import RunConfig, theory, train
from nin.model.losses import LOSSES, cross_entropy, mse
from nin.model.networks import MLP, linear_net
from nin.model.noise import draw_noise
from nin.probes.curvature import local_hessian
from studies.nin_vs_loss import clock, pull

BASE = RunConfig(
    widths=(16, 16), steps=120, batch_size=16, eval_points=10, activation="tanh", dtype="float64", record_every=1,
    sigma=2.0, curvature_pairs=4, eval_samples=64,
)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noisy_mlp(activation="tanh", sigma=1.5):
    network = MLP(6, (12, 10), 4, activation=activation, dtype=torch.float64, generator=generator(1))
    return nin.inject(network, "layers.0", sigma=sigma, generator=generator(2))


@pytest.fixture
def task(blobs):
    return blobs.x_train.double(), blobs.y_train


def test_pull_in_closed_form_in_the_linear_net():
    """With Rademacher noise all moments are exact: u = eps (E x + n eps) v / sqrt N."""
    net = linear_net(30, inputs=1, outputs=1, dtype=torch.float64, generator=generator())
    noisy = nin.inject(net, "layers.0", sigma=1.7, niw_std=1.0, generator=generator(1))
    x = torch.randn(50, 1, dtype=torch.float64, generator=generator(2))
    found = pull.measure(noisy, x, 3 * x, loss=mse, sigma=1.7, law="rademacher", generator=generator(3))
    u, v, w = (t.detach() for t in (net.layers[0].weight[:, 0], net.layers[1].weight[0], noisy.niw[0]))
    N, q, p = len(v), 1.7**2, float(x.square().mean())
    E, n, V, W = (float(value) for value in (u @ v / N**0.5 - 3, w @ v / N**0.5, v @ v / N, w @ w))
    assert found.along == pytest.approx(q * n**2 / W, rel=1e-12)
    assert found.across == pytest.approx(q**2 * n**2 * V / W, rel=1e-12)
    assert found.trace_G == pytest.approx(V * E**2 * p, rel=1e-12)
    assert found.of_W == pytest.approx(q * n**2 * E**2 * p / W**2, rel=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-12)


def test_gradients_by_finite_differences_and_as_those_of_the_weights(task):
    (x, y), noisy = task, noisy_mlp()
    eps = 1.5 * draw_noise(len(x), 1, law="gaussian", generator=generator(4))
    found = pull.gradients(noisy, x, y, eps, loss=cross_entropy)
    (of_niw,) = torch.autograd.grad(cross_entropy(noisy(x, eps), y).mean(), noisy.niw)
    torch.testing.assert_close((eps * found).mean(0), of_niw[0], rtol=1e-12, atol=1e-14)
    h, bias = 1e-6, noisy.network.layers[0].bias
    with torch.no_grad():
        for unit in (0, 7):
            values = []
            for side in (h, -h):
                bias[unit] += side
                values.append(cross_entropy(noisy(x, eps), y))
                bias[unit] -= side
            torch.testing.assert_close((values[0] - values[1]) / (2 * h), found[:, unit], rtol=1e-6, atol=1e-8)


def test_pull_leaves_the_network_alone_and_names_what_it_needs(task):
    (x, y), noisy = task, noisy_mlp()
    before = [p.clone() for p in noisy.parameters()]
    pull.measure(noisy, x, y, loss=cross_entropy, sigma=1.5, generator=generator())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, noisy.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"sigma=0, .* must be above 0"):
        pull.measure(noisy, x, y, loss=cross_entropy, sigma=0, generator=generator())
    two = nin.inject(noisy.network, "layers.0", sigma=1.0, nodes=2, generator=generator())
    with pytest.raises(ValueError, match="noisy must have a single node"):
        pull.measure(two, x, y, loss=cross_entropy, sigma=1.0, generator=generator())


@pytest.mark.slow
def test_one_step_of_sgd_has_the_mean_square_of_the_law(task):
    """Brute force: 2,000 batches with their own noise, each one step from the same network."""
    (x, y), noisy, eta, batch = task, noisy_mlp(sigma=3.0), 2.0, 48
    found = pull.measure(noisy, x, y, loss=cross_entropy, sigma=3.0, generator=generator(5), pairs=200)
    w, draws, squares = noisy.niw.detach()[0], generator(6), []
    for _ in range(2000):
        index = torch.randint(len(x), (batch,), generator=draws)
        eps = 3 * draw_noise(batch, 1, law="gaussian", generator=draws)
        (step,) = torch.autograd.grad(cross_entropy(noisy(x[index], eps), y[index]).mean(), noisy.niw)
        squares.append(float((w - eta * step[0]).square().sum()))
    square, stderr = np.mean(squares), np.std(squares) / 2000**0.5
    W, kappa, kappa_2 = float(w @ w), eta * found.along, eta * found.across**0.5
    floor = float(theory.random_walk(eta, 3.0, found.trace_G, batch))
    law = (1 - 2 * kappa + kappa_2**2) * W + floor
    assert square == pytest.approx(law, abs=4 * stderr)
    assert abs((1 - kappa) ** 2 * W + floor - square) > 4 * stderr  # the pull is not parallel to W
    assert abs(law - floor - square) > 4 * stderr


def test_kappa_is_that_of_training_and_tr_G_that_of_small_weights(blobs):
    runs = train(BASE.replace(steps=1), data=blobs, snapshots=[0])
    row = clock.moments(runs.model(0, 0), BASE, blobs, samples=64, pairs=4)
    assert row["kappa"] == pytest.approx(runs.kappa_avg[0], rel=1e-9)
    model = runs.model(0, 0)
    with torch.no_grad():
        model.niw *= 1e-6
    x, y = blobs.x_train.double(), blobs.y_train
    found = pull.measure(model, x, y, loss=cross_entropy, sigma=2.0, law="rademacher", generator=generator())
    g = pull.gradients(model, x, y, torch.zeros(64, 1), loss=cross_entropy)
    assert found.trace_G == pytest.approx(float(g.square().sum(1).mean()), rel=1e-4)


def test_trace_of_curvature_is_that_of_the_hessian_for_relu(task):
    (x, y), noisy = task, noisy_mlp("relu")
    exact = float(local_hessian(noisy.network, "layers.0", x, y, loss=LOSSES["cross_entropy"]).trace())
    draws = [pull.trace_of_curvature(noisy, x, y, generator=generator(seed)) for seed in range(60)]
    assert np.mean(draws) == pytest.approx(exact, abs=4 * np.std(draws) / 60**0.5)
    assert np.std(draws) / 60**0.5 < 0.05 * exact


def run(kappa=0.1, kappa_2=0.2, floor=0.03, steps=(0, 3, 20, 50)):
    return pd.DataFrame({"run": 0, "phase": "decay", "seed": 0, "sigma": 1.0, "step": steps, "niw_norm": 2.0,
                         "kappa": kappa, "kappa_2": kappa_2, "floor": floor, "jitter": 1e-3})  # fmt: skip


def test_integral_is_the_closed_form_for_constant_coefficients():
    a, t = 1 - 2 * 0.1 + 0.2**2, np.arange(51)
    for law, growth, floor in (
        ("full", a, 0.03),
        ("parallel", 0.81, 0.03),
        ("no floor", a, 0.0),
        ("constant", a, 0.03),
    ):
        end = floor / (1 - growth)
        expected = growth**t * (4 - end) + end
        assert clock.integrate(run(), law=law)["niw_norm"].to_numpy() ** 2 == pytest.approx(expected, rel=1e-12)


def test_integral_ends_on_the_floor_of_equation_10():
    """One mode, curvature lam: the variance of equation (10) for equal H_i and no fluctuation of eps^2, r = 1."""
    eta, sigma, lam, G, batch = 0.05, 2.0, 0.5, 0.3, 16
    kappa = float(theory.kappa(eta, sigma, lam))
    floor = float(theory.random_walk(eta, sigma, G, batch))
    curve = clock.integrate(run(kappa, kappa, floor, steps=(0, 400)))
    variance = theory.stationary_variance(eta=eta, G=G, lam=lam, kappa=kappa, batch=batch, ratio=1.0)
    assert curve["niw_norm"].iloc[-1] ** 2 == pytest.approx(float(variance), rel=1e-12)


def test_spread_is_that_of_many_noisy_copies():
    """Brute force: the same recursion with Gaussian increments of variance jitter |W|^4."""
    draws, square = np.random.default_rng(0), np.full(20000, 4.0)
    for _ in range(50):
        mean = square.mean()
        square = (1 - 2 * 0.1 + 0.04) * square + 0.03 + np.sqrt(1e-3) * mean * draws.normal(size=20000)
    assert clock.integrate(run())["spread"].iloc[-1] == pytest.approx(square.std() / (2 * square.mean()), rel=0.03)


def test_coefficients_are_interpolated_and_constant_keeps_the_first():
    table = run(kappa=[0.1, 0.2, 0.2, 0.2], kappa_2=np.nan, floor=0.0)
    curve = clock.integrate(table)["niw_norm"].to_numpy() ** 2 / 4
    by_hand = np.cumprod([(1 - k) ** 2 for k in (0.1, 0.1 + 0.1 / 3, 0.1 + 0.2 / 3)])
    assert curve[1:4] == pytest.approx(by_hand, rel=1e-9)
    assert clock.integrate(table, law="constant")["niw_norm"].iloc[-1] == pytest.approx(2 * 0.9**50)


@pytest.mark.slow
def test_law_follows_a_run_to_its_end_and_its_rivals_do_not(blobs):
    """ReLU, blobs, to the end: the full law within 20 % of |W_NI| at all snapshots."""
    changes = {"activation": "relu", "sigma": 6.0, "batch_size": 8, "steps": 300}
    configs = [BASE.replace(seed=seed, **changes) for seed in range(2)]
    table = clock.compare(clock.record(configs, blobs, steps=clock.snapshots(300, 40), samples=64, pairs=16))
    assert set(table["phase"]) == {"decay"} and table["step"].max() == 300
    off = clock.deviations(table).groupby("law")["off"].max()
    assert off["full"] < 0.18
    assert off["constant"] > 0.5 and off["no floor"] > 0.5


def test_deviations_are_the_largest_over_time():
    table = pd.concat([run(), run().assign(run=1, seed=1)]).assign(**dict.fromkeys(clock.LAWS, 2.0))
    table.loc[(table["step"] == 20) & (table["seed"] == 1), "full"] = 3.0
    rows = clock.deviations(table).set_index(["seed", "law"])
    assert rows.loc[(0, "full"), "off"] == 0 and np.isnan(rows.loc[(0, "full"), "first"])
    assert rows.loc[(1, "full"), ["off", "step", "first"]].tolist() == pytest.approx([np.log(1.5), 20, 20])


def test_clock_refuses_what_it_cannot_integrate(blobs):
    with pytest.raises(ValueError, match="configs has 1 runs with resample='fixed' or nodes != 1"):
        clock.record([BASE.replace(resample="fixed")], blobs, steps=[0, 1])
    with pytest.raises(ValueError, match=r"law='exact' must be one of .* 4 rows"):
        clock.integrate(run(), law="exact")
    assert clock.snapshots(400, 50)[:18] == [*range(17), 18] and clock.snapshots(400)[-1] == 400

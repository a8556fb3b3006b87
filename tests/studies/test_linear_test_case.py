"""Catches: a trained linear net that leaves the closed map, order parameters or statistics of the wrong batch."""

import numpy as np
import pytest
import torch

from nin import RunConfig, inject, theory, train
from nin.model.data import linear_teacher
from nin.model.networks import linear_net
from nin.phases import fit_decay
from studies.linear_test_case import measure as linear_case

CONFIG = RunConfig(dataset="linear_teacher", network="linear", loss="mse", widths=(200,), lr=0.01, sigma=3.0, steps=80,
                   batch_size=8, dtype="float64", eval_samples=64)  # fmt: skip


@pytest.mark.parametrize("resample", ["step", "epoch", "fixed"])
@pytest.mark.parametrize("label_noise", [0.0, 0.5])
def test_training_is_the_closed_map(resample, label_noise):
    """All six order parameters of the trained net after 80 steps of mini-batches, given the batches it saw."""
    data, config = linear_teacher(n_train=30, n_test=4, label_noise=label_noise), CONFIG.replace(resample=resample)
    runs = train(config, data=data, snapshots=[0])
    start, end = (linear_case.order_parameters(runs.model(0, step)) for step in (0, -1))
    mapped = linear_case.run_map(start, linear_case.batch_statistics(config, data), eta=0.01, width=200)
    for trained, predicted in zip(end, mapped, strict=True):
        assert trained == pytest.approx(predicted[-1], rel=1e-10, abs=1e-12)
    assert start == linear_case.start_state(200, 0)


def test_simulation_starts_at_its_own_kappa():
    table = linear_case.simulate([0.5, 2.5], width=100, eta=0.02, steps=10, samples=32, seeds=2)
    first = table[table["step"] == 0]
    assert first["kappa_map"].to_numpy() == pytest.approx(first["kappa0"].to_numpy())
    assert table["n"].to_numpy() == pytest.approx(table["n_map"].to_numpy(), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("x_std", [0.0, 1.0])
def test_noise_decays_as_theory_says_until_the_signal_drives_it(x_std):
    """The whole curve of a run with signal follows the residual E at its end: its tau is 5 times too large."""
    table = linear_case.simulate(
        [0.1, 0.3], width=1000, eta=0.02, steps=120, samples=256, seeds=5, law="rademacher", x_std=x_std
    )
    for kappa0, runs in table.groupby("kappa0"):
        tau, runs = float(theory.decay_time(kappa0)), [run for _, run in runs.groupby("seed")]
        ratios = [linear_case.noise_decay(run, samples=256, x_std=x_std).tau / tau for run in runs]
        assert np.median(ratios) == pytest.approx(1, rel=0.08 if x_std else 0.005)
    if x_std:
        assert np.median([fit_decay(run["step"], run["n"]).tau / tau for run in runs]) > 3


@pytest.mark.slow
def test_equal_decay_has_the_predicted_ratios():
    table = linear_case.equal_decay(width=8192, steps=60, ratios=(0.5, 1.0, 2.0), seeds=5, eta=0.01, samples=64)
    ratios = linear_case.decay_ratio(table, width=8192)
    found = (ratios["measured"] / ratios["predicted"]).groupby(ratios["ratio"]).median()
    assert found.to_numpy() == pytest.approx(np.ones(3), abs=0.05)


@pytest.mark.slow
def test_random_walk_against_steps_of_the_trainer():
    """Prediction 12: |dW_NI|^2 of real first steps from W_NI = 0, 200 noise seeds of one network."""
    data = linear_teacher(n_train=64, n_test=4)
    measured, predicted = linear_case.random_walk(16, width=50, draws=4000, sigma=2.0, eta=0.1, samples=64)
    assert measured == pytest.approx(predicted, rel=0.05)
    base = CONFIG.replace(widths=(50,), niw_std=0.0, steps=1, batch_size=16, sigma=2.0, lr=0.1, eval_points=2)
    steps = train([base.replace(seed=seed) for seed in range(400)], data=data).curves["niw_norm"][1]
    nets = train([base.replace(seed=seed, steps=0) for seed in range(400)], data=data)
    x, traces = data.x_train[:, 0].numpy(), []
    for run in range(400):
        state = linear_case.order_parameters(nets.model(run))
        traces.append(np.mean(((state.a - 1) * x) ** 2) * state.V)  # tr G = <(f - y)^2> |v|^2 / N
    assert np.mean(steps**2) == pytest.approx(float(theory.random_walk(0.1, 2.0, np.mean(traces), 16)), rel=0.1)


def test_dead_input_responds_with_the_readout_norm():
    noisy = train(CONFIG.replace(steps=0), data=linear_teacher(n_train=30, n_test=4)).model(0)
    V = linear_case.order_parameters(noisy).V
    assert linear_case.dead_input_variance(noisy, probes=20_000) == pytest.approx(V, rel=0.03)


@pytest.mark.slow
def test_one_step_control_number_is_kappa_of_each_net():
    """Up to -2 n^2 / (N (V + W)^2), NIN section 8.1; the frozen readout's number is half of it."""
    table = linear_case.one_step_control([0.3, 3.0], width=400, eta=0.02, seeds=3)
    starts = [linear_case.start_state(400, seed) for seed in table["seed"]]
    correction = [1 - 2 * start.n**2 / (400 * (start.V + start.W) ** 2) for start in starts]
    assert (table["kappa_1"] / table["kappa0"]).to_numpy() == pytest.approx(np.array(correction), abs=2e-4)
    assert (table["kappa_loc"] / table["kappa0"]).to_numpy() == pytest.approx(np.full(6, 0.5), abs=0.05)


def test_only_the_part_that_the_readout_sees_decays():
    """Prediction 17: frozen readout of C outputs, noise-averaged descent: |W(inf)|^2 = |(1 - P_rowspace) W(0)|^2."""
    net = linear_net(40, outputs=3, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    noisy = inject(net, "layers.0", sigma=2.0, niw_std=1.0, law="rademacher")
    rows = torch.linalg.qr(net.layers[1].weight.T)[0]  # (N, C), spans what the readout sees
    w = noisy.niw.detach().clone()
    unseen = (w - w @ rows @ rows.T).square().sum()
    optimizer = torch.optim.SGD([noisy.niw], lr=0.1)
    x = torch.zeros(4, 1, dtype=torch.float64)  # no signal, and eps^2 = sigma^2 for every sample: the noise average
    for _ in range(600):
        optimizer.zero_grad()
        (0.5 * noisy(x).square().sum(1).mean()).backward()
        optimizer.step()
    assert noisy.niw.detach().square().sum().item() == pytest.approx(unseen.item(), rel=1e-6)
    assert unseen < w.square().sum() - 0.1

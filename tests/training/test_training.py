"""Catches: an ensemble that is not what its members are alone, records of the wrong step, divergence that spreads."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from curves import largest_difference
from torch import nn

from nin import RunConfig, inject, train
from nin.model.dataset import Dataset
from nin.model.networks import MLP
from nin.phases import summarise
from nin.training.batches import batches
from nin.training.trajectories import CURVES

SMALL = RunConfig(widths=(9, 8), steps=70, batch_size=16, eval_points=8, dtype="float64", lr=0.1, curvature_pairs=2)


def own_loop(config: RunConfig, data: Dataset, optimizer):
    """What a user would write: one NoisyNetwork, one optimiser, a loop. Returns noisy losses and NIW norms by step."""
    dtype = torch.float64
    mlp = MLP(6, config.widths, 4, activation=config.activation, dtype=dtype, generator=config.generator("weights"))
    noisy = inject(mlp, f"layers.{config.layer}", sigma=config.sigma, nodes=config.nodes, law=config.law,
                   niw_std=config.niw_std, generator=config.generator("niw"))  # fmt: skip
    step_optimizer = optimizer(noisy.parameters())
    losses, norms = [], []
    for (index, eps), _ in zip(batches(config, len(data.x_train)), range(config.steps + 1), strict=False):
        outputs = noisy(data.x_train[index].to(dtype), config.sigma * eps)
        y = data.y_train[index]
        if config.loss == "mse":
            loss = 0.5 * (outputs - nn.functional.one_hot(y, 4)).square().sum(1).mean()
        else:
            loss = nn.functional.cross_entropy(outputs, y)
        losses.append(loss.item())
        norms.append(noisy.niw.norm().item())
        step_optimizer.zero_grad()
        loss.backward()
        step_optimizer.step()
    return np.array(losses), np.array(norms)


@pytest.mark.parametrize(
    ("changes", "optimizer"),
    [
        ({}, lambda p: torch.optim.SGD(p, lr=0.1)),
        ({"momentum": 0.9, "lr": 0.02}, lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9)),
        ({"weight_decay": 0.01}, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01)),
        ({"optimizer": "adam", "lr": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01)),
        ({"loss": "mse", "activation": "tanh", "layer": 1}, lambda p: torch.optim.SGD(p, lr=0.1)),
        ({"nodes": 3, "law": "uniform", "resample": "step", "layer": 2}, lambda p: torch.optim.SGD(p, lr=0.1)),
        ({"resample": "fixed", "law": "rademacher", "niw_std": 1.0}, lambda p: torch.optim.SGD(p, lr=0.1)),
    ],
)
def test_ensemble_equals_a_loop_with_torch_optim(blobs, changes, optimizer):
    configs = [SMALL.replace(sigma=sigma, seed=seed, **changes) for sigma in (0.3, 1.0) for seed in (0, 1)]
    runs = train(configs, data=blobs)
    rows = np.searchsorted(runs.steps, np.arange(50))
    for run, config in enumerate(configs):
        losses, norms = own_loop(config, blobs, optimizer)
        np.testing.assert_allclose(runs.curves["noisy_loss"][rows, run], losses[:50], rtol=1e-10)
        np.testing.assert_allclose(runs.curves["niw_norm"][rows, run], norms[:50], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", [(9, 8), (64, 64, 64)])
def test_a_run_alone_is_the_run_in_any_group_bit_for_bit(blobs, dtype, widths):
    """Common random numbers and one set of kernels: different lr, sigma, seed and law beside it change nothing."""
    base = SMALL.replace(dtype=dtype, widths=widths, loss="mse", activation="tanh")
    configs = [base.replace(sigma=s, seed=k, lr=lr) for k in (0, 1) for s, lr in ((0.3, 0.1), (3.0, 0.05), (0.3, 1e4))]
    configs.append(base.replace(law="rademacher", resample="fixed", niw_std=0.5))
    together = train(configs, data=blobs)
    assert np.isfinite(together.diverged_at).sum() == 2
    for run, config in enumerate(configs):
        alone = train(config, data=blobs)
        pair = train([configs[-1], config], data=blobs)
        for other, index in ((alone, 0), (pair, 1)):
            for name in CURVES:
                np.testing.assert_array_equal(other.curves[name][:, index], together.curves[name][:, run])
            np.testing.assert_array_equal(other.diverged_at[index], together.diverged_at[run])


def test_vmap_is_the_independent_reference(blobs):
    """Any factory goes through inject, functional_call and vmap: the same trajectories as the batched products."""
    configs = [SMALL.replace(sigma=s, seed=k, layer=1, nodes=2) for s in (0.3, 1.0) for k in (0, 1)]
    fast = train(configs, data=blobs)

    def factory():
        return nn.Sequential(*_unrolled(MLP(6, (9, 8), 4, dtype=torch.float64)))

    reference = train(configs, data=blobs, network=factory)
    assert max(largest_difference(reference, run, fast, run) for run in range(4)) < 1e-9


def _unrolled(mlp):
    first, second, third = mlp.layers
    return [first, nn.ReLU(), second, nn.ReLU(), third]


@pytest.mark.parametrize(("layer", "nodes"), [("1", 1), ("3", 2), (0, 1)])
def test_nodes_before_the_convolutions_of_ones_own_network(blobs, layer, nodes):
    """The ensemble against one NoisyNetwork under torch.optim: eq. (2), curvature at the start included."""

    def factory():
        shape = nn.Unflatten(1, (1, 2, 3))
        return nn.Sequential(shape, nn.Conv2d(1, 3, 2, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Flatten(),
                             nn.Linear(12, 4)).double()  # fmt: skip

    configs = [SMALL.replace(sigma=s, layer=layer, nodes=nodes, seed=3) for s in (0.3, 1.0)]
    runs = train(configs, data=blobs, network=factory, snapshots=[0])
    for run, config in enumerate(configs):
        noisy = runs.model(run, 0)
        optimizer, x = torch.optim.SGD(noisy.parameters(), lr=config.lr), blobs.x_train.double()
        for (index, eps), step in zip(batches(config, 64), range(20), strict=False):
            loss = nn.functional.cross_entropy(noisy(x[index], config.sigma * eps), blobs.y_train[index])
            assert runs.curves["noisy_loss"][step, run] == pytest.approx(loss.item(), rel=1e-9)
            assert runs.curves["niw_norm"][step, run] == pytest.approx(noisy.niw.norm().item(), rel=1e-9)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (runs.lambda_H > 0).all() and np.isfinite(runs.kappa_avg).all()
    assert np.isfinite(runs.curves["noise_output"][0]).all()


def test_factory_leaves_the_global_generator_and_repeats(blobs):
    state = torch.get_rng_state()
    config = SMALL.replace(dtype="float32", steps=3)

    def factory():
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))

    first, second = (train([config, config.replace(seed=1)], data=blobs, network=factory) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(first.curves["noisy_loss"], second.curves["noisy_loss"])
    assert first.curves["noisy_loss"][0, 0] != first.curves["noisy_loss"][0, 1]


def test_without_a_node_and_with_sigma_zero_are_plain_training(blobs):
    none, silent = (train(SMALL.replace(**c), data=blobs) for c in ({"nodes": 0}, {"sigma": 0.0}))
    np.testing.assert_allclose(none.curves["noisy_loss"], silent.curves["noisy_loss"], rtol=1e-12)
    assert np.isnan(none.curves["niw_norm"]).all() and np.isnan(none.kappa_H).all()
    assert np.ptp(silent.curves["niw_norm"]) == 0


def test_records_are_those_of_the_network_before_the_step(blobs):
    runs = train(SMALL.replace(sigma=0.5), data=blobs, snapshots=[0, 33])
    for step in (0, 33, -1):
        model = runs.model(0, step).eval()
        row = -1 if step == -1 else int(np.searchsorted(runs.steps, step))
        assert runs.curves["niw_norm"][row, 0] == pytest.approx(model.niw.norm().item(), rel=1e-12)
        if step != 33:
            outputs = model(blobs.x_train.double())
            assert runs.curves["train_loss"][row, 0] == pytest.approx(
                nn.functional.cross_entropy(outputs, blobs.y_train).item(), rel=1e-10
            )
            correct = model(blobs.x_test.double()).argmax(1) == blobs.y_test
            assert runs.curves["test_accuracy"][row, 0] == pytest.approx(correct.double().mean().item())


def test_schedule(blobs):
    frame = train(SMALL.replace(steps=200, record_every=25, eval_points=5), data=blobs).frame()
    steps = frame["step"].to_numpy()
    assert set(range(51)) <= set(steps) and {75, 100, 125, 150, 175, 200} <= set(steps)
    clean = frame.dropna(subset=["train_loss"])["step"].tolist()
    assert clean == [0, 1, 4, 14, 53, 200]
    assert frame["noisy_loss"].notna().all()


def test_without_clean_losses_everything_else_is_the_same(blobs):
    """eval_points=0: clean losses are NaN, phases and all other records bit for bit those of a run that has them."""
    configs = [SMALL.replace(sigma=sigma, eval_points=2, record_every=7) for sigma in (0.5, 40.0)]
    seen = train(configs, data=blobs)
    blind = train([config.replace(eval_points=0) for config in configs], data=blobs)
    assert blind.steps.tolist() == seen.steps.tolist()
    for name in CURVES:
        if name.startswith(("train_", "test_")):
            assert np.isnan(blind.curves[name]).all() and np.isfinite(seen.curves[name][-1]).all()
        else:
            np.testing.assert_array_equal(blind.curves[name], seen.curves[name])
    ours, theirs = summarise(blind.frame()), summarise(seen.frame())
    assert ours[["tau_train", "tau_test"]].isna().all(axis=None)
    columns = ["phase", "spike", "certainty", "kept", "tau_niw"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns])


def test_divergence_is_a_result_and_spoils_nobody(blobs):
    configs = [SMALL.replace(sigma=s, loss="mse", lr=0.002, activation="linear") for s in (0.5, 1e5, 1.0, 1e6)]
    runs = train(configs, data=blobs)
    calm = train([configs[0], configs[2]], data=blobs)
    assert np.isnan(runs.diverged_at).tolist() == [True, False, True, False]
    for ours, theirs in ((0, 0), (2, 1)):
        for name in CURVES:
            np.testing.assert_array_equal(runs.curves[name][:, ours], calm.curves[name][:, theirs])
    frame = runs.frame()
    last = frame.groupby("run")["step"].max()
    assert last[1] == runs.diverged_at[1] and last[0] == SMALL.steps
    assert not np.isfinite(frame[frame["run"] == 1]["noisy_loss"].iloc[-1])
    with pytest.raises(ValueError, match=r"no network of run 1 \(it diverged at step \d+\) was kept"):
        runs.model(1)


def test_all_runs_diverge(blobs):
    runs = train([SMALL.replace(sigma=s, loss="mse", activation="linear") for s in (1e6, 1e7)], data=blobs)
    assert np.isfinite(runs.diverged_at).all() and len(runs.frame()) < 100


def test_momentum_and_adam_state_follow_the_members_that_stay(blobs):
    for changes in ({"momentum": 0.9, "lr": 0.001}, {"optimizer": "adam", "lr": 0.01}):
        configs = [SMALL.replace(sigma=s, loss="mse", activation="linear", **changes) for s in (1e160, 0.5, 1.0)]
        runs, calm = train(configs, data=blobs), train(configs[1:], data=blobs)
        assert np.isfinite(runs.diverged_at).tolist() == [True, False, False]
        np.testing.assert_array_equal(runs.curves["noisy_loss"][:, 1:], calm.curves["noisy_loss"])


def test_common_random_numbers(blobs):
    """Two sigmas of a seed: same initial weights and batches, noise that differs by the factor alone."""
    first, second = (train(SMALL.replace(sigma=s, steps=0), data=blobs).model(0) for s in (0.5, 5.0))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for (index, eps), (other_index, other_eps), _ in zip(
        batches(SMALL.replace(sigma=0.5), 64), batches(SMALL.replace(sigma=5.0), 64), range(9), strict=False
    ):
        assert torch.equal(index, other_index) and torch.equal(eps, other_eps)


@pytest.mark.parametrize("resample", ["step", "epoch", "fixed"])
def test_batches(resample):
    """Every epoch sees each sample at most once; fixed noise belongs to its sample for good, the others change."""
    config = SMALL.replace(resample=resample, batch_size=10)
    seen, noise = [], {}
    for (index, eps), _ in zip(batches(config, 33), range(6), strict=False):
        seen.append(index)
        for sample, value in zip(index.tolist(), eps[:, 0].tolist(), strict=True):
            noise.setdefault(sample, []).append(value)
    assert all(len(torch.cat(seen[e : e + 3]).unique()) == 30 for e in (0, 3))
    repeated = [len(set(values)) == 1 for values in noise.values() if len(values) == 2]
    assert repeated and all(repeated) == (resample == "fixed") and any(repeated) == (resample == "fixed")


def test_linear_noise_output_is_n(blobs):
    x = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, x.clone(), x, x.clone(), 1, "line")
    config = SMALL.replace(network="linear", widths=(50,), loss="mse", lr=0.01)
    runs = train(config, data=data, snapshots=[7])
    model = runs.model(0, 7)
    n = (model.network.layers[1].weight[0] @ model.niw[0]).item() / math.sqrt(50)
    assert runs.curves["noise_output"][7, 0] == pytest.approx(n, rel=1e-12)
    v = runs.model(0, 0) if (0, 0) in runs.networks else train(config.replace(steps=0), data=data).model(0)
    readout = v.network.layers[1].weight[0]
    assert runs.lambda_H[0] == pytest.approx((readout @ readout).item() / 50)
    assert runs.curves["test_accuracy"][0, 0] != runs.curves["test_accuracy"][0, 0]


def test_frame_is_tidy(blobs):
    frame = train([SMALL, SMALL.replace(sigma=2.0)], data=blobs).frame()
    assert {f.name for f in dataclasses.fields(RunConfig)} | set(CURVES) | {"run", "step", "diverged_at"} <= set(frame)
    assert frame["widths"].iloc[0] == "9x8"
    assert not frame.duplicated(["run", "step"]).any()


def test_each_network_has_the_noise_of_its_own_run(blobs):
    """Not that of the first run of the ensemble, in kept networks and in those that are observed."""
    configs = [SMALL.replace(sigma=0.5, steps=2), SMALL.replace(sigma=3.0, law="rademacher", steps=2)]
    seen = {}
    train(configs, data=blobs, snapshots=[1], observe=lambda run, step, model: seen.update({run: model}))
    kept = train(configs, data=blobs, snapshots=[1])
    for run, config in enumerate(configs):
        for model in (seen[run], kept.model(run, 1), kept.model(run)):
            assert (model.sigma, model.law) == (config.sigma, config.law)
    assert set(kept.model(1).draw(64).abs().flatten().tolist()) == {3.0}


def test_user_data_and_model_stay_as_they_were(blobs):
    before = blobs.x_train.clone()
    train(SMALL, data=blobs)
    assert torch.equal(before, blobs.x_train) and blobs.x_train.dtype == torch.float32


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("configs", "arguments", "message"),
    [
        ([], {}, "configs is empty"),
        ([3], {}, "configs holds a int, expected RunConfig"),
        ([SMALL, SMALL.replace(widths=(4,))], {}, r"cannot be stacked: they differ in widths\. One ensemble may"),
        (
            [SMALL.replace(optimizer="adam"), SMALL.replace(optimizer="adam", lr=0.2)],
            {},
            "differ in lr with optimizer='adam'",
        ),
        (SMALL.replace(batch_size=65), {}, "batch_size=65 is larger than the training set of 64"),
        (SMALL.replace(layer=3), {}, "layer=3 is not in the model; its linear layers are 0 to 2: layers.0"),
        (SMALL.replace(layer="head"), {}, "layer='head' is not in the model; layers that take a node are: layers"),
        (SMALL, {"snapshots": [-3]}, "snapshots=-3 must be an integer >= 0"),
    ],
)
def test_bad_input_is_named(blobs, configs, arguments, message):
    with pytest.raises(ValueError, match=message):
        train(configs, data=blobs, **arguments)


def test_unknown_run_and_step_are_named(blobs):
    runs = train(SMALL, data=blobs, snapshots=[5])
    message = r"step=6: no network of run 0 was kept there, only those of steps \[5, 70\]"
    with pytest.raises(ValueError, match=message):
        runs.model(0, 6)
    with pytest.raises(ValueError, match="run=1 is unknown; there are runs 0 to 0"):
        runs.model(1)


def test_frozen_parameters_stay(blobs):
    def factory():
        network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        network[0].requires_grad_(False)
        return network

    run = train(SMALL.replace(dtype="float32", layer="2"), data=blobs, network=factory, snapshots=[0])
    before, after = run.model(0, 0).network, run.model(0).network
    assert torch.equal(before[0].weight, after[0].weight) and not torch.equal(before[2].weight, after[2].weight)

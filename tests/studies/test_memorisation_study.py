"""Catches: wrong labels that are right, a run that depends on its neighbours, a held-out sample that is trained on, a
closed form that differs from brute force, and a stopping rule that reads another run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import nin
from nin.probes.memorisation import MemorisationMeter
from studies.labels import flipped
from studies.memorisation import linear, linear_runs, measure, stopping, variants
from studies.memorisation.measure import Run

BASE = nin.RunConfig(widths=(16, 16), lr=0.1, batch_size=16, steps=30, nodes=2)


@pytest.fixture(scope="module")
def data():
    return nin.load_data("digits", n_train=120, n_test=60)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_flipped_labels_are_wrong_and_nested():
    y = torch.arange(200) % 5
    some, few = (flipped(y, fraction, classes=5, generator=gen()) for fraction in (0.6, 0.1))
    assert some[1].sum() == 120 and few[1].sum() == 20 and (some[1] | ~few[1]).all()
    assert ((some[0] != y) == some[1]).all() and set(some[0].tolist()) <= set(range(5))
    assert set(((some[0] - y) % 5)[some[1]].tolist()) == {1, 2, 3, 4}
    assert torch.equal(flipped(y, 0.0, classes=5, generator=gen())[0], y)
    with pytest.raises(ValueError, match="fraction=1.5 must lie"):
        flipped(y, 1.5, classes=5, generator=gen())


def test_a_run_does_not_depend_on_the_others(data):
    run = Run(fraction=0.3, sigma=1.0, seed=1)
    others = [Run(fraction=0.0, sigma=2.0, seed=2), Run(fraction=0.3, sigma=1.0, seed=1, resample="epoch")]
    alone = measure.follow([run, run], BASE, data, points=4)
    among = measure.follow([others[0], run, others[1]], BASE, data, points=4)
    rows = among[(among["seed"] == 1) & (among["resample"] == "fixed")].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.iloc[::2].reset_index(drop=True), rows, check_exact=False, rtol=1e-4)


def test_without_noise_the_run_is_that_of_the_library(data):
    """The same steps by torch alone: weights, order and labels of a seed, no node."""
    run = Run(fraction=0.3, sigma=0.0, seed=3)
    found = measure.follow([run, run], BASE, data, points=3)
    config = BASE.replace(seed=3)
    network = nin.training.start.build(config, data)
    y, wrong = measure._labels(run, data)
    optimizer = torch.optim.SGD(network.parameters(), lr=BASE.lr)
    order = config.generator("order")
    step = 0
    while step < BASE.steps:
        for index in torch.randperm(120, generator=order).split(16)[:7]:
            if step == BASE.steps:
                break
            optimizer.zero_grad()
            F.cross_entropy(network(data.x_train[index]), y[index]).backward()
            optimizer.step()
            step += 1
    last = found[found["step"] == BASE.steps].iloc[0]
    with torch.no_grad():
        outputs = network(data.x_train)
        assert last["train_loss"] == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-4)
        assert last["fitted"] == pytest.approx((outputs.argmax(1) == y)[wrong].double().mean().item())
        test = network(data.x_test).argmax(1) == data.y_test
    assert last["test_accuracy"] == pytest.approx(test.double().mean().item())
    assert np.isnan(last["niw"]) and np.isnan(last["valid_loss"])


def test_held_out_samples_are_not_trained_on():
    run = Run(fraction=0.5, sigma=0.0, seed=0, held_out=True)
    held = measure._held_out(run, 100)
    batches = measure._batches(BASE, run, (~held).nonzero()[:, 0])
    seen = torch.cat([next(batches)[0] for _ in range(30)])
    assert held.sum() == 10 and not held[seen].any() and len(seen.unique()) == 90


def test_fixed_noise_stays_with_its_sample_and_redrawn_noise_does_not():
    for mode, same in (("fixed", True), ("epoch", False)):
        batches = measure._batches(BASE, Run(fraction=0.0, resample=mode), torch.arange(48))
        epochs = [[next(batches) for _ in range(3)] for _ in range(2)]
        first, second = (
            torch.cat([eps for _, eps in epoch])[torch.cat([index for index, _ in epoch]).argsort()] for epoch in epochs
        )
        assert torch.equal(first, second) == same and first.shape == (48, 2)


def test_a_run_that_diverges_is_named(data):
    with pytest.raises(ValueError, match=r"Run\(fraction=0.0, .* diverged at step"):
        measure.follow([Run(fraction=0.0), Run(fraction=0.0)], BASE.replace(lr=1e6, loss="mse"), data, points=4)


def table_of(**curves):
    """A run of five steps, with the meter's own reading of two equal nodes."""
    meter, rows = MemorisationMeter(), []
    for step in range(5):
        reading = meter.enter(10 * step, np.full(2, float(curves["niw"][step])))
        values = {name: values[step] for name, values in curves.items()}
        rows.append({"step": 10 * step, "rise": reading.rise, "turned": reading.turned, "fitted": 0.1 * step} | values)
    frame = pd.DataFrame(rows)
    return frame.assign(node0=frame["niw"], node1=frame["niw"])


def two_runs():
    curves = {"test_loss": [2, 1, 0.5, 0.8, 0.9], "test_accuracy": [0.1, 0.8, 0.7, 0.6, 0.5]}
    rises = table_of(niw=[1, 0.8, 0.9, 1.0, 1.1], **curves).assign(fraction=0.3)
    falls = table_of(niw=[1, 0.9, 0.8, 0.7, 0.6], **curves).assign(fraction=0.0)
    node = pd.concat([rises, falls]).assign(sigma=1.0, held_out=False, valid_loss=np.nan, valid_accuracy=np.nan)
    plain = node.assign(sigma=0.0, test_accuracy=node["test_accuracy"] + 0.1)
    held = plain.assign(held_out=True, valid_loss=[3, 2, 1, 0.5, 4] * 2, valid_accuracy=[0, 0, 0.5, 0.4, 0.4] * 2)
    return pd.concat([node, plain, held], ignore_index=True).assign(seed=0, resample="fixed")


def test_turns_and_rules_read_their_own_run():
    table = two_runs()
    found = stopping.turns(table[~table["held_out"]]).set_index("fraction")
    assert found.loc[0.3, ["turn", "lowest", "loss_step", "best_step", "at_turn"]].tolist() == [20, 10, 20, 10, 70]
    assert np.isnan(found.loc[0.0, "turn"]) and found.loc[0.0, "at_turn"] == found.loc[0.0, "at_end"] == 50
    assert found.loc[0.3, "lead"] == 0 and found.loc[0.3, "fitted"] == pytest.approx(0.2)
    rules = stopping.rules(table, sigma=1.0).set_index(["fraction", "rule"])["accuracy"]
    expected = {"best": 80, "turn": 70, "end": 50, "held-out loss": 70, "held-out accuracy": 80, "no node, end": 60}
    assert {rule: round(rules[0.3, rule]) for rule in expected} == expected
    assert rules[0.0, "borrowed"] == pytest.approx(70) and rules[0.3, "borrowed"] == pytest.approx(50)
    with pytest.raises(ValueError, match="table has no run of fraction=0.0"):
        stopping.rules(table[(table["fraction"] > 0) | (table["sigma"] > 0)], sigma=1.0)


def test_single_nodes_are_read_alone():
    table = two_runs()
    table["node1"] = 1.0
    found = stopping.by_nodes(table, counts=[1, 2])
    rising = found[(found["fraction"] == 0.3)].set_index(["nodes", "first"])["turn"]
    assert rising[1, 0] == 20 and np.isnan(rising[1, 1]) and np.isnan(rising[2, 0])


SETTING = linear.Setting(n=60, d=30, label_noise=1.0, steps=200)


def brute_force(setting, data, draws):
    """Gradient descent on all samples from weights of variance 2/d, many draws of noise: rms |W| and test loss."""
    x, y = data.x_train, data.y_train
    draw = {"dtype": torch.float64, "generator": gen(5)}
    a = (2 / setting.d) ** 0.5 * torch.randn(draws, setting.d, linear.OUTPUTS, **draw)
    b = torch.zeros(draws, 1, linear.OUTPUTS, dtype=torch.float64)
    w = setting.niw_std * torch.randn(draws, 1, linear.OUTPUTS, **draw)
    eps = setting.sigma * torch.randn(draws, setting.n, 1, **draw)
    rms, loss = [], []
    for _ in range(setting.steps + 1):
        rms.append(w.square().sum((1, 2)).mean().sqrt().item())
        loss.append(0.5 * (data.x_test @ a + b - data.y_test).square().sum(-1).mean().item())
        r = (y - x @ a - b - eps @ w) / setting.n
        a, b = a + setting.lr * x.T @ r, b + setting.lr * r.sum(1, keepdim=True)
        w = w + setting.lr * eps.mT @ r
    return np.array(rms), np.array(loss)


@pytest.mark.slow
@pytest.mark.parametrize("d", [30, 90])
def test_the_closed_form_is_that_of_brute_force(d):
    setting = replace(SETTING, d=d)
    data, steps = linear_runs.data_of(setting), np.arange(setting.steps + 1)
    modes = linear.Modes(setting, data)
    rms, loss = brute_force(setting, data, draws=400)
    assert modes.fixed(steps) == pytest.approx(rms, rel=0.06)
    assert modes.test_loss(steps) == pytest.approx(loss, rel=0.06)
    assert np.abs(modes.redrawn(steps) / rms - 1).max() > 0.5
    assert modes.fixed(steps)[0] == pytest.approx(setting.niw_std * linear.OUTPUTS**0.5)


def test_the_end_of_the_closed_form_is_the_optimum():
    long = replace(SETTING, n=400, d=40)
    modes = linear.Modes(long, linear_runs.data_of(long))
    assert modes.fixed(np.array([100_000]))[0] == pytest.approx(linear.optimum(long), rel=0.06)
    with pytest.raises(ValueError, match="the optimum exists for n > d"):
        linear.optimum(replace(SETTING, d=60))


def test_few_inputs_turn_where_the_formula_says():
    few = linear.Setting(n=400, d=4, label_noise=1.0, sigma=0.3, steps=4000)
    modes = linear.Modes(few, linear_runs.data_of(few))
    assert modes.turn() == pytest.approx(linear.turn_of_few_inputs(few), rel=0.1)
    assert linear.turn_of_few_inputs(replace(few, label_noise=0.0)) == np.inf


@pytest.mark.slow
def test_sgd_of_the_library_follows_the_closed_form_and_not_the_rival():
    settings = [replace(SETTING, steps=150, batch_size=30)]
    table = linear_runs.compare(settings, seeds=8)
    fixed = table[table["resample"] == "fixed"]
    assert linear_runs.errors(fixed) < 2 < 4 < linear_runs.errors(fixed, "rival")
    turns = linear_runs.turn_table(settings, table, [3.0])
    assert turns["label_noise"].tolist() == [1.0, 3.0] and turns["node"].is_monotonic_decreasing
    assert np.isnan(turns["node_measured"][1]) and turns["node_measured"][0] > 0


def test_sigma_is_a_share_of_what_enters_the_layer(data):
    norm = variants.input_norm(BASE, data)
    assert norm == pytest.approx(data.x_train.square().sum(1).mean().sqrt().item(), rel=1e-6)
    assert variants.input_norm(BASE.replace(layer=1), data) != pytest.approx(norm, rel=0.01)


@pytest.mark.slow
def test_every_case_is_measured(data):
    cases = {name: variants.CASES[name] for name in ("second layer", "convolutional")}
    base = BASE.replace(steps=10)
    table = variants.across(base, data, share=0.125, fractions=(0.0, 0.3), seeds=1, cases=cases, points=3)
    assert table["case"].tolist() == ["second layer"] * 2 + ["convolutional"] * 2
    assert table["sigma"].nunique() == 2 and table["best"].between(0, 100).all()

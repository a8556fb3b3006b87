"""Catches: a probe along a run that differs from its definition, series that mix up runs or steps."""

import copy
import inspect
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nin
from nin.model.dataset import Dataset
from nin.model.networks import MLP
from nin.probes.asking import ask
from nin.probes.curvature import local_hessian
from nin.probes.for_sweeps import (
    COLUMNS,
    curvature,
    four_probes,
    interactions,
    performance,
    stability,
    training_response,
)
from nin.probes.response.features import effective_rank
from nin.probes.stability import sensitivities
from studies.four_probes import before, noticing
from studies.four_probes import measure as study
from studies.image_networks import SmallConvolutional

SNAPSHOTS = (0, 3, 10, 30, 60)


@pytest.fixture(scope="module")
def images() -> Dataset:
    """Three classes of smooth 16 x 16 images, rows of pixels."""
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(150) % 3
    kinds = F.interpolate(torch.randn(3, 1, 4, 4, generator=generator), 16, mode="bicubic").flatten(1)
    x = kinds[y] + 0.3 * torch.randn(150, 256, generator=generator)
    return Dataset(x[:90], y[:90], x[90:], y[90:], 3, "images")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return MLP(256, (7, 6), 3, activation="tanh", dtype=torch.float64, generator=generator)


@pytest.fixture(scope="module")
def probe_set(images) -> tuple[torch.Tensor, torch.Tensor]:
    return images.x_test.double(), images.y_test


PROBES = four_probes(
    node="layers.0", lr=0.1, hidden=["layers.0", "layers.1"], patches=4, masked=3, deformed=20, delta=0.7, responders=3,
    kernel_samples=5,
)  # fmt: skip


def stored_as(probes: dict) -> dict:
    """The probes without the checks of their annotations, which hold a random generator that no key can name."""
    plain = {name: probe if isinstance(probe, partial) else partial(probe) for name, probe in probes.items()}
    return {name: partial(inspect.unwrap(p.func), *p.args, **p.keywords) for name, p in plain.items()}


def value(table: pd.DataFrame, quantity: str, layer: str = "", order: int = 0) -> float:
    rows = table[(table["quantity"] == quantity) & (table["layer"] == layer) & (table["order"] == order)]
    return rows["value"].item()


@pytest.mark.parametrize("name", PROBES)
def test_probes_give_one_table_and_only_look(name, model, probe_set):
    table = ask(name, PROBES[name], model, *probe_set, seed=0)  # raises if the network is changed
    assert list(table.columns) == COLUMNS and np.isfinite(table["value"]).all()
    assert not table.duplicated(["quantity", "layer", "order"]).any()
    pd.testing.assert_frame_equal(table, ask(name, PROBES[name], model, *probe_set, seed=1))  # nothing is random


def test_performance(model, probe_set):
    x, y = probe_set
    table = performance(model, x, y)
    outputs = model(x)
    losses = [-torch.log_softmax(row, 0)[label].item() for row, label in zip(outputs, y, strict=True)]
    assert value(table, "loss") == pytest.approx(np.mean(losses), rel=1e-12)
    assert value(table, "accuracy") == (outputs.argmax(1) == y).double().mean().item()
    error = table.set_index("quantity")["error"]["loss"]
    assert error == pytest.approx(np.std(losses, ddof=1) / len(losses) ** 0.5, rel=1e-12)


@pytest.mark.slow
def test_curvature_is_the_top_of_both_hessians(model, probe_set):
    x, y = probe_set
    table = curvature(model, x, y, layer="layers.1")
    H = local_hessian(model, "layers.1", x, y, loss=lambda f, labels: F.cross_entropy(f, labels, reduction="none"))
    assert value(table, "lambda", "layers.1") == pytest.approx(torch.linalg.eigvalsh(H)[-1].item(), rel=1e-9)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]

    def loss(flat):
        parts = zip(parameters.items(), flat.split(sizes), strict=True)
        given = {name: part.view_as(p) for (name, p), part in parts}
        return F.cross_entropy(torch.func.functional_call(model, given, x), y)

    flat = torch.cat([p.flatten() for p in parameters.values()])
    whole = torch.autograd.functional.hessian(loss, flat)
    assert value(table, "sharpness") == pytest.approx(torch.linalg.eigvalsh(whole)[-1].item(), rel=1e-6)


def test_training_response_against_a_naive_twin(model, probe_set):
    x, y = probe_set
    table = training_response(model, x, y, lr=0.1, responders=3, samples=5)
    answers = []
    for i in range(3):
        twin = copy.deepcopy(model)
        loss = F.cross_entropy(twin(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            before = twin(x[i])
            for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
            answers.append((twin(x[i]) - before).abs().mean().item())
    assert value(table, "response") == pytest.approx(np.mean(answers), rel=1e-10)
    rows = []
    for i in range(5):
        outputs = model(x[i])
        gradients = [torch.autograd.grad(f, list(model.parameters()), retain_graph=True) for f in outputs]
        rows.append(torch.stack([torch.cat([g.flatten() for g in one]) for one in gradients]))
    theta = torch.einsum("icp,jcp->ij", torch.stack(rows), torch.stack(rows))
    for i in range(5):
        for j in range(i, 5):
            assert value(table, "kernel", order=5 * i + j) == pytest.approx(theta[i, j].item(), rel=1e-9, abs=1e-12)
    assert value(table, "self_kernel") == pytest.approx(theta.diagonal().mean().item(), rel=1e-9)
    hidden = torch.tanh(model.layers[1](torch.tanh(model.layers[0](x)))).detach()
    assert value(table, "effective_rank") == pytest.approx(effective_rank(hidden), rel=1e-12)


def test_interactions_by_order_and_layer(model, probe_set):
    x, y = probe_set
    table = interactions(model, x, y, layers=["layers.0", "layers.1"], patches=4, images=3)
    strength = table[table["quantity"] == "strength"]
    assert strength["order"].tolist() == [1, 2, 3, 4] and set(strength["layer"]) == {"output"}
    mean = (strength["order"] * strength["value"]).sum() / strength["value"].sum()
    assert value(table, "mean_order", "output") == pytest.approx(mean, rel=1e-12)
    assert value(table, "completeness", "output") == 1 and value(table, "redundancy", "output") == 0
    assert 0 <= value(table, "completeness", "layers.0") <= 1


def test_a_network_that_sees_nothing_has_no_interactions(model, probe_set):
    dead = copy.deepcopy(model)
    torch.nn.init.zeros_(dead.layers[1].weight)
    assert interactions(dead, *probe_set, layers=["layers.0"], patches=4, images=3).empty


def test_stability_is_that_of_the_network_applied_to_images(model, probe_set):
    x, y = probe_set
    table = stability(model, x, y, layers=["layers.0", "layers.1"], images=20, delta=0.7)
    behind = nn.Sequential(nn.Flatten(), model)
    whole = sensitivities(
        behind, x[:20].view(-1, 1, 16, 16), layers=["1.layers.0", "1.layers.1", "1"], delta=0.7, draws=2
    )
    for layer, row in zip(("layers.0", "layers.1", "output"), whole.iloc[1:].to_dict("records"), strict=True):
        for quantity in "DGR":
            assert value(table, quantity, layer) == pytest.approx(row[quantity], rel=1e-12)


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """Without noise and at two noise scales, two seeds each."""
    base = nin.RunConfig(widths=(7, 6), lr=0.1, steps=60, batch_size=30, eval_points=5)
    return base, study.read_runs(
        base, images, [0.1, 1e25], seeds=[0, 1], snapshots=SNAPSHOTS, probes=stored_as(PROBES), probe_samples=60,
        store=tmp_path_factory.mktemp("store"),
    )  # fmt: skip


@pytest.mark.slow
def test_runs_are_numbered_alike_in_trajectories_and_readings(runs, images):
    base, (frame, readings) = runs
    about = frame.groupby("run")[["phase", "sigma", "seed"]].first()
    assert about["phase"].tolist()[:2] == ["no node"] * 2 and "divergent" in set(about["phase"])
    assert about["sigma"].tolist() == [0, 0, 0.1, 0.1, 1e25, 1e25] and about["seed"].tolist() == [0, 1] * 3
    pd.testing.assert_frame_equal(readings.groupby("run")[["phase", "sigma", "seed"]].first(), about)
    model = nin.train(base.replace(sigma=0.1, seed=1), data=images, snapshots=(30,)).model(0, step=30).network
    mine = performance(model, images.x_test[:60], images.y_test[:60])
    row = readings[(readings["run"] == 3) & (readings["step"] == 30) & (readings["quantity"] == "loss")]
    assert row["value"].item() == value(mine, "loss")
    diverged = frame[frame["run"] == 4]["diverged_at"].iloc[0]
    assert readings[readings["run"] == 4]["step"].max() < diverged


@pytest.mark.slow
def test_series_of_several_snapshots(runs):
    _, (_, readings) = runs
    table = study.series(readings)
    assert "kernel" not in set(table["quantity"])
    run = readings[(readings["run"] == 2) & (readings["quantity"] == "kernel")]
    theta = {}
    for step, part in run.groupby("step"):
        theta[step] = torch.zeros(5, 5, dtype=torch.float64)
        for order, entry in zip(part["order"], part["value"], strict=True):
            theta[step][order // 5, order % 5] = theta[step][order % 5, order // 5] = entry
    drift = table[(table["run"] == 2) & (table["quantity"] == "drift")].set_index("step")["value"]
    for step in SNAPSHOTS:
        expected = ((theta[step] - theta[0]).norm() / theta[0].norm()).item()
        assert drift[step] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_aging_of_a_power_law_is_its_exponent():
    steps = [0, 1, 4, 20, 100]
    rows = {"step": steps, "value": [9.0, *(3.0 * np.array(steps[1:]) ** -1.25)], "quantity": "response"}
    about = {"run": 0, "phase": "decay", "sigma": 1.0, "seed": 0, "probe": "response", "layer": "", "order": 0}
    kernel = {"step": steps, "value": 1.0, "quantity": "kernel"}
    readings = pd.concat([pd.DataFrame(part).assign(**about, error=np.nan) for part in (rows, kernel)])
    table = study.series(readings)
    aging = table[table["quantity"] == "aging"].set_index("step")["value"]
    assert np.isnan(aging[1]) and aging[[4, 20]].tolist() == pytest.approx([-1.25, -1.25])


@pytest.mark.slow
def test_main_series_are_one_value_a_run_and_step(runs):
    _, (_, readings) = runs
    table = study.main_series(study.series(readings), layer="layers.1")
    assert not table.duplicated(["run", "step", "quantity"]).any()
    assert set(table["quantity"]) == set(study.MAIN)
    one = readings[(readings["run"] == 2) & (readings["step"] == 10)]
    mine = table[(table["run"] == 2) & (table["step"] == 10)].set_index("quantity")["value"]
    assert mine["R"] == pytest.approx(np.log(value(one, "R", "output")))
    assert mine["completeness"] == value(one, "completeness", "layers.1")


@pytest.mark.slow
def test_comparable_series_are_scaled_readings(runs):
    _, (_, readings) = runs
    table = study.comparable(study.series(readings), layer="layers.1", eta=0.1, patches=4)
    assert not table.duplicated(["run", "step", "quantity"]).any()
    mine = table[(table["run"] == 2) & (table["step"] == 10)].set_index("quantity")["value"]
    one, start = (readings[(readings["run"] == 2) & (readings["step"] == step)] for step in (10, 0))
    assert mine["self_kernel"] == pytest.approx(value(one, "self_kernel") / value(start, "self_kernel"))
    assert mine["eta_sharpness"] == pytest.approx(0.1 * value(one, "sharpness"))
    assert mine["eta_lambda"] == pytest.approx(0.1 * value(one, "lambda", "layers.0"))
    assert mine["mean_order"] == pytest.approx(value(one, "mean_order", "output") / 4)
    assert mine["D"] == value(one, "D", "output") and mine["redundancy"] == value(one, "redundancy", "layers.1")
    assert table[table["quantity"] == "drift"]["step"].min() == SNAPSHOTS[1]


def test_values_at_a_step_and_at_the_end_are_spread_over_seeds():
    rows = [("a", 0, 1.0), ("a", 1, 3.0), ("b", 0, 5.0), ("b", 1, 9.0)]
    shown = pd.DataFrame(
        [
            {"run": 2 * (phase == "b") + seed, "phase": phase, "seed": seed, "step": step, "quantity": "q", "value": v}
            for phase, seed, value in rows
            for step, v in ((10, np.nan if phase == "b" else 2 * value), (0, value))
        ]
    )
    first, last = study.at(shown, 0), study.at(shown)
    assert list(first.columns) == ["a", "b"] and first.index.names == ["quantity", "seed"]
    assert first["b"].tolist() == [5, 9] and first["a"].tolist() == [1, 3]
    assert last["a"].tolist() == [2, 6] and last["b"].tolist() == [5, 9]
    assert study.at(shown, 10).columns.tolist() == ["a"]
    assert study.spread(last / first).loc["q"].tolist() == ["2 (2 to 2)", "1 (1 to 1)"]
    assert study.spread(first).loc["q"].tolist() == ["2 (1 to 3)", "7 (5 to 9)"]


def test_ratios_to_no_node_are_those_of_the_same_seed():
    rows = [
        (phase, seed, 4, "q", value)
        for phase, values in (("no node", (1.0, 2.0, 4.0)), ("catapult", (0.5, 0.9, 2.2)))
        for seed, value in enumerate(values)
    ]
    shown = pd.DataFrame(rows, columns=["phase", "seed", "step", "quantity", "value"])
    ratios = noticing.against_no_node(shown)
    assert ratios["ratio"].tolist() == pytest.approx([0.5, 0.45, 0.55]) and set(ratios["phase"]) == {"catapult"}
    (row,) = noticing.noticed(ratios).itertuples()
    assert (
        row.mean == pytest.approx((0.5 * 0.45 * 0.55) ** (1 / 3)) and row.low < row.mean < row.high < 1 and row.differs
    )
    same = noticing.noticed(ratios.assign(ratio=[0.9, 1.0, 1.1]))
    assert not same["differs"].any()


def test_distance_from_no_node_is_in_units_of_two_seeds():
    index = pd.MultiIndex.from_product([["a", "b"], [0, 1]], names=["quantity", "seed"])
    values = pd.DataFrame({"no node": [1.0, np.e, 1.0, 1.0], "decay": [np.e**2, np.e**3, 1.0, 1.0]}, index)
    assert noticing.unlike(values, "decay") == pytest.approx(np.sqrt((4 + 4) / (1 + 1)))
    assert noticing.unlike(values.assign(decay=values["no node"]), "decay") == 0


@pytest.mark.slow
def test_a_noise_scale_for_each_phase_is_predicted_and_found(images):
    base = nin.RunConfig(widths=(16, 16), lr=0.1, steps=60, batch_size=30, layer="layers.0", eval_points=0)
    begins = before.borders(base, images, seeds=[0, 1])
    assert (begins["decay"] < begins["catapult"]).all() and (begins["catapult"] < begins["divergent"]).all()
    chosen = before.one_of_each(begins)
    means = np.exp(np.log(begins).mean())
    assert chosen["decay"] == pytest.approx((means["decay"] * means["catapult"]) ** 0.5)
    assert chosen["divergent"] == pytest.approx(3 * means["divergent"])
    found = before.predictions(base, images, sigmas=[chosen["decoupled"], chosen["divergent"]], seeds=[0])
    assert [one.phase for one in found.values()] == ["decoupled", "divergent"]
    with pytest.raises(ValueError, match="finite and positive"):
        before.one_of_each(begins.assign(divergent=np.inf))


@pytest.mark.slow
def test_a_grid_has_a_row_for_each_run_and_its_control_number(images):
    base = nin.RunConfig(widths=(7, 6), lr=0.1, steps=20, batch_size=30, layer="layers.0", eval_points=0)
    table = study.over_a_grid(
        base, images, sigmas=[0.1, 3e4], etas=[0.05, 0.1], seeds=[0, 1], probes=stored_as({"performance": performance}),
        probe_samples=40,
    )  # fmt: skip
    loss = table[table["quantity"] == "loss"]
    assert len(loss) == 8 and not loss.duplicated(["sigma", "lr", "seed"]).any()
    assert set(loss[loss["sigma"] == 3e4]["phase"]) <= {"catapult", "divergent"}
    assert set(loss[loss["value"].isna()]["phase"]) <= {"divergent"}
    one = loss[(loss["sigma"] == 0.1) & (loss["lr"] == 0.1) & (loss["seed"] == 1)].iloc[0]
    rates = before.critical_rates(base, images, sigmas=[0.1], seeds=[1])
    assert one["kappa_1"] == pytest.approx(2 * 0.1 / rates[1][0.1])
    model = nin.train(base.replace(sigma=0.1, seed=1), data=images).model(0).network
    assert one["value"] == pytest.approx(
        value(performance(model, images.x_test[:40], images.y_test[:40]), "loss"), rel=1e-6
    )


def test_a_failed_probe_is_not_ignored(images, tmp_path):
    def fails(model, x, y):
        raise ArithmeticError("no")

    base = nin.RunConfig(widths=(3,), steps=2, batch_size=30)
    options = {"seeds": [0], "snapshots": [0, 2], "probe_samples": 20, "store": tmp_path}
    with pytest.warns(UserWarning, match="probes failed"), pytest.raises(RuntimeError, match="'fails' failed at 2"):
        study.read_runs(base, images, [1.0], probes={"fails": fails}, **options)


@pytest.mark.slow
def test_a_convolutional_network_is_read_the_same_way(images, tmp_path):
    hidden = ["act1", "act2", "act3"]
    probes = four_probes(
        node="dense", lr=0.1, hidden=hidden, patches=4, masked=2, deformed=10, delta=0.7, kernel_samples=3
    )
    base = nin.RunConfig(steps=20, batch_size=30, lr=0.05)
    network = partial(SmallConvolutional, side=16, channels=2, classes=3)
    frame, readings = study.read_runs(
        base, images, [1.0], seeds=[0], snapshots=[0, 20], probes=stored_as(probes), probe_samples=60, network=network,
        store=tmp_path,
    )  # fmt: skip
    assert set(readings[readings["quantity"] == "R"]["layer"]) == {*hidden, "output"}
    assert frame["run"].nunique() == 2 and readings.groupby("run")["step"].nunique().eq(2).all()

"""Catches a study that measures something else than it says, on networks small enough to know the answer."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import drawn, is_empty, of, panels_in

from nin import RunConfig, load_data
from nin.probes.response import fragility as probes
from nin.probes.response import kernel
from nin.theory.response import constant_kernel
from studies.statistics import geometric_band
from studies.training_response import aging
from studies.training_response import figures as plots
from studies.training_response.identities import aging_checks, kernel_checks, method_checks, one_step_checks
from studies.training_response.measure import (
    along_training,
    balance,
    by_distance,
    drift_by_width,
    features,
    fragility,
    plasticity,
    reading,
    slopes,
    splitting,
    task,
)
from studies.training_response.networks import SimpleNetworks, SimpleRecipe
from studies.training_response.stochastic import MEASURES, contrast
from studies.training_response.with_a_node import along_runs

SMALL = SimpleRecipe(seeds=(0, 1), inputs=5, hidden=6, activations=("tanh", "relu"), losses=("mse", "ce"))


def test_tasks():
    for name, expected in (("sign", lambda x: x[..., 0]), ("xor", lambda x: x[..., 0] * x[..., 1])):
        x, y = task(name, SMALL, 16)
        assert torch.equal(y, expected(x))
    x, y = task("random", SMALL, 16)
    assert x.shape == (2, 16, 5) and set(y.unique().tolist()) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="name='and' is unknown"):
        task("and", SMALL)


def test_reading_is_that_of_each_network():
    networks, (x, y) = SimpleNetworks(SMALL), task("random", SMALL, 16)
    table = reading(networks, x, y, responders=4).set_index(["seed", "activation", "loss"])
    assert len(table) == 8
    row, network = table.loc[1, "relu", "ce"], networks.module(1, 1, 1)
    own = kernel(network, x[1]).diagonal()
    assert row["self_kernel"] == pytest.approx(own.mean().item(), rel=1e-12)
    assert row["stability"] == pytest.approx(0.1 * own.mean().item(), rel=1e-12)
    assert row["accuracy"] == (network(x[1])[:, 0].sign() == y[1]).double().mean().item()
    exact = networks.exact_responses(x[:, :4], y[:, :4])[1, 1, 1].diagonal()
    assert row["response"] == pytest.approx(exact.abs().mean().item(), rel=1e-12)


def test_along_training_and_slopes():
    x, y = task("random", SMALL, 16)
    table, networks = along_training(SMALL, x, y, 60, points=6, responders=2)
    assert table["step"].max() == 60 and (table.loc[table["step"] == 0, "drift"] == 0).all()
    assert (table.loc[table["step"] == 60, "drift"] > 0).all()
    again = SimpleNetworks(SMALL)
    list(again.train(x, y, 60))
    torch.testing.assert_close(again.w, networks.w)
    power = pd.DataFrame(
        {"seed": 0, "activation": "tanh", "loss": "ce", "step": [0, 1, 10, 100], "value": [9, 1, 0.1, 0.01]}
    )
    fit = slopes(power, "value", low=1, high=100)
    assert fit[["slope", "r2"]].to_numpy()[0] == pytest.approx([-1, 1])


def test_kernel_profile():
    networks, (x, _) = SimpleNetworks(SMALL), task("random", SMALL, 16)
    table = by_distance(networks, x)
    row = table[(table["seed"] == 1) & (table["activation"] == "relu") & (table["loss"] == "ce")].set_index("distance")[
        "value"
    ]
    exact = kernel(networks.module(1, 1, 1), x[1]).numpy()
    hamming = ((x[1, :, None] - x[1]).abs().sum(-1) / 2).numpy()
    for distance, value in row.items():
        assert value == pytest.approx(exact[hamming == distance].mean() / exact.diagonal().mean(), rel=1e-10)


def test_features_fragility_and_balance():
    networks = SimpleNetworks(SMALL)
    table = features(networks)
    assert len(table) == 8 and table["effective_rank"].between(1, 6).all() and table["live_units"].between(0, 1).all()
    first = networks.v[0, 0, 0, 0] ** 2 - (networks.w[0, 0, 0, 0] ** 2).sum() - networks.b[0, 0, 0, 0] ** 2
    assert balance(networks)[0, 0, 0, 0] == first


@pytest.mark.parametrize("scaling", ["standard", "ntk"])
def test_fragility_is_that_of_the_probes(scaling):
    """Network by network, as modules, with the same random numbers."""
    recipe = replace(SMALL, scaling=scaling)
    networks, (x, y) = SimpleNetworks(recipe), task("xor", recipe, 16)
    list(networks.train(x, y, 300))
    found = fragility(networks, x, y).set_index(["seed", "activation", "loss"])
    for s, a, k in np.ndindex(*networks.c.shape):
        model, generator = networks.module(s, a, k), torch.Generator().manual_seed(0)
        expected = {
            "error": probes.error_rate(model(x[s]).detach(), y[s]),
            "flips": probes.flips(model, x[s], noise=0.5, generator=generator),
            "worst_neuron": probes.worst_neuron(model, x[s], y[s], layer="1"),
            "weight_noise": probes.weight_noise(model, x[s], y[s], generator=generator),
            "margin": probes.margin(model, x[s]),
        }
        row = found.loc[recipe.seeds[s], recipe.activations[a], recipe.losses[k]]
        assert row[list(expected)].to_dict() == pytest.approx(expected, rel=1e-12)


def test_relu_conserves_the_balance_under_small_steps():
    recipe = SimpleRecipe(seeds=(0,), inputs=5, hidden=6, activations=("relu",), losses=("mse",), eta=1e-3, batch=None)
    networks, (x, y) = SimpleNetworks(recipe), task("xor", recipe, 16)
    start, weights = balance(networks), networks.w.clone()
    list(networks.train(x, y, 500))
    assert ((balance(networks) - start).abs() < 1e-3 * start.abs().max()).all()
    assert (networks.w - weights).abs().max() > 0.01


def test_plasticity_counts_steps_and_stops_at_the_cap():
    x, y = task("sign", SMALL, 8)
    table = plasticity(SMALL, x, y, (10, 200), cap=400, every=10)
    assert len(table) == 16 and table["relearning"].between(10, 400).all()
    assert (plasticity(SMALL, x, y, (200,), cap=10, every=5)["relearning"] == 10).all()
    fresh = plasticity(SMALL, x, y, (0,), cap=400, every=10)
    assert (fresh["before"] == 0).all() and (fresh["relearning"] < 400).any()


def test_splitting_compares_pairs_at_the_border():
    table = splitting(SMALL, 30, points=3, count=8)
    assert set(table["bias"]) == {0.0, 1.0} and set(table["step"]) >= {0, 30}
    assert table["ratio"].to_numpy() == pytest.approx(((1 - table["across"]) / (1 - table["within"])).to_numpy())
    recipe = replace(SMALL, inputs=1, losses=("mse", "mse"), bias=(1.0, 0.0))
    places = torch.tensor([[-0.15], [0.15], [0.45]], dtype=torch.float64)
    exact = kernel(SimpleNetworks(recipe).module(1, 1, 0), places)
    row = of(table, seed=1, activation="relu", bias=1.0, step=0).iloc[0]
    size = exact.diagonal().sqrt()
    assert row["across"] == pytest.approx((exact[0, 1] / size[0] / size[1]).item(), rel=1e-12)
    assert row["within"] == pytest.approx((exact[1, 2] / size[1] / size[2]).item(), rel=1e-12)


def test_drift_falls_with_width_in_both_scalings():
    wide = drift_by_width(SMALL, (8, 128), 50)
    drift = wide.groupby(["scaling", "hidden"])["drift"].mean()
    assert all(drift[scaling, 128] < drift[scaling, 8] for scaling in ("ntk", "standard"))
    start = SimpleNetworks(SimpleRecipe(scaling="ntk", eta=0.3, losses=("mse",), activations=("tanh",)))
    x, y = task("random", start.recipe)
    assert reading(start, x, y, responders=1)["stability"].mean() == pytest.approx(0.7, abs=0.1)


def test_runs_with_a_node_in_each_phase():
    table = along_runs(
        RunConfig(steps=40, widths=(16,)), load_data("digits"), [0.1, 1e4], points=4, probes=4, responders=2
    )
    assert table.loc[table["sigma"] == 0.1, "step"].max() == 40
    assert (table["response"] > 0).all() and set(table["phase"]) == {"decoupled", "divergent"}
    assert len(table[table["sigma"] == 1e4]) < len(table[table["sigma"] == 0.1])
    panels = panels_in(plots.phases(table))
    for ax, quantity in zip(panels, ("response", "self_kernel", "niw_norm"), strict=True):
        assert drawn(ax, r"decoupled, $\sigma=0.1$")[1].tolist() == of(table, sigma=0.1)[quantity].tolist()


def test_identities_hold():
    for check in one_step_checks() + kernel_checks(width=2048) + aging_checks() + method_checks():
        assert check.holds, check


@pytest.mark.slow
def test_figures():
    x, y = task("random", SMALL, 16)
    table, networks = along_training(SMALL, x, y, 40, points=4, responders=2)
    profile = by_distance(networks, x).assign(state="end").to_dict("records")
    run = constant_kernel("ce", K=1, eta=0.5, steps=50)
    law = pd.DataFrame({"loss": "ce", "step": run.step[1:]})
    for quantity in ("logit", "p", "error"):
        law[quantity] = law[f"{quantity}_law"] = getattr(run, quantity)[1:]
    cap = table.assign(study="cap", eta=0.1, sigma=0.0, u=np.nan)
    noise = table.assign(study="noise", eta=0.1, sigma=0.5, u=table["step"] * 0.01)
    states = [fragility(networks, x, y).assign(training=way) for way in ("GD", "label noise")]
    start = {"activation": "tanh", "loss": "mse"}
    of_kernel = geometric_band(of(table, **start, step=40)["self_kernel"]).mean
    split = splitting(SMALL, 10, points=2, count=8)
    runs = contrast(SMALL, 40, etas=(0.05, 0.05), sigmas=(0.0, 0.5), points=3)
    moved = drift_by_width(SMALL, (8, 16), 20)
    one = aging.prefactors(along_training(SMALL, x[:, :1], y[:, :1], 200, points=9, responders=1)[0])
    records = [{"activation": "tanh", "loss": "ce", "a": 0.1, "prefactor": 1.2}]
    relearned = plasticity(SMALL, x, y, (5, 10), cap=20, every=5)
    # Figure, panel, label of a curve, and its last y
    expected = (
        (plots.constant_kernel(law), 2, "CE", law["error"].iloc[-1]),
        (plots.aging(table, low=5, high=40), 2, "tanh", of_kernel),
        (plots.factors(table, distances=profile), 0, "tanh", of(table, **start, step=40)["output_share"].mean()),
        (plots.methods(table.assign(method="sgd")), 0, "SGD", geometric_band(of(table, step=40)["response"]).mean),
        (plots.stochastic(pd.concat([cap, noise])), 0, "relu", of(cap, activation="relu")["stability"].mean()),
        (plots.prefactor(one, ends=records), 1, "$1+a$", 1.11),
        (plots.widths(moved), 0, r"NTK scaling, $\eta$ fixed",
         geometric_band(of(moved, scaling="ntk", hidden=16)["drift"]).mean),
        (plots.contrast(runs, measures=MEASURES), 0, "relu, GD",
         of(runs, training="GD", activation="relu", step=40)["effective_rank"].mean()),
        (plots.fragility(pd.concat(states)), 3, "tanh", of(states[1], activation="tanh")["margin"].mean()),
        (plots.plasticity(relearned, cap=20), 0, "MSE",
         geometric_band(of(relearned, loss="mse", before=10)["relearning"]).mean),
    )  # fmt: skip
    for figure, panel, label, last in expected:
        shown = panels_in(figure)
        assert not any(is_empty(ax) for ax in shown)
        assert drawn(shown[panel], label)[1][-1] == pytest.approx(last)
    first, second = panels_in(plots.splitting(split))
    for ax, bias in ((first, 1.0), (second, 0.0)):
        rows = of(split, bias=bias, activation="relu")
        grown = rows[rows["step"] == 10]["ratio"].to_numpy() / rows[rows["step"] == 0]["ratio"].to_numpy()
        assert drawn(ax, "relu")[1][-1] == pytest.approx(geometric_band(grown).mean)

"""Catches claims about the training response that cannot fail, or whose rival passes: tables with a known answer."""

import numpy as np
import pandas as pd
import pytest

from studies.training_response import aging, claims
from studies.training_response.measure import along_training, task
from studies.training_response.networks import ETA, SimpleRecipe
from studies.training_response.stochastic import GD, MEASURES, NOISE, REST, SGD, changes, contrast, rank_ratio

SEEDS = range(6)


def test_prefactors_of_a_power_law():
    """K = t^a: t R / c and t K / int K dt are both 1 + a."""
    t = np.concatenate([[0.0], np.geomspace(1, 1e5, 400)])
    K = t**0.25
    R = 1.25 / np.maximum(t, 1)
    rows = pd.DataFrame({"seed": 0, "activation": "tanh", "loss": "sigmoid_mse", "step": t, "self_kernel": K})
    table = rows.assign(response=R / 2)
    found = aging.prefactors(table)
    assert found["measured"].to_numpy() == pytest.approx(1.25)
    assert found["law"].iloc[-1] == pytest.approx(1.25, rel=1e-3)
    assert aging.gain([0.1, 0.2], [1.1, 1.2]) == pytest.approx(1) and aging.gain([0.1, 0.2], [1, 1]) == 0


def test_prefactor_of_networks_with_one_datum():
    recipe = SimpleRecipe(seeds=(0, 1), activations=("tanh", "relu"), losses=("ce",))
    x, y = task("random", recipe, 1)
    table, _ = along_training(recipe, x, y, 3000, points=40, responders=1)
    ends = aging.at_the_end(table, ETA)
    (check,) = claims.prefactor(ends)
    assert check.holds and check.rival == pytest.approx(0, abs=0.02)
    with pytest.raises(ValueError, match="ends at step 50"):
        aging.at_the_end(table.assign(step=table["step"].clip(upper=50)), ETA)


def runs(rank: dict, flips: dict) -> pd.DataFrame:
    rows = []
    for training, sigma in ((GD, 0.0), (SGD, 0.0), (NOISE, 0.5), (NOISE, 0.7)):
        for activation in ("tanh", "relu"):
            for seed in SEEDS:
                for step, u in ((0, 0.0), (400_000, 40.0)):
                    values = {"effective_rank": rank[training] + seed / 10, "worst_neuron": 0.1 + seed / 100}
                    values |= {"flips": flips[training] + seed / 100, "error_all": 0.3 - seed / 100}
                    place = {"training": training, "sigma": sigma, "activation": activation, "seed": seed}
                    rows.append(place | values | {"eta": 0.02, "step": step, "u": u, "moved": 1e-4, "left": 0.5})
    return pd.DataFrame(rows)


def test_reduction_sees_what_was_planted():
    table = runs({GD: 20.0, SGD: 19.0, NOISE: 3.0}, {GD: 0.1, SGD: 0.1, NOISE: 0.3})
    found = {check.name: check for check in claims.reduction(table)}
    assert found["tanh: effective rank, label noise / GD"].holds
    assert found["tanh: share of flips by noise surely rises, GD to label noise"].holds
    assert not found["relu: share of flips by noise surely falls, GD to label noise"].holds
    assert not found["tanh: error on all strings surely falls, GD to label noise"].holds  # no change
    assert not found["tanh: error without the worst neuron surely rises, GD to label noise"].holds
    assert all(check.tests for check in found.values())
    assert rank_ratio(table, "relu", NOISE) == pytest.approx(3 / 20, abs=0.02)
    assert changes(table, "tanh", NOISE)["effective_rank"].mean == pytest.approx(-17)
    assert changes(table, "tanh", GD, other_seeds=True)["effective_rank"].mean == pytest.approx(0)
    short = claims.reduction(table.assign(u=table["u"] / 2))
    assert not any("label noise / GD" in check.name for check in short)


def test_balance():
    table = runs({GD: 2.0, SGD: 2.0, NOISE: 2.0}, {GD: 0.1, SGD: 0.1, NOISE: 0.1})
    left = table["training"].map({GD: 1.0, SGD: 0.8, NOISE: 0.6})
    moved = table["training"].map({GD: 1e-4, SGD: 0.2, NOISE: 0.4})
    assert all(check.holds for check in claims.conserved(table.assign(left=left, moved=moved)))
    assert not any(check.holds for check in claims.conserved(table.assign(left=0.6, moved=1e-4)))


def test_contrast_keeps_a_network_that_rests():
    recipe = SimpleRecipe(seeds=(0, 1), activations=("relu",), inputs=4, hidden=16)
    with pytest.raises(ValueError, match="must be 0, and then"):
        contrast(recipe, 10, etas=(0.05,), sigmas=(0.5,))
    wide = SimpleRecipe(seeds=(0, 1), activations=("relu",), inputs=6, hidden=64)
    table = contrast(wide, 400, etas=(0.05, 0.05), sigmas=(0.0, 0.5), points=6)
    assert sorted(set(table["training"])) == sorted((GD, SGD, NOISE)) and set(MEASURES) <= set(table)
    end = table[table["step"] == 400]
    assert end["u"].to_numpy() == pytest.approx(0.05**2 * 0.25 * 400)
    assert table.groupby(["training", "seed"])["step"].apply(list).map(len).nunique() == 1
    start = table[table["step"] == 0].groupby("training")["effective_rank"].mean()
    assert start.nunique() == 1 and REST < 1e-6


def test_width_needs_the_ntk_scaling():
    H, seeds = np.array([64, 256, 2048]), (0, 1, 2)
    parts = []
    for scaling, power in (("ntk", -0.9), ("standard", -1.5)):
        for seed in seeds:
            drift = 0.2 * (H / 64.0) ** power * (1 + seed / 50)
            parts.append(pd.DataFrame({"scaling": scaling, "hidden": H, "seed": seed, "drift": drift, "share": 0.99}))
    moved = pd.concat(parts)
    assert all(check.holds for check in claims.width(moved))
    swapped = moved.assign(scaling=moved["scaling"].map({"ntk": "standard", "standard": "ntk"}))
    assert not claims.width(swapped)[0].holds


def test_plasticity_and_splitting():
    times = {"mse": (100, 110, 120), "ce": (100, 100, 100), "sigmoid_mse": (100, 400, 20_000)}
    flip = pd.DataFrame([
        {"loss": loss, "seed": seed, "before": before, "relearning": time * (1 + seed / 100)}
        for loss, row in times.items() for seed in SEEDS for before, time in zip((0, 100, 1000), row, strict=True)
    ])  # fmt: skip
    assert all(check.holds for check in claims.plasticity(flip))
    late = flip.assign(relearning=flip["relearning"].clip(upper=5000))
    assert [check.holds for check in claims.plasticity(late)] == [True, True, False]
    split = pd.DataFrame([
        {"bias": bias, "activation": "tanh", "seed": seed, "step": step, "ratio": 1 + growth * step}
        for bias, growth in ((1.0, 4.0), (0.0, 0.1)) for seed in SEEDS for step in (0, 1)
    ])  # fmt: skip
    (check,) = claims.splitting(split)
    assert check.holds and (check.measured, check.rival) == pytest.approx((5, 1.1))


def test_aging_separates_the_sigmoid_units():
    rows = [
        (seed, activation, loss, -4.0 if loss == "mse" else -1.6 if activation == "sigmoid" else -1.05, 0.95)
        for seed in SEEDS for activation in ("tanh", "sigmoid") for loss in ("mse", "ce", "sigmoid_mse")
    ]  # fmt: skip
    response = pd.DataFrame(rows, columns=["seed", "activation", "loss", "slope", "r2"])
    response.loc[response["loss"] == "mse", "r2"] = 0.8
    kernel = response.assign(slope=0.2)
    held = {check.name: check.holds for check in claims.aging(response, kernel)}
    assert held.pop("aging, CE, sigmoid units: steepest slope") is False
    assert held.pop("aging, sigmoid + MSE, sigmoid units: steepest slope") is False
    assert all(held.values())
    held = {check.name: check.holds for check in claims.exponents(response, kernel)}
    assert held["last decade, CE, other units: exponent"] and not held["last decade, CE, sigmoid units: exponent"]
    product = response.assign(slope=-0.8)  # a constant-kernel law times the kernel
    assert not any(check.holds for check in claims.exponents(product, kernel))

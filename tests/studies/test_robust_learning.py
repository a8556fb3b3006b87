"""Catches: corruptions that are not what they say, attacks that do not attack, a method that trains another network."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from nin import load_data
from nin.model.losses import cross_entropy, score
from nin.model.networks import MLP
from studies.robust_learning.attacks import fgsm, pgd
from studies.robust_learning.comparisons import NULL, by_network, contrast, difference, gains
from studies.robust_learning.corruptions import CORRUPTIONS, Pixels, corrupt
from studies.robust_learning.measure import choices, digits_as_mnist, evaluate, fit_each, phases_of, tune
from studies.robust_learning.phases import Watcher, borders, predicted
from studies.robust_learning.quadratic_law import quadratic_law
from studies.robust_learning.recipes import METHODS, Recipe, fit, start


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def gray(digits):
    """Images of one middle grey, which no noise of small strength clips."""
    pixels = Pixels.of(digits)
    return pixels, pixels.rows(np.full((400, 8, 8), 0.5))


def test_pixels_go_there_and_back(digits):
    pixels = Pixels.of(digits)
    images = pixels.images(digits.x_test)
    assert (images.min(), images.max()) == (pytest.approx(0, abs=1e-7), pytest.approx(1, abs=1e-7))
    torch.testing.assert_close(pixels.rows(images), digits.x_test)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_strength_zero_changes_nothing_and_pixels_stay_in_range(digits, kind):
    pixels = Pixels.of(digits)
    x = digits.x_test[:50]
    torch.testing.assert_close(corrupt(x, kind, 0.0, pixels=pixels), x, rtol=1e-6, atol=1e-6)
    worse = pixels.images(corrupt(x, kind, 0.7, pixels=pixels))
    assert worse.min() > -1e-6
    assert worse.max() < 1 + 1e-6
    assert torch.equal(corrupt(x, kind, 0.7, pixels=pixels, seed=3), corrupt(x, kind, 0.7, pixels=pixels, seed=3))


def test_noises_have_their_distributions(digits):
    pixels, x = gray(digits)
    normal = pixels.images(corrupt(x, "gaussian", 0.1, pixels=pixels)).ravel() - 0.5
    assert stats.kstest(normal / 0.1, "norm").pvalue > 1e-3
    flat = pixels.images(corrupt(x, "uniform", 0.2, pixels=pixels)).ravel() - 0.5
    assert stats.kstest(flat, stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3
    pepper = pixels.images(corrupt(x, "salt_and_pepper", 0.3, pixels=pixels))
    assert (pepper < 0.01).mean() == pytest.approx(0.15, abs=0.01)
    assert (pepper > 0.99).mean() == pytest.approx(0.15, abs=0.01)


def test_structured_corruptions_do_what_they_say(digits):
    pixels = Pixels.of(digits)
    images, point = pixels.images(digits.x_test[:20]), np.zeros((1, 8, 8))
    point[0, 4, 4] = 1.0
    low = pixels.images(corrupt(digits.x_test[:20], "contrast", 0.6, pixels=pixels))
    np.testing.assert_allclose(low.std((1, 2)), 0.4 * images.std((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(low.mean((1, 2)), images.mean((1, 2)), rtol=1e-5)
    blurred = pixels.images(corrupt(pixels.rows(point), "blur", 1.0, pixels=pixels))[0]
    assert blurred[4, 4] == pytest.approx(1 / (2 * np.pi), rel=0.03)  # the peak of a Gaussian of width one
    assert blurred[4, 5] / blurred[4, 4] == pytest.approx(np.exp(-0.5), rel=1e-3)
    moved = pixels.images(corrupt(pixels.rows(point), "translation", 2.0, pixels=pixels))[0]
    rows, columns = np.indices((8, 8))
    away = np.array([(moved * rows).sum(), (moved * columns).sum()]) / moved.sum() - 4
    assert np.linalg.norm(away) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "strength", "message"),
    [("rain", 0.1, "kind='rain'"), ("blur", -1, "strength=-1"), ("contrast", 1.5, "strength=1.5 of contrast")],
)
def test_bad_corruptions_are_named(digits, kind, strength, message):
    with pytest.raises(ValueError, match=message):
        corrupt(digits.x_test[:2], kind, strength, pixels=Pixels.of(digits))


def test_attacks_on_a_linear_model_are_the_worst_case():
    """There the worst point of the ball is a corner: FGSM reaches it, and PGD cannot do worse."""
    torch.manual_seed(0)
    model, y = nn.Linear(6, 2).double(), torch.tensor([0, 1, 1, 0])
    x = torch.rand(4, 6, dtype=torch.float64)
    direction = (model.weight[1] - model.weight[0]).sign() * torch.where(y == 0, 1.0, -1.0)[:, None]
    worst = (x + 0.05 * direction).clamp(0, 1).detach()
    bounds = {"loss": cross_entropy, "radius": 0.05, "low": 0.0, "high": 1.0}
    torch.testing.assert_close(fgsm(model, x, y, **bounds), worst)
    torch.testing.assert_close(pgd(model, x, y, **bounds), worst)


def test_pgd_stays_in_the_ball_and_beats_fgsm(digits):
    network = fit(Recipe(steps=200, width=32), digits, seed=0)
    pixels = Pixels.of(digits)
    x, y = digits.x_test, digits.y_test
    bounds = {"loss": cross_entropy, "radius": 0.5, "low": pixels.low, "high": pixels.high}
    one, many = fgsm(network, x, y, **bounds), pgd(network, x, y, **bounds)
    for moved in (one, many):
        assert (moved - x).abs().max() <= 0.5 + 1e-5
        assert moved.min() >= pixels.low - 1e-6
        assert moved.max() <= pixels.high + 1e-6
    losses = [cross_entropy(network(moved), y).mean().item() for moved in (x, one, many)]
    assert losses[0] < losses[1] <= losses[2] * 1.001


@pytest.mark.parametrize("architecture", ["fully_connected", "convolutional"])
def test_methods_of_no_strength_train_the_plain_network(digits, architecture):
    """sigma = 0, dropout 0 and weight decay 0 are none of them; each changes something when it is on."""
    base = Recipe(architecture=architecture, steps=12, width=16, batch_size=64)
    plain = fit(base, digits, seed=1)
    for method in METHODS[1:]:
        off, on = (fit(replace(base, method=method, strength=strength), digits, seed=1) for strength in (0.0, 0.5))
        for one, other in zip(plain.parameters(), off.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(next(plain.parameters()), next(on.parameters()), rtol=1e-6, atol=1e-8)


def niw_along(recipe: Recipe, digits, steps=(0, 12)) -> list[torch.Tensor]:
    seen = {}
    fit(recipe, digits, seed=1, watch=lambda step, model: seen.setdefault(step, model.niw.detach().clone()))
    return [seen[step] for step in steps]


def test_frozen_weights_of_a_node_do_not_move_and_others_do(digits):
    base = Recipe(steps=12, width=16, batch_size=64, strength=3.0)
    first, last = niw_along(replace(base, method="nin_frozen"), digits)
    assert torch.equal(first, last)
    moved = niw_along(replace(base, method="nin_input"), digits)
    assert torch.equal(moved[0], first) and not torch.allclose(moved[1], first)


def test_fixed_noise_is_that_of_the_first_epoch_for_ever(digits):
    """The two modes agree up to the end of the first epoch, and only until then."""
    base = Recipe(width=16, batch_size=64, strength=3.0, steps=40)
    epoch = len(digits.x_train) // 64
    (one, one_later), (two, two_later) = (
        niw_along(replace(base, method=method), digits, (epoch, epoch + 1)) for method in ("nin_input", "nin_fixed")
    )
    assert torch.equal(one, two) and not torch.equal(one_later, two_later)


def test_gaussian_inputs_have_the_strength_they_say(digits):
    """One step of SGD on x + noise, by hand."""
    recipe = Recipe(method="gaussian", strength=0.4, steps=1, width=8, batch_size=64)
    network, _ = start(recipe, digits.x_train, digits.classes, 5)
    rows = torch.randperm(len(digits.x_train), generator=torch.Generator().manual_seed(7))[:64]
    scale = 0.4 * (digits.x_train.max() - digits.x_train.min())
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(6))
    loss = F.cross_entropy(network(digits.x_train[rows] + scale * noise), digits.y_train[rows])
    (gradient,) = torch.autograd.grad(loss, [network[0].weight])
    trained = fit(recipe, digits, seed=5)
    torch.testing.assert_close(trained[0].weight, network[0].weight - recipe.lr * gradient)


@pytest.mark.parametrize(("sigma", "phase"), [(0.01, "decoupled"), (10.0, "decay"), (3000.0, "divergent")])
def test_the_phase_of_a_run_and_the_predicted_one(digits, sigma, phase):
    recipe = Recipe(method="nin_input", strength=sigma, steps=150, width=32)
    watcher = Watcher(digits.x_train, digits.y_train, recipe.steps)
    fit(recipe, digits, seed=0, watch=watcher)
    assert watcher.phase() == phase == predicted(recipe, digits, seed=0).phase


@pytest.mark.slow
def test_borders_order_the_phases(digits):
    found = borders(Recipe(method="nin_input", strength=10.0, steps=150, width=32), digits, seeds=[0])
    assert 0.01 < found["decay"] < 10.0 < found["catapult"] < found["divergent"] < 3000.0


def test_phases_and_choices_of_a_scan(digits):
    table = tune(Recipe(steps=30, width=16), {"nin_input": (0.01, 0.1, 3000.0)}, digits, seeds=[0, 1])
    assert table["phase"].notna().sum() == table["kappa_1"].notna().sum() == 6
    scan = phases_of(table).set_index("strength")
    assert scan["phase"][0.01] == "decoupled (2 of 2)" and scan["phase"][3000.0] == "divergent (2 of 2)"
    strong = table[table["strength"] == 3000.0]
    plain = table[table["method"] == "none"]
    assert scan["noisy"][3000.0] == pytest.approx(strong["noisy"].mean() - plain["noisy"].mean())
    (row,) = choices(table).itertuples()
    assert row.strength in (0.01, 0.1) and row.edge == (row.strength == 0.01)


def accuracies() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    rows = [
        (method, seed, test, strength, 0.7 + up + 0.01 * draws.random())
        for method, up in (("none", 0.0), ("l2", 0.1)) for seed in range(4)
        for test, strengths in (("clean", (0.0,)), ("blur", (1.0, 2.0))) for strength in strengths
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "seed", "test", "strength", "accuracy"])


def test_comparisons_are_paired_by_seed():
    raw = accuracies()
    table = by_network(raw)
    per = raw.groupby(["method", "test", "seed"])["accuracy"].mean()
    steps = (per["l2", "blur"] - per["none", "blur"]).to_numpy()
    low, high = stats.ttest_1samp(steps, 0).confidence_interval(0.95)
    found = difference(table, ("blur",), "l2")
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    plain = per["none", "blur"].to_numpy()
    null = difference(table, ("blur",), NULL)
    assert null.mean == pytest.approx(0, abs=1e-12) and null.half == pytest.approx(
        stats.sem(np.roll(plain, 1) - plain) * stats.t.ppf(0.975, 3)
    )
    row = gains(table, {"b": ("blur",)}, ["l2"]).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    shares = [(per["l2", test] - per["none", test]) / (1 - per["none", test]) for test in ("blur", "clean")]
    assert contrast(table, ("blur",), ("clean",), "l2").mean == pytest.approx((shares[0] - shares[1]).mean())


def test_training_repeats_itself_and_leaves_random_numbers_alone(digits):
    recipe = Recipe(method="dropout", strength=0.3, steps=10, width=8)
    state = torch.random.get_rng_state()
    one, other = (fit(recipe, digits, seed=2) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_tune_and_evaluate_give_tidy_tables(digits):
    base = Recipe(steps=60, width=16)
    table = tune(base, {"dropout": (0.1, 0.5), "l2": (0.001,)}, digits, seeds=[0])
    assert table.groupby("method")["best"].sum().to_dict() == {"none": 1, "dropout": 1, "l2": 1}
    table["mean"] = (table["clean"] + table["noisy"]) / 2
    best = table[table["best"]].set_index("method")["mean"]
    assert best["dropout"] == table[table["method"] == "dropout"]["mean"].max()
    networks = fit_each({"none": base}, digits, seeds=range(2))
    for seed, network in enumerate(networks["none"]):
        alone = fit(base, digits, seed=seed)
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alone.parameters(), strict=True))
    found = evaluate(networks, digits, corruptions={"gaussian": (0.2, 0.8)}, attacks=(0.05,), attacked=64)
    assert found.columns.tolist() == ["method", "seed", "test", "strength", "accuracy"]
    assert len(found) == 2 * (1 + 2 + 2)
    clean = found[(found["test"] == "clean") & (found["seed"] == 0)]["accuracy"].item()
    assert clean == score(networks["none"][0], digits.x_test, digits.y_test)
    mean = found.groupby(["test", "strength"])["accuracy"].mean()
    assert mean["clean", 0.0] > mean["gaussian", 0.2] > mean["gaussian", 0.8]
    assert mean["pgd", 0.05] <= mean["fgsm", 0.05] < mean["clean", 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "mixup"}, "method='mixup'"),
        ({"architecture": "vit"}, "architecture='vit'"),
        ({"method": "dropout", "strength": 1.0}, "strength=1.0 of dropout"),
        ({"strength": -1.0}, "strength=-1.0"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_bad_recipes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


def test_quadratic_law_of_a_smooth_network(digits):
    """Prediction 18: within 2 % at small sigma |W|, in float64; it ends at large sigma."""
    model = MLP(64, (32, 32), 10, activation="tanh", dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, y = digits.x_train[:512].double(), digits.y_train[:512]
    law = quadratic_law(model, "layers.0", x, y, loss=F.cross_entropy, sigmas=(0.02, 3.0), pairs=8)
    small, large = law.iloc[0], law.iloc[1]
    assert small["rise"] == pytest.approx(small["rise_law"], rel=0.02)
    assert small["pull_mean"] / small["pull_law"] == pytest.approx(small["rise_mean"] / small["rise_law"])
    assert small["pull"] == pytest.approx(small["pull_law"], rel=0.02)
    assert abs(large["rise"] / large["rise_law"] - 1) > 0.1


@pytest.mark.slow
def test_digits_drawn_as_mnist_are_images_of_mnist():
    try:
        mnist = load_data("mnist", n_train=1000)
    except OSError as error:
        pytest.skip(f"MNIST is not at hand: {error}")
    x, y = digits_as_mnist(mnist)
    assert x.shape == (1797, 784)
    assert len(y) == 1797
    assert x.mean().item() == pytest.approx(mnist.x_train.mean().item(), abs=0.3)
    network = fit(Recipe(steps=400, width=64), mnist, seed=0)
    assert 0.3 < score(network, x, y) < score(network, mnist.x_test, mnist.y_test)


def test_other_sizes_are_refused(digits):
    with pytest.raises(ValueError, match="8 x 8"):
        digits_as_mnist(digits)

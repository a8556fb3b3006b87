"""Catches networks that are not what their names say, and verdicts that the numbers do not bear out."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nin.model.data import as_images, available
from nin.model.losses import score
from nin.support import paths
from studies.image_networks import ARCHITECTURES, ImageRecipe, build, fit_images
from studies.images import SCALE, first_at_hand, scale_images
from studies.scale_detection import figures as scale_plots
from studies.scale_detection.measure import ConstantCase, amplitude_cases, constant_case, tanh_G, trained_cases
from studies.scale_detection.networks import ScaleRecipe
from studies.scale_detection.task import ScaleTask
from studies.spatial_stability import figures as plots
from studies.spatial_stability.claims import D_FALLS, D_LOWER, D_STAYS, G_GROWS, Claim, claims, still_hold, summary
from studies.spatial_stability.identities import ensemble_checks, network_checks
from studies.spatial_stability.measure import (
    after_training,
    before_and_after,
    deformation_size,
    gallery,
    layer_sensitivities,
    over_initial,
)
from studies.spatial_stability.verdicts import count_checks, deep_checks, levels, noise_checks, small_scale_checks
from studies.statistics import geometric_band


@pytest.fixture(scope="module")
def data():
    return scale_images(96, 40, side=24, xi=6, gap=2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_networks_are_seeded_and_named_by_layer(architecture):
    recipe = ImageRecipe(architecture=architecture, channels=4)
    state = torch.random.get_rng_state()
    network = build(recipe, 28, 10, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    names = [name for name, _ in network.named_children()]
    assert names[-1] == "head" and ("pool" in names) == architecture.endswith("_gap")
    again = build(recipe, 28, 10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.numel() > 500:
            assert module.weight.std().item() == pytest.approx((2 / module.weight[0].numel()) ** 0.5, rel=0.15)
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked == 0
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.slow
def test_a_network_learns():
    data = scale_images(256, 100, side=24, xi=6, gap=2)
    x = as_images(data.x_train)
    network = fit_images(ImageRecipe(architecture="strided", epochs=40), x, data.y_train, classes=2, seed=0)
    assert not network.training
    assert score(network, x, data.y_train) > 0.9


def test_vgg9_has_nine_convolutions_and_ends_in_one_pixel():
    network = build(ImageRecipe(architecture="vgg9", channels=4), 28, 10, seed=0)
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 9
    assert network.head[1].in_features == 16 and network[:-1](torch.zeros(2, 1, 28, 28)).shape == (2, 16, 1, 1)
    with pytest.raises(ValueError, match="side=8 must be an integer >= 16"):
        build(ImageRecipe(architecture="vgg9"), 8, 10, seed=0)


def test_layers_are_named_by_their_place(data):
    network = build(ImageRecipe(architecture="vgg9", channels=2), 24, 2, seed=0)
    frame = layer_sensitivities(network, as_images(data.x_test), seed=3)
    named = frame[frame["at"] != ""].set_index("at")["layer"].to_dict()
    assert named == {"first": "conv1", "middle": "conv5", "last hidden": "conv9", "output": "head"}
    assert (frame["seed"] == 3).all() and frame["place"].iloc[[0, -1]].tolist() == [0, 1]


@pytest.mark.slow
def test_study_tables_and_figures(data):
    recipes = [ImageRecipe(architecture=name, channels=2, epochs=1) for name in ("fully_connected", "vgg_gap")]
    measured, spectra = before_and_after(recipes, data, seeds=[0, 1])
    states = {"initial", "trained", "shuffled", "shuffled initial"}
    assert set(measured.loc[measured["architecture"] == "vgg_gap", "state"]) == states
    assert set(spectra["architecture"]) == {"vgg_gap"} and set(spectra["state"]) == {"initial", "trained"}
    assert measured.loc[measured["layer"] == "input", "R"].to_numpy() == pytest.approx(1, rel=1e-5)
    size = after_training(recipes[:1], data, sizes=[48, 96], seeds=[0, 1])
    assert len(size) == 4 * 5 and set(size["n_train"]) == {48, 96}
    table = claims(measured, spectra, size)
    known = {"reproduced", "not reproduced", "no detectable effect", "within control"}
    assert set(table["verdict"]) <= known
    assert len(table) == 2 * (3 * 2 + 2 * 4 + 3) + 3 + 1
    assert summary(table).shape == (3 * 2 + 2 * 4 + 3 + 3 + 1, 2)
    assert levels(measured).shape == (6, 4)
    ratios = over_initial(size, measured)
    first = ratios[(ratios["n_train"] == 96) & (ratios["at"] == "first") & (ratios["seed"] == 0)]["D"].item()
    D = measured[(measured["architecture"] == "fully_connected") & (measured["layer"] == "dense1")]
    D = D[D["seed"] == 0].set_index("state")["D"]
    assert first == pytest.approx(D["trained"] / D["initial"], rel=1e-4)  # the same network, trained again
    both = pd.concat([size.assign(study="size"), ratios.assign(study="noise")])
    for draw, shown in [
        (plots.sensitivities, measured), (plots.spectra, spectra), (plots.shuffled, measured), (plots.ratios, table),
        (plots.size_and_noise, both), (plots.gallery, gallery(as_images(data.x_test)[0, 0], [0.0, 0.2], [2, 3], 0)),
    ]:  # fmt: skip
        assert draw(shown).axes
    with pytest.raises(ValueError, match="asks for more than the 96"):
        after_training(recipes, data, sizes=[97], seeds=[0])


def test_noise_is_as_large_as_the_deformation():
    """The same number from G of the input, whose noise has that norm, and the mean distance between images."""
    x = as_images(scale_images(4, 300, side=24, xi=6, gap=2).x_test)
    D = layer_sensitivities(nn.Sequential(nn.Flatten()), x)["D"].iloc[0]
    pair = 2 * x.var(0, correction=0).sum().item()
    assert deformation_size(x) == pytest.approx((D * pair / 24**2) ** 0.5, rel=0.05)


def test_shuffled_networks_have_the_weights_of_the_trained_ones(data):
    measured, _ = before_and_after([ImageRecipe(architecture="strided", channels=2, epochs=1)], data, seeds=[0])
    first = measured[measured["layer"] == "conv1"].set_index("state")
    assert first.loc["shuffled", "D"] == pytest.approx(first.loc["trained", "D"], rel=1e-5)  # one input channel
    assert measured[measured["layer"] == "head"].set_index("state")["D"].nunique() == 4


@pytest.mark.parametrize(
    ("ratios", "controls", "verdict"),
    [
        ([2.0, 2.1, 1.9], None, "reproduced"),
        ([2.0, 2.1, 1.9], [1.0, 1.1, 0.9], "reproduced"),
        ([2.0, 2.1, 1.9], [2.0, 2.2, 1.8], "within control"),
        ([2.0, 2.1, 1.9], [4.0, 4.1, 3.9], "within control"),
        ([0.5, 0.4, 0.6], None, "not reproduced"),
        ([0.5, 1, 2], [0.1, 0.1, 0.1], "no detectable effect"),
    ],
)
def test_verdicts_of_claims_that_a_ratio_is_above_1(ratios, controls, verdict):
    for side in (1, -1):
        values, others = (None if numbers is None else np.array(numbers) ** side for numbers in (ratios, controls))
        row = Claim("text", "strided", "output", side, values, "control", others).row()
        assert row[-1] == verdict
        band = geometric_band(values)
        assert row[3:6] == pytest.approx((band.mean, band.low, band.high))


def sensitivities_of(**trained):
    """A table of measured sensitivities: everything 1 but D or G of trained networks, by layer."""
    places = ["first", "middle", "last hidden", "output"]
    rows = [
        {"architecture": name, "seed": s, "state": state, "depth": k + 1, "place": (k + 1) / 4, "at": at, "R": 1.0,
         **{q: (trained.get(q, {}).get(at, 1) if state == "trained" else 1) * (1 + s / 100 * k) for q in "DG"}}
        for name in ("fully_connected", "vgg9") for s in range(3) for state in ("initial", "trained")
        for k, at in enumerate(places)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_fall_in_the_head_alone_does_not_count():
    """D falls only from the last hidden layer to the output: the collapse onto the label."""
    table = claims(sensitivities_of(D={"output": 0.3})).set_index(["claim", "at", "architecture"])
    assert table.loc[(D_FALLS, "output", "vgg9"), "verdict"] == "within control"
    assert table.loc[(D_FALLS, "output", "vgg9"), "ratio"] == pytest.approx(0.3, rel=0.05)
    assert table.loc[(D_FALLS, "last hidden", "vgg9"), "verdict"] == "no detectable effect"
    deep = claims(sensitivities_of(D={"last hidden": 0.3, "output": 0.1})).set_index(["claim", "at", "architecture"])
    assert deep.loc[(D_FALLS, "output", "vgg9"), "verdict"] == "reproduced"
    assert deep.loc[(D_FALLS, "last hidden", "vgg9"), "verdict"] == "reproduced"
    assert deep.loc[(D_LOWER, "last hidden", "vgg9"), "verdict"] == "reproduced"


def test_a_factor_common_to_D_and_G_does_not_count():
    both = {"last hidden": 0.3, "output": 0.3}
    table = claims(sensitivities_of(D=both, G=both)).set_index(["claim", "at", "architecture"])
    assert table.loc[(D_LOWER, "output", "vgg9"), "verdict"] == "within control"
    assert table.loc[(G_GROWS, "output", "vgg9"), "verdict"] == "not reproduced"


def test_what_still_holds_with_noise():
    fall = {"last hidden": 0.3, "output": 0.1}
    without = claims(sensitivities_of(D=fall))
    kept = {1.0: still_hold(without, without), 3.0: still_hold(without, claims(sensitivities_of()))}
    assert D_STAYS not in set(kept[1.0]["claim"]) and D_FALLS in set(kept[1.0]["claim"])
    (check,) = noise_checks(kept)
    assert check.measured == 1 and check.rival == 0 and check.holds
    (same,) = noise_checks({1.0: kept[1.0], 3.0: kept[1.0]})
    assert not same.holds  # the contrast passes too: nothing is tested


def test_checks_count_networks_and_have_rivals():
    table = claims(sensitivities_of(D={"last hidden": 0.3, "output": 0.1}, G={"first": 2.0, "middle": 2.0}))
    checks = {check.name: check for check in count_checks(table)}
    fall = checks["D falls with depth up to the last hidden layer, trained: networks"]
    assert (fall.measured, fall.predicted, fall.rival, fall.holds) == (2, 2, 0, True)
    grown = checks["G rises with depth up to the last hidden layer, trained: networks"]
    assert grown.measured == 0 and not grown.holds
    assert not any("channel" in name or "filters" in name for name in checks)  # no rows, no check
    everything = sensitivities_of(D={"last hidden": 0.3})
    extra = [everything.assign(architecture=name) for name in ("strided", "vgg_gap")]
    found = small_scale_checks(pd.concat([everything, *extra]))
    assert [check.rival for check in found] == [1, 1, 1] and not any(check.holds for check in found)


def test_deep_checks_read_the_end_of_the_interval_near_1():
    table = claims(sensitivities_of(D={"last hidden": 0.3, "output": 0.1}, G={"first": 2.0}))
    rows = [Claim(text, "vgg9", "output", 1, np.array([2.0, 2.1, 1.9]), "none", np.array([1.0, 1.1, 0.9])).row()
            for text in ("channel pooling: shuffling raises D, shuffled / trained",)]  # fmt: skip
    table = pd.concat([table, pd.DataFrame(rows, columns=table.columns)])
    fall, first, more, shuffled = deep_checks(table)
    assert fall.measured == pytest.approx(geometric_band([0.3 * (1 + s / 50) for s in range(3)]).high) and fall.holds
    assert shuffled.measured == pytest.approx(geometric_band([2.0, 2.1, 1.9]).low) and shuffled.holds
    assert not first.holds and not more.holds  # the fully connected network does the same


def test_data_at_hand(monkeypatch, tmp_path):
    monkeypatch.delenv("NIN_DATA", raising=False)
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    assert available("digits") and not available("mnist")
    name, data = first_at_hand(["fashion_mnist", "mnist"], n_train=8, n_test=4)
    assert name == SCALE and data.x_train.shape == (8, 784)
    monkeypatch.setenv("NIN_DATA", str(tmp_path))
    assert not available("fashion_mnist")
    with pytest.raises(ValueError, match="name='cifar' is unknown"):
        available("cifar")


@pytest.mark.slow
def test_identities_hold():
    for check in ensemble_checks(fields=4000) + network_checks():
        assert check.holds and check.rival is not None, check


@pytest.mark.parametrize(
    "case", [ConstantCase(length=256, depth=5), ConstantCase(F=3, stride=1, depth=3, length=512, rectified="never")]
)
def test_constant_cases_meet_their_closed_forms(case):
    table = constant_case(case, draws=16)
    assert (abs(table["measured"] / table["predicted"] - 1) < 0.05).all()
    assert scale_plots.constant_filters(table.assign(case="one")).axes


def test_tanh_of_small_pixels_is_linear_and_of_large_ones_follows_its_closed_form():
    table = amplitude_cases([0.01, 1.0, 10.0], length=128, depth=3)
    of = table.set_index(["net", "amplitude", "k"])["measured"].sort_index()
    assert of["tanh", 0.01].to_numpy() == pytest.approx(of["linear", 0.01].to_numpy(), rel=1e-3)
    assert of["relu", 0.01].to_numpy() == pytest.approx(of["relu", 10.0].to_numpy())
    first = table[table["k"] == 1]
    assert first["measured"].to_numpy() == pytest.approx(first["predicted"].to_numpy(), rel=0.03)
    assert of["tanh", 10.0, 1] > 5


def test_tanh_G_by_sampling():
    """A naive twin: the noise of two pixels, drawn."""
    A, L, draws = 3.0, 64, np.random.default_rng(0)
    noise = draws.normal(0, A * (2 / L) ** 0.5, (20_000, L))
    x = np.zeros(L)
    x[7] = A
    f, moved = np.tanh(x.reshape(-1, 2).mean(1)), np.tanh((x + noise).reshape(-1, L // 2, 2).mean(2))
    pair = 2 * (f**2).sum() * (1 - 2 / L)
    assert tanh_G(A, L) == pytest.approx(np.square(moved - f).sum(1).mean() / pair, rel=0.01)
    assert tanh_G(0.01, L) == pytest.approx(1 / (1 - 2 / L), rel=1e-3)


def test_trained_cases():
    task, recipe = ScaleTask(length=16, xi=4), ScaleRecipe(depth=4, channels=4, n_train=32, n_test=8, epochs=2)
    table = trained_cases({"a": (task, recipe)}, seeds=[0, 1])
    assert len(table) == 8 and table.groupby("seed")["error"].nunique().eq(1).all()
    assert table["D_constant"].notna().sum() == 6 and (table.query("k == 2")["D_constant"] == 0).all()
    assert table.query("k == 1")["D_constant"].to_numpy() == pytest.approx(0.25, abs=0.12)  # task2_D(1, 4, 16)
    assert scale_plots.trained(table, predicted=[{"k": 1, "D": 0.5, "G": 0.5}], shown="a", scale=2).axes
    assert scale_plots.homogeneous_filters(table, scale=2).axes
    assert scale_plots.activations(amplitude_cases([0.1, 1.0], length=32, depth=2)).axes

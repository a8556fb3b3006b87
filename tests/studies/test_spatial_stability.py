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
from studies.scale_detection.measure import ConstantCase, constant_case, tanh_case, trained_cases
from studies.scale_detection.networks import ScaleRecipe
from studies.scale_detection.task import ScaleTask
from studies.spatial_stability import figures as plots
from studies.spatial_stability.identities import ensemble_checks, network_checks
from studies.spatial_stability.measure import at_the_output, before_and_after, claims, gallery
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


@pytest.mark.slow
def test_study_tables_and_figures(data):
    recipes = [ImageRecipe(architecture=name, channels=2, epochs=1) for name in ("fully_connected", "vgg_gap")]
    measured, spectra = before_and_after(recipes, data, seeds=[0, 1])
    assert set(measured.loc[measured["architecture"] == "vgg_gap", "state"]) == {"initial", "trained", "shuffled"}
    assert set(spectra["architecture"]) == {"vgg_gap"} and set(spectra["state"]) == {"initial", "trained"}
    assert measured.loc[measured["layer"] == "input", "R"].to_numpy() == pytest.approx(1, rel=1e-5)
    output = at_the_output(recipes[:1], data, sizes=[48, 96], seeds=[0, 1])
    assert len(output) == 4 and set(output["n_train"]) == {48, 96}
    verdicts = claims(measured, spectra, output)
    assert set(verdicts["verdict"]) <= {"reproduced", "not reproduced", "no detectable effect"}
    assert len(verdicts) == 2 * 4 + 2 + 1
    both = pd.concat([output.assign(study="size"), output.assign(study="noise")])
    for draw, table in [
        (plots.sensitivities, measured), (plots.spectra, spectra), (plots.shuffled, measured),
        (plots.size_and_noise, both), (plots.gallery, gallery(as_images(data.x_test)[0, 0], [0.0, 0.2], [2, 3], 0)),
    ]:  # fmt: skip
        assert draw(table).axes
    with pytest.raises(ValueError, match="asks for more than the 96"):
        at_the_output(recipes, data, sizes=[97], seeds=[0])


def test_shuffled_networks_have_the_weights_of_the_trained_ones(data):
    measured, _ = before_and_after([ImageRecipe(architecture="strided", channels=2, epochs=1)], data, seeds=[0])
    first = measured[measured["layer"] == "conv1"].set_index("state")
    assert first.loc["shuffled", "D"] == pytest.approx(first.loc["trained", "D"], rel=1e-5)  # one input channel
    assert measured[measured["layer"] == "head"].set_index("state")["D"].nunique() == 3


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [([2.0, 2.1, 1.9], "reproduced"), ([0.5, 0.4, 0.6], "not reproduced"), ([0.5, 1, 2], "no detectable effect")],
)
def test_verdicts(ratios, verdict):
    rows = [
        {"architecture": "fully_connected", "seed": s, "state": state, "depth": k, "place": k / 2, "D": 1.0, "R": 1.0,
         "G": ratio if k == 2 and state == "trained" else 1.0}
        for s, ratio in enumerate(ratios) for state in ("initial", "trained") for k in (1, 2)
    ]  # fmt: skip
    none = pd.DataFrame(columns=["architecture", "n_train", "R", "seed"])
    table = claims(pd.DataFrame(rows), pd.DataFrame(), none).set_index("claim")
    row = table.loc["G rises with depth after training: G_K / G_1"]
    assert row["verdict"] == verdict
    band = geometric_band(ratios)
    assert (row["ratio"], row["low"], row["high"]) == pytest.approx((band.mean, band.low, band.high))
    assert band.mean == pytest.approx(np.prod(ratios) ** (1 / 3)) and band.low < band.mean < band.high


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
        assert check.holds, check


@pytest.mark.parametrize(
    "case", [ConstantCase(length=256, depth=5), ConstantCase(F=3, stride=1, depth=3, length=512, rectified="never")]
)
def test_constant_cases_meet_their_closed_forms(case):
    table = constant_case(case, draws=16)
    assert (abs(table["measured"] / table["predicted"] - 1) < 0.05).all()
    assert scale_plots.constant_filters(table.assign(case="one")).axes


def test_tanh_of_small_pixels_is_linear():
    small, large = (tanh_case(amplitude, length=128)["measured"].to_numpy() for amplitude in (0.01, 10))
    linear = constant_case(ConstantCase(length=128, rectified="never"), draws=4).query("quantity == 'G'")["measured"]
    assert small == pytest.approx(linear.to_numpy(), rel=1e-3) and large[0] > 2


def test_trained_cases():
    task, recipe = ScaleTask(length=16, xi=4), ScaleRecipe(depth=4, channels=4, n_train=32, n_test=8, epochs=2)
    table = trained_cases({"a": (task, recipe)}, seeds=[0, 1])
    assert len(table) == 8 and table.groupby("seed")["error"].nunique().eq(1).all()
    assert scale_plots.trained(table, predicted=[{"k": 1, "D": 0.5, "G": 0.5}]).axes
    assert scale_plots.homogeneous_filters(table, scale=2).axes
    units = pd.DataFrame({"net": "tanh", "k": [1, 2], "measured": [1.0, 1.1], "predicted": [np.nan, np.nan]})
    assert scale_plots.activations(units).axes

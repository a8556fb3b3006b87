"""Catches a study of interactions that reads the wrong network, image or layer, and verdicts that do not follow."""

import numpy as np
import pandas as pd
import pytest
import torch

import nin
from nin.probes.interactions import Noise, inverse_moebius, or_values
from studies.image_networks import ImageRecipe, ResidualBlock, build, fit_images
from studies.layerwise_interactions import identities
from studies.layerwise_interactions import measure as study
from studies.layerwise_interactions.planted import PLANTED, coalition, planted_interactions, planted_values, recovered
from studies.layerwise_interactions.with_a_node import along_phases
from studies.statistics import mean_interval

SMALL = {"patches": 4, "images": 3}
CLAIMS = [claim.text for claim in study.CLAIMS]


@pytest.fixture(scope="module")
def digits():
    return nin.load_data("digits", n_train=120, n_test=60)


@pytest.fixture(scope="module")
def residual(digits):
    x, _ = study.images_of(digits)
    recipe = ImageRecipe(architecture="residual_gap", channels=4, epochs=3)
    return fit_images(recipe, x, digits.y_train, classes=10, seed=0)


def test_identities_hold():
    checks = [*identities.game_checks(games=3), *identities.known_game_checks(), *identities.definition_checks()]
    assert [check.name for check in [*checks, identities.noise_check()] if not check.holds] == []
    assert {f"identity {k}" for k in (1, 2, 3, 4, 5, 6, 7, 11, 12)} <= {check.source for check in checks}


def test_planted_values_are_those_of_the_planted_interactions():
    truth = planted_interactions()
    values = planted_values()
    expected = values[0] + inverse_moebius(truth[0]) + or_values(truth[1])
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-14)
    assert coalition((0, 2)) == 5 and len(PLANTED) == (truth != 0).sum()


@pytest.mark.slow
def test_planted_interactions_are_found_at_the_output():
    known, terms = recovered([0], steps=800)
    by = known.set_index(["state", "layer"])
    assert by.loc[("trained", "output"), "iou"] == 1 and by.loc[("initial", "output"), "iou"] < 0.1
    found = terms[(terms["state"] == "trained") & (terms["layer"] == "output")]
    assert (found["found"] / found["planted"]).between(0.85, 1.02).all()
    assert list(found["coalition"]) == ["012", "34", "56", "7"]


def test_digits_are_enlarged_and_large_images_are_not(digits):
    x, x_test = study.images_of(digits)
    assert x.shape == (120, 1, 16, 16) and x_test.shape == (60, 1, 16, 16)
    blocks = x.unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))
    assert torch.corrcoef(torch.stack([blocks.flatten(), digits.x_train.flatten()]))[0, 1] > 0.97


def test_chosen_images_are_classified_correctly(digits, residual):
    _, x_test = study.images_of(digits)
    these, labels = study.classified_correctly(residual, 5, x_test, digits.y_test)
    with torch.no_grad():
        assert (residual(these).argmax(1) == labels).all()
        right = (residual(x_test).argmax(1) == digits.y_test).nonzero()[:5, 0]
    assert len(right) > 0 and torch.equal(these, x_test[right])


@pytest.mark.slow
def test_by_layer_pairs_each_network_with_the_next(digits):
    recipes = {"MLP": ImageRecipe(architecture="fully_connected", epochs=2)}
    frame, networks = study.by_layer(recipes, digits, seeds=[3, 5], noise=Noise(2, 2), **SMALL)
    assert set(networks) == {("MLP", 3), ("MLP", 5)}
    assert list(frame.columns[:4]) == ["architecture", "seed", "test_accuracy", "network"]
    assert set(frame["layer"]) == {"dense1", "dense2", "dense3", "output"}
    assert set(frame["network"]) == {"model", "permuted", "untrained", "second"}
    assert frame["test_accuracy"].between(0, 1).all() and frame["seed"].nunique() == 2


def test_ledger_of_residual_networks_adds_up(digits, residual):
    frame = study.ledgers([residual], digits, **SMALL)
    assert frame["mismatch"].max() < 1e-10
    assert list(frame["entry"].unique()) == ["stem", "block1", "block2", "block3", "remainder", "output"]
    assert next(residual.parameters()).dtype == torch.float32


def test_residual_blocks_add():
    block = ResidualBlock(3).eval()
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(block(x), x + block.branch(x))
    network = build(ImageRecipe(architecture="residual_gap", channels=4), 16, 10, seed=1)
    assert [name for name, _ in network.named_children()] == ["stem", "block1", "block2", "block3", "pool", "head"]


def test_margin_of_pixels_is_of_first_order(digits, residual):
    table = study.artefact(residual, digits, **SMALL).set_index(["readout", "value", "order"])["share"]
    np.testing.assert_allclose(table.groupby(["readout", "value"]).sum(), 1)
    assert table["pixels", "margin", 1] > 0.999 > 0.9 > table["pixels", "log_odds", 1]


@pytest.mark.slow
def test_choices_start_from_the_same_games(digits, residual):
    table = study.choices(residual, digits, **SMALL)
    assert table["choice"].nunique() == 6
    output = table[table["layer"] == "output"]
    assert (output["completeness"] == 1).all() and (output["redundancy"] == 0).all()
    order = output.set_index("choice")["mean_order"]
    assert order["ties to low orders"] <= order["as in the paper"] + 0.02 and order.between(1, 4).all()


def test_mean_order():
    assert study.mean_order([1.0, 0.0, 3.0]) == 2.5
    assert np.isnan(study.mean_order([0.0, 0.0]))


def frame_of(strength, iou, completeness=(0.2, 0.6), network="model"):
    """A table with two hidden layers and the output, orders 1 to 4, as `by_layer` gives it."""
    rows = []
    for layer, value in zip(("a", "b", "output"), (*completeness, 1.0), strict=True):
        for order in range(5):
            rows.append(
                {
                    "architecture": "net", "network": network, "layer": layer, "kind": "both", "order": order,
                    "strength": sum(strength) if order == 0 else strength[order - 1], "completeness": value,
                    "redundancy": 1 - value, "generalisation": iou[max(order, 1) - 1],
                    "stability": iou[max(order, 1) - 1],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def seeds_of(**networks):
    tables = []
    for seed in range(4):
        wobble = 1 + 0.02 * seed
        for network, (strength, iou, completeness) in networks.items():
            falls = (iou[0] * wobble, *iou[1:])
            stronger = (strength[0] * wobble, *strength[1:])
            later = (completeness[0], completeness[1] * wobble)
            tables.append(frame_of(stronger, falls, later, network).assign(seed=seed))
    return pd.concat(tables)


@pytest.mark.slow
def test_verdicts():
    flat = ((1.0, 1, 1, 1), (0.2, 0.2, 0.2, 0.2), (0.2, 0.2))
    ours = ((4.0, 2, 1, 1), (0.4, 0.3, 0.1, 0.1), (0.2, 0.6))
    table = study.claims(seeds_of(model=ours, permuted=flat, untrained=flat)).set_index("claim")["verdict"]
    assert list(table.index) == CLAIMS
    assert table[CLAIMS[0]] == table[CLAIMS[1]] == table[CLAIMS[4]] == "reproduced"
    assert table[CLAIMS[2]] == "no detectable effect"  # redundancy falls from the start
    assert table[CLAIMS[3]] == "reproduced"
    alike = study.claims(seeds_of(model=ours, permuted=ours, untrained=ours)).set_index("claim")["verdict"]
    assert set(alike.drop(CLAIMS[2])) == {"within chance"}
    against = ((1.0, 1, 2, 4), (0.1, 0.1, 0.3, 0.4), (0.6, 0.2))
    table = study.claims(seeds_of(model=against, permuted=flat, untrained=flat)).set_index("claim")
    assert set(table["verdict"][[*CLAIMS[:2], CLAIMS[4]]]) == {"not reproduced"}
    logs = np.log([0.6 * (1 + 0.02 * seed) / 0.2 for seed in range(4)])
    found = study.claims(seeds_of(model=ours, permuted=flat, untrained=flat)).set_index("claim").loc[CLAIMS[1]]
    assert found["ratio"] == pytest.approx(np.exp(logs.mean()))
    assert found["high"] == pytest.approx(np.exp(logs.mean() + mean_interval(logs).half))


@pytest.mark.slow
def test_along_phases_has_a_run_without_a_node_and_drops_what_diverged(digits):
    base = nin.RunConfig(dataset="digits", n_train=120, steps=30, widths=(16, 16), batch_size=32)
    options = {"seeds": [0], "patches": 4, "size": 2, "images": 3, "points": 3}
    found = along_phases(base, digits, (0.1, 1e6), **options)
    assert list(found["phase"].unique()[:2]) == ["no node", "decoupled"]
    steps = found.groupby("sigma")["step"].max()
    assert steps[0.0] == steps[0.1] == 30 and steps.get(1e6, 0) < 30
    assert set(found["layer"]) == {"layers.0", "layers.1", "output"}
    assert (found[found["layer"] == "output"]["completeness"] == 1).all()
    assert found["mean_order"].between(1, 4).all()

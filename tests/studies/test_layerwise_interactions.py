"""Catches a study of interactions that reads the wrong network, image or layer, and verdicts that do not follow."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

import nin
from nin.probes.interactions import Noise, inverse_moebius, layerwise, or_values
from studies.image_networks import ImageRecipe, ResidualBlock, build, fit_images
from studies.layerwise_interactions import claims, identities
from studies.layerwise_interactions import measure as study
from studies.layerwise_interactions.planted import PLANTED, coalition, planted_interactions, planted_values, recovered
from studies.layerwise_interactions.with_a_node import along_phases
from studies.statistics import Band, mean_interval

SMALL = {"patches": 4, "images": 3}
CLAIMS = {claim.text.split(" (")[0]: claim for claim in claims.CLAIMS}


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
    checks.append(identities.noise_check())
    assert [check.name for check in checks if not check.holds] == []
    assert all(check.rival is not None and check.tests for check in checks)
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
    assert by.loc[("trained", "head"), "iou"] == 1 and by.loc[("trained", "hidden3"), "iou"] < 0.9
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
    these, labels = study.classified_correctly([residual, residual], 5, x_test, digits.y_test)
    with torch.no_grad():
        assert (residual(these).argmax(1) == labels).all()
        right = (residual(x_test).argmax(1) == digits.y_test).nonzero()[:5, 0]
    assert len(right) > 0 and torch.equal(these, x_test[right])


@pytest.mark.slow
def test_by_layer_pairs_each_network_with_the_next(digits):
    recipes = {"MLP": ImageRecipe(architecture="fully_connected", epochs=2)}
    options = {"seeds": [3, 5], "noise": Noise(2, 2), "untrained_images": 2}
    frame, networks = study.by_layer(recipes, digits, **options, **SMALL)
    assert set(networks) == {("MLP", 3), ("MLP", 5)}
    assert list(frame.columns[:4]) == ["architecture", "seed", "test_accuracy", "network"]
    assert set(frame["layer"]) == {"dense1", "dense2", "dense3", "output"}
    assert set(frame["network"]) == {"model", "permuted", "untrained", "second", "untrained, permuted"}
    rows = frame[(frame["order"] == 0) & (frame["kind"] == "both")].set_index(["network", "seed", "layer"]).sort_index()
    assert rows.loc["untrained", "generalisation"].notna().all() and rows.loc["untrained", "stability"].notna().all()
    one, other = (rows.loc[("model", seed), "generalisation"] for seed in (3, 5))
    np.testing.assert_allclose(one, other)  # of two seeds, each is the other's partner
    np.testing.assert_allclose(rows.loc[("second", 3), "strength"] * 0 + 1, 1)
    x, x_test = study.images_of(digits)
    these, labels = study.classified_correctly(list(networks.values()), 3, x_test, digits.y_test)
    direct = layerwise(
        networks["MLP", 3], these, labels, patches=study.image_patches(these, None, x.mean(0), 4), baseline=x.mean(0),
        train=(x[:1000], digits.y_train), untrained=False, noise=Noise(0), iterations=study.ITERATIONS,
    )  # fmt: skip
    assert frame["test_accuracy"].between(0, 1).all() and frame["seed"].nunique() == 2
    direct = direct[(direct["order"] == 0) & (direct["kind"] == "both") & (direct["network"] == "model")]  # by depth
    np.testing.assert_allclose(rows.loc[("model", 3), "completeness"], direct["completeness"], rtol=1e-5)


def test_inner_rise_ends_before_the_output_becomes_linear():
    rows = []
    layers = {"MLP": ("dense1", "dense2", "dense3"), "residual": ("stem", "block1", "block2", "block3", "pool")}
    for name, probe, seed in itertools.product(layers, ("logits", "untrained"), range(3)):
        for depth, layer in enumerate(layers[name], 1):
            value = 0.1 * depth if probe == "logits" else 0.2 + 0.001 * seed
            rows.append((name, probe, seed, layer, depth, value))
    table = pd.DataFrame(rows, columns=["architecture", "probe", "seed", "layer", "depth", "completeness"])
    found = study.inner_rise(table).set_index("architecture")
    assert list(found["first"]) == ["dense1", "stem"] and list(found["last"]) == ["dense2", "block2"]
    assert found["ratio"].tolist() == pytest.approx([2, 3]) and found["control"].tolist() == pytest.approx([1, 1])


def test_the_head_is_a_probe_without_a_floor(digits, residual):
    table = study.probes({("residual", 0): residual}, digits, **SMALL).set_index(["probe", "layer"])
    assert list(table.loc["labels"].index) == ["stem", "block1", "block2", "block3", "pool"]
    assert table.loc[("head", "pool"), "completeness"] == pytest.approx(1, abs=1e-6)
    assert table.loc[("head", "pool"), "redundancy"] == pytest.approx(0, abs=1e-6)
    assert table.loc[("logits", "pool"), "completeness"] == pytest.approx(1, abs=1e-3)
    assert table.loc[("untrained", "pool"), "completeness"] < 0.8
    assert len(table.loc["head"]) == 1 and table.loc[("labels", "pool"), "completeness"] < 0.95


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
    assert table["choice"].nunique() == 7
    output = table[table["layer"] == "output"]
    assert (output["completeness"] == 1).all() and (output["redundancy"] == 0).all()
    order = output.set_index("choice")["mean_order"]
    assert order["ties to low orders"] <= order["as in the paper"] + 0.02 and order.between(1, 4).all()


def test_mean_order():
    assert study.mean_order([1.0, 0.0, 3.0]) == 2.5
    assert np.isnan(study.mean_order([0.0, 0.0]))


def run_of(*, completeness, redundancy, iou, stability, strength=(4.0, 2, 1, 1)):
    """The rows of one run with three hidden layers and the output, orders 1 to 4; iou and stability: low, high."""
    rows = []
    for depth, layer in enumerate(("a", "b", "c", "output")):
        last = depth == 3
        for order in range(5):
            rows.append(
                {
                    "layer": layer, "depth": depth + 1, "order": order, "kind": "both",
                    "strength": sum(strength) if order == 0 else strength[order - 1] * (1 + (3 - depth) * order / 9),
                    "completeness": 1.0 if last else completeness[depth],
                    "redundancy": 0.0 if last else redundancy[depth],
                    "generalisation": (iou[0] if order < 3 else iou[1]) * (0.7 + 0.1 * depth),
                    "stability": (stability[0] if order < 3 else stability[1]) * (0.7 + 0.1 * depth),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def seeds_of(**networks):
    tables = []
    for seed in range(4):
        for network, values in networks.items():
            first, *others = values.get("strength", (4.0, 2, 1, 1))
            wobbled = values | {"strength": (first * (1 + 0.02 * seed), *others)}
            wobbled["completeness"] = [c * (1 + 0.02 * seed * k) for k, c in enumerate(values["completeness"])]
            wobbled["redundancy"] = [c * (1 - 0.01 * seed * k) for k, c in enumerate(values["redundancy"])]
            wobbled |= {key: (values[key][0] * (1 + 0.02 * seed), values[key][1]) for key in ("iou", "stability")}
            tables.append(run_of(**wobbled).assign(seed=seed, network=network, architecture="net"))
    return pd.concat(tables)


FLAT = {"completeness": (0.2, 0.2, 0.19), "redundancy": (0.8, 0.8, 0.82), "iou": (0.2, 0.19), "stability": (2.0, 1.9),
        "strength": (1.0, 1, 1, 1)}  # fmt: skip
OURS = {"completeness": (0.1, 0.5, 0.8), "redundancy": (0.4, 0.9, 0.2), "iou": (0.5, 0.1), "stability": (6.0, 2.0)}


def verdicts(**networks):
    table = claims.claims(seeds_of(**networks)).assign(text=lambda t: t["claim"].str.split(" (", regex=False).str[0])
    return table.set_index("text")


def test_claims_are_above_a_control_and_above_the_floor():
    table = verdicts(model=OURS, permuted=FLAT, untrained=FLAT)
    assert list(table.index) == list(CLAIMS)
    said = table["verdict"]
    for text in ("completeness rises with depth", "redundancy rises at first", "redundancy falls in the end",
                 "IoU of seeds falls with order, output", "1 - IoU rises with order, hidden layers",
                 "stability falls with order, output"):  # fmt: skip
        assert said[text] == "reproduced", text
    row = table.loc["completeness rises with depth"]
    ends = [(0.1, 0.8 * (1 + 0.04 * seed)) for seed in range(4)]
    logs = np.log([last / first for first, last in ends])
    assert row["ratio"] == pytest.approx(np.exp(logs.mean()))
    assert row["high"] == pytest.approx(np.exp(logs.mean() + mean_interval(logs).half))
    assert row["over_floor"] == pytest.approx(np.mean([(last - first) / (1 - last) for first, last in ends]))
    low = verdicts(model=OURS | {"completeness": (0.3, 0.4, 0.5)}, permuted=FLAT, untrained=FLAT)
    assert low.loc["completeness rises with depth", "verdict"] == "below the floor"  # .2 against .5
    assert (
        verdicts(model=OURS, permuted=OURS, untrained=OURS)["verdict"]
        .isin(["within chance", "no detectable effect"])
        .all()
    )
    against = OURS | {"completeness": (0.8, 0.5, 0.3), "stability": (1.0, 4.0)}
    table = verdicts(model=against, permuted=FLAT, untrained=FLAT)["verdict"]
    assert table["completeness rises with depth"] == table["stability falls with order, output"] == "not reproduced"


def test_no_ratio_has_its_verdict_by_construction():
    """Each ratio lies below 1 for one run and above 1 for another."""
    other = {"completeness": (0.8, 0.5, 0.3), "redundancy": (0.5, 0.2, 0.9), "iou": (0.1, 0.5), "stability": (2.0, 6.0),
             "strength": (1.0, 1, 2, 4)}  # fmt: skip
    one, two = run_of(**OURS), run_of(**other)
    swapped = one.assign(**{key: 0.05 / one[key] for key in ("generalisation", "stability")})
    for text, claim in CLAIMS.items():
        found = [claim.ratio(run) for run in (one, two, swapped)]
        assert min(found) < 1 < max(found), text


def test_verdict_of_intervals():
    above, beside = Band(1.5, 1.2, 1.9), Band(1.1, 0.9, 1.15)
    assert claims.verdict(above, beside, 1, 2.0) == "reproduced"
    assert claims.verdict(above, beside, 1, 0.9) == "below the floor"
    assert claims.verdict(above, Band(1.3, 1.0, 1.6), 1, 2.0) == "within chance"
    assert claims.verdict(above, beside, -1, 2.0) == "not reproduced"
    assert claims.verdict(beside, above, 1, 2.0) == "no detectable effect"
    assert claims.verdict(Band(1.5, np.nan, np.nan), beside, 1, 2.0) == "no detectable effect"


def test_checks_of_claims_agree_with_their_verdicts():
    table = claims.claims(seeds_of(model=OURS, permuted=FLAT, untrained=FLAT))
    checks = {check.name: check for check in claims.claim_checks(table)}
    assert all(check.rival is not None for check in checks.values())
    for row in table.itertuples():
        beyond = checks[f"net: {row.claim}"].holds
        over = checks.get(f"net: {row.claim.split(' (')[0]}, effect over the floor")
        assert (row.verdict == "reproduced") == (beyond and (over is None or over.measured > 1)), row.claim


@pytest.mark.slow
def test_along_phases_has_a_run_without_a_node_and_drops_what_diverged(digits):
    base = nin.RunConfig(dataset="digits", n_train=120, steps=30, widths=(16, 16), batch_size=32)
    options = {"seeds": [0], "patches": 4, "size": 2, "images": 3, "points": 3}
    found = along_phases(base, digits, (0.1, 1e6), **options)
    assert list(found["phase"].unique()[:2]) == ["no node", "decoupled"]
    steps = found.groupby("sigma")["step"].max()
    assert steps[0.0] == steps[0.1] == 30 and steps.get(1e6, 0) < 30
    assert set(found["layer"]) == {"hidden1", "hidden2", "output"}
    assert (found[found["layer"] == "output"]["completeness"] == 1).all()
    assert found["mean_order"].between(1, 4).all()

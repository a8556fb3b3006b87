"""Catches layerwise metrics that differ from their definitions, controls that control nothing, misplaced patches."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from nin.probes.interactions import (
    LayerInteractions,
    Noise,
    comparison,
    fit_readouts,
    foreground_patches,
    layer_table,
    layerwise,
    log_odds,
    masked_outputs,
    moebius,
    reinitialised,
    split,
)
from nin.probes.interactions.games import orders
from nin.probes.interactions.games_of_layers import default_layers, image_patches, layer_games


def interactions(layers=2, images=3, n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(layers, images, 2, 2**n, dtype=torch.float64, generator=generator)
    values[..., 0] = 0
    values[..., 1, orders(2**n) == 1] = 0
    return values


def by_definition(now, final, m):
    """overlap, forget, new of one image's interactions of one kind and order, in plain Python."""
    totals = [0.0, 0.0, 0.0]
    for S in range(len(now)):
        if bin(S).count("1") != m:
            continue
        a, b = now[S].item(), final[S].item()
        common = 0.0 if a * b <= 0 else np.sign(a) * min(abs(a), abs(b))
        for k, part in enumerate((common, a - common, b - common)):
            totals[k] += abs(part)
    return totals


def test_changes_are_their_definitions():
    values = interactions()
    strong = comparison.salient(values, 0.3)
    found = comparison.changes(strong, strong[-1:])
    for image in range(3):
        for layer in range(2):
            for kind in range(2):
                for m in range(1, 5):
                    overlap, forget, new = by_definition(strong[layer, image, kind], strong[1, image, kind], m)
                    cell = (image, layer, kind, m)
                    assert found["overlap"].above[cell] == pytest.approx(overlap, abs=1e-12)
                    assert found["forget"].above[cell] == pytest.approx(forget, abs=1e-12)
                    assert found["new"].above[cell] == pytest.approx(new, abs=1e-12)
    both, every = found["overlap"].above, found["forget"].above
    np.testing.assert_allclose(both[..., 2, :], both[..., 0, :] + both[..., 1, :])
    np.testing.assert_allclose(every[..., 0], every[..., 1:].sum(-1))


def test_all_is_overlap_and_forget_only_with_the_threshold_first():
    """Identity 11, on the pair on which the printed order of operations fails."""
    now, final = torch.zeros(2, 1, 1, 2, 4, dtype=torch.float64)
    now[..., 0, 1:3] = torch.tensor([1 / 2, 1 / 2])
    final[..., 0, 1:3] = torch.tensor([1 / 101, 100 / 101])
    tau = 0.05
    first, last = (comparison.salient(part, tau) for part in (now, final))
    assert first.flatten().tolist() == now.flatten().tolist() and last[..., 0, 1].item() == 0
    found = comparison.changes(first, last)
    assert found["strength"].above[0, 0, 2, 0] == pytest.approx(1.0)
    assert found["overlap"].above[0, 0, 2, 0] + found["forget"].above[0, 0, 2, 0] == pytest.approx(1.0, abs=1e-15)
    printed = torch.minimum(now, final)  # threshold last: the weak one is lost from the overlap only
    lost = torch.where(printed > tau * final.max(), printed, 0).sum() + (now - printed).sum()
    assert lost.item() < 0.995

    values = interactions(layers=4, images=5, n=6)
    strong = comparison.salient(values)
    found = comparison.changes(strong, strong[-1:])
    total = strong.abs().sum((-2, -1)).T.numpy()
    np.testing.assert_allclose(found["strength"].above[..., 2, 0], total, rtol=1e-12)
    whole = (found["overlap"].above + found["new"].above)[..., 2, 0]
    np.testing.assert_allclose(whole, np.repeat(total[:, -1:], 4, 1), rtol=1e-12)


def test_threshold_over_the_layer_or_the_image():
    values = torch.zeros(1, 2, 2, 4)
    values[0, 0, 0, 1:] = torch.tensor([1.0, 0.04, 0.06])
    values[0, 1, 1, 3] = 0.04
    assert (comparison.salient(values) != 0).sum((-2, -1)).tolist() == [[2, 0]]
    assert (comparison.salient(values, per="image") != 0).sum((-2, -1)).tolist() == [[2, 1]]


def test_agreement_is_the_iou_and_empty_unions_are_left_out():
    one, other = torch.zeros(2, 1, 3, 2, 8)
    one[0, 0, 0, [3, 5]], other[0, 0, 0, [3, 6]] = 1.0, -1.0  # one of three pairs in common
    one[0, 1, 1, 7] = 1.0
    value, low, high = comparison.agreement(one, other).interval(np.ones((5, 3)))
    assert value[0, 2, 2] == pytest.approx(1 / 3) and value[0, 2, 3] == 0
    assert value[0, 2, 0] == pytest.approx((1 / 3 + 0) / 2)
    assert np.isnan(value[0, 0, 1]) and np.isnan(low[0, 0, 1])
    assert low[0, 2, 2] == high[0, 2, 2] == value[0, 2, 2]


def test_steadiness_is_mean_over_standard_deviation():
    draws = interactions(layers=6, images=2)[:, None]
    tau = torch.full((1, 1, 1, 1), 0.2)
    draws[:, 0, 0, 0, 5] = 3.0  # no variance: left out
    value, _, _ = comparison.steadiness(draws, tau).interval(np.ones((2, 2)))
    numbers = []
    for image in range(2):
        for kind in range(2):
            for S in range(16):
                series = draws[:, 0, image, kind, S].numpy()
                if bin(S).count("1") == 2 and abs(series.mean()) > 0.2 and series.std() > 0:
                    numbers.append(abs(series.mean()) / series.std(ddof=1))
    assert value[0, 2, 2] == pytest.approx(np.mean(numbers), rel=1e-12)


def test_permuted_stays_within_image_kind_and_order():
    values = interactions(images=2, n=6)
    mixed = comparison.permuted(values, torch.Generator().manual_seed(0))
    for m in range(7):
        rows = orders(64) == m
        torch.testing.assert_close(mixed[..., rows].sort(-1).values, values[..., rows].sort(-1).values)
    moved = (mixed != values).double().mean()
    assert moved > 0.8 and not torch.equal(mixed[0, 0, 0], mixed[0, 1, 0])


def test_intervals_are_those_of_resampled_images():
    """The bootstrap of a mean has the standard error of a mean."""
    rng = np.random.default_rng(0)
    data = rng.normal(3, 1, 400)
    ratio = comparison.Ratio(data[:, None, None, None], np.ones((400, 1, 1, 1)))
    value, low, high = ratio.interval(rng.multinomial(400, np.full(400, 1 / 400), 2000))
    assert value.item() == pytest.approx(data.mean())
    assert (high - low).item() == pytest.approx(2 * 1.96 * data.std() / 20, rel=0.08)


def net(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)).to(
        dtype
    )


def samples(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator), torch.arange(count) % 3


def quarters(n=4):
    patches = torch.zeros(n, 1, 8, 8, dtype=torch.bool)
    for i in range(n):
        patches[i, :, 2 * i : 2 * i + 2] = True
    return patches


def test_layerwise_from_its_parts():
    """Strengths and overlap at a layer, put together again from masked outputs, readouts and splits, image by image."""
    model, (x, y), (x_train, y_train) = net(), samples(), samples(60, 1)
    found = layerwise(
        model, x, y, layers=["2", "4"], patches=quarters(), train=(x_train, y_train), second=net(1), noise=Noise(2, 3),
        resamples=20,
    )  # fmt: skip
    baseline = x_train.mean(0)
    readouts = fit_readouts(model, x_train, y_train, ["2", "4"])
    strength = {}
    for name in ("2", "output"):
        games = []
        for image, label in zip(x, y.tolist(), strict=True):
            seen = masked_outputs(model, image, quarters(), baseline, ["2"])
            games.append(log_odds(readouts["2"](seen["2"]) if name == "2" else seen["output"], label))
        games = torch.stack(games)
        parts = split(games, 0.04, accuracy=0.01)
        values = torch.stack([parts.and_, parts.or_], 1)
        values[..., 0] = 0
        strength[name] = values / (games[:, -1] - games[:, 0]).abs().mean()
    strong = {name: comparison.salient(part[None]) for name, part in strength.items()}
    overlap = comparison.shared(strong["2"], strong["output"]).abs().sum().item() / len(x)
    total = strong["2"].abs().sum().item() / len(x)
    row = found.query("network == 'model' and layer == '2' and kind == 'both' and order == 0").iloc[0]
    assert row["strength"] == pytest.approx(total, rel=1e-9) and row["overlap"] == pytest.approx(overlap, rel=1e-9)
    assert row["completeness"] == pytest.approx(overlap / (strong["output"].abs().sum().item() / len(x)), rel=1e-9)
    assert row["accuracy"] == readouts["2"].accuracy
    assert row["strength_low"] <= row["strength"] <= row["strength_high"]


def test_the_table_and_its_controls():
    second, model, (x, y) = net(1), net(), samples()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = layerwise(model, x, y, patches=quarters(), second=second, noise=Noise(2, 3), resamples=20)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(found["network"].unique()) == ["model", "permuted", "untrained", "second"]
    assert list(found["layer"].unique()) == ["1", "2", "3", "4", "output"]
    assert len(found) == 4 * 5 * 3 * 5
    final = found.query("network == 'model' and layer == 'output' and order == 0 and kind == 'both'").iloc[0]
    assert final["completeness"] == 1 and final["redundancy"] == 0 and final["forget"] == final["new"] == 0
    index = ["layer", "kind", "order"]
    by = {name: rows.set_index(index) for name, rows in found.groupby("network")}
    np.testing.assert_allclose(by["permuted"]["strength"], by["model"]["strength"], rtol=1e-12)
    np.testing.assert_allclose(by["second"]["generalisation"], by["model"]["generalisation"])
    np.testing.assert_allclose(by["model"]["strength"], by["model"]["overlap"] + by["model"]["forget"], rtol=1e-12)
    assert by["model"]["stability"].notna().any() and by["untrained"]["stability"].isna().all()
    again = layerwise(model, x, y, patches=quarters(), untrained=False, noise=Noise(0), resamples=20)
    assert list(again["network"].unique()) == ["model", "permuted"]
    assert again["generalisation"].isna().all() and again["stability"].isna().all()


def test_the_head_reads_the_last_hidden_layer_exactly():
    """Identity 10: the game of the last hidden layer is that of the output; a fitted readout leaves a mismatch."""
    model, (x, y), train = net(), samples(), samples(60, 1)
    options = {"layers": ["2", "4"], "patches": quarters(), "train": train, "noise": Noise(0), "resamples": 5}
    fitted, exact = (
        layerwise(model, x, y, head=head, **options).query("network == 'model' and kind == 'both' and order == 0")
        for head in (None, "5")
    )
    rows = {name: part.set_index("layer").loc["4"] for name, part in (("fitted", fitted), ("exact", exact))}
    assert rows["exact"]["completeness"] == pytest.approx(1, abs=1e-9)
    assert rows["exact"]["redundancy"] == pytest.approx(0, abs=1e-9)
    assert rows["exact"]["accuracy"] == fitted.set_index("layer").loc["output", "accuracy"]
    assert rows["fitted"]["completeness"] < 0.9 and rows["fitted"]["redundancy"] > 0.1
    first = [part.set_index("layer").loc["2", "completeness"] for part in (fitted, exact)]
    assert first[0] == pytest.approx(first[1], rel=1e-12)
    with pytest.raises(ValueError, match="head='5' does not make the output from layer '3'"):
        layerwise(model, x, y, head="5", **options | {"layers": ["3"]})


def test_networks_read_on_fewer_images_have_no_weight_on_the_others():
    values = interactions(layers=3, images=6)
    games = torch.zeros(3, 6, 16, dtype=torch.float64)
    games[..., -1] = 1.0
    whole = LayerInteractions(("a", "b", "output"), games, values, games[..., 0])
    few = LayerInteractions(whole.layers, games[:, :4], interactions(3, 6, seed=1)[:, :4], games[:, :4, 0])
    other = LayerInteractions(whole.layers, games[:, :4], interactions(3, 6, seed=2)[:, :4], games[:, :4, 0])
    found = {"model": whole, "untrained": few, "untrained second": other}
    ratios = layer_table.compared(found, 0.05, "layer", torch.Generator().manual_seed(0))
    strong = [comparison.salient(one.scaled) for one in (whole, few, other)]
    expected = {
        "completeness": comparison.changes(strong[1], strong[0][-1:, :4])["completeness"],
        "generalisation": comparison.agreement(strong[1], strong[2]),
    }
    for quantity, ratio in expected.items():
        got = ratios["untrained", quantity]
        assert got.above.shape[0] == 6 and not got.below[4:].any()
        np.testing.assert_allclose(got.interval(np.ones((1, 6)))[0], ratio.interval(np.ones((1, 4)))[0])
    assert ("model", "generalisation") not in ratios


def test_margin_of_a_linear_network_has_order_one_alone():
    """Identity 9: raw pixels, a linear readout, the margin; log-odds make higher orders of their own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    x, y = samples()
    options = {"readouts": {}, "patches": image_patches(x, quarters(), x.mean(0), 4), "baseline": x.mean(0)}
    margin, odds = (
        moebius(layer_games(model, x, y, value=value, **options)["output"]) for value in ("margin", "log_odds")
    )
    high = orders(16) > 1
    assert margin[..., high].abs().max() < 1e-10 < 0.01 < odds[..., high].abs().max()


def test_reinitialised_forgets_the_training():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.arange(50.0)), nn.Linear(50, 50)

    model = Token()
    fresh = reinitialised(model, seed=3)
    assert not torch.equal(fresh.layer.weight, model.layer.weight)
    assert sorted(fresh.token.tolist()) == model.token.tolist() != fresh.token.tolist()
    assert torch.equal(reinitialised(model, seed=3).layer.weight, fresh.layer.weight)


def test_default_layers():
    assert default_layers(net()) == ["1", "2", "3", "4"]
    wrapped = nn.Module()
    wrapped.net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert default_layers(wrapped) == ["net.0", "net.1"]


def test_foreground_patches_are_where_the_image_differs():
    image = torch.zeros(1, 11, 10)
    image[0, 4:7, 3:6], image[0, 7:9, 6:9] = 2.0, 1.0
    patches = foreground_patches(image, 2, size=3)
    assert patches.shape == (2, 1, 11, 10) and patches.dtype == torch.bool
    assert patches[0].nonzero()[:, 1:].unique(dim=0).tolist() == [[r, c] for r in (4, 5, 6) for c in (3, 4, 5)]
    assert patches[1].nonzero()[:, 1:].unique(dim=0).tolist() == [[r, c] for r in (7, 8, 9) for c in (6, 7, 8)]
    row = torch.zeros(784)
    row[300:330] = 1.0
    flat = foreground_patches(row)
    assert flat.shape == (10, 784) and (flat.sum(1) == 9).all() and flat.sum(0).max() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": samples(5)[0]}, "x has 5 images and y has 6 labels"),
        ({"y": torch.arange(6)}, "0 to 5, must be integer classes"),
        ({"value": "odds"}, "value='odds' is unknown"),
        ({"per": "sample"}, "per='sample' is unknown"),
        ({"layers": ["9"]}, "layers names '9'"),
        ({"patches": quarters()[:, :, :4]}, r"patches \(4, 1, 4, 8\) of torch.bool must be boolean, \(n, 1, 8, 8\)"),
        ({"patches": quarters().expand(2, 4, 1, 8, 8)}, "must be boolean, .* one such set for each image"),
        ({"patches": quarters()[[0, 0, 1]]}, "patches overlap on 16 entries"),
        ({"patches": torch.zeros(21, 1, 8, 8, dtype=torch.bool)}, r"n = 21: the split takes an inverse"),
        ({"patches": None}, "n=10 patches of size=3 do not fit into an image of 8 x 8"),
        ({"resamples": 0}, "resamples=0 must be"),
    ],
)
def test_bad_input(change, message):
    x, y = samples()
    arguments = {"x": x, "y": y, "patches": quarters(), "train": samples(9, 1), "untrained": False} | change
    with pytest.raises(ValueError, match=message):
        layerwise(net(), arguments.pop("x"), arguments.pop("y"), **arguments)


def test_an_image_that_masking_does_not_change_is_named():
    (x, y), train = samples(), samples(9, 1)
    x[3] = train[0].mean(0)
    with pytest.raises(ValueError, match=r"x\[3\] has v\(N\) = v\(empty\) at layer '1' \(\d+ such games\)"):
        layerwise(net(), x, y, patches=quarters(), train=train, untrained=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layerwise(net(), x, y, patches=quarters(), train=train, untrained=False, kappa=0.0, noise=Noise(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Noise(draws=1), "draws=1 has no variance"),
        (lambda: Noise(sigma=0.0), "sigma=0.0 must be"),
        (lambda: foreground_patches(torch.zeros(50)), "x of 50 entries is not a row of a square image"),
        (lambda: foreground_patches(torch.zeros(30, 30), 21), "n=21 variables"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()

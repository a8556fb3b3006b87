"""Catches sensitivities that differ from the papers': against loops over images and pairs, closed forms, symmetries."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from nin.probes import stability
from nin.probes.stability import compare, deform, displacement_field, matched_noise, sensitivities, temperature


def images(count, n=24, channels=1, seed=0):
    """Smooth random images, float64."""
    generator = torch.Generator().manual_seed(seed)
    return displacement_field(n, 4, 1e-4, count * channels, generator=generator, dtype=torch.float64)[:, 0].unflatten(
        0, (count, channels)
    )


def network(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6),
        nn.Tanh(), nn.Dropout(), nn.Flatten(), nn.Linear(6 * 121, 5),
    ).double()  # fmt: skip


def changed(x, draws, seed=0):
    generator = torch.Generator().manual_seed(seed)
    field = displacement_field(x.shape[-1], 3, 1e-3, draws * len(x), generator=generator, dtype=x.dtype)
    deformed = deform(x.repeat(draws, 1, 1, 1), field).unflatten(0, (draws, len(x)))
    return deformed, x + matched_noise(deformed - x, generator=generator)


def naive(f, x, deformed, noisy):
    """Two averages over images and draws, and one over all pairs, as in the paper."""
    draws, count = deformed.shape[:2]
    D = np.mean([((f(deformed[k, i]) - f(x[i])) ** 2).sum() for k in range(draws) for i in range(count)])
    G = np.mean([((f(noisy[k, i]) - f(x[i])) ** 2).sum() for k in range(draws) for i in range(count)])
    pair = np.mean([((f(x[i]) - f(x[j])) ** 2).sum() for i in range(count) for j in range(count)])
    return D / pair, G / pair, D / G


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_sensitivities_are_the_papers(chunk):
    model, x = network().eval(), images(7)
    deformed, noisy = changed(x, 3)
    found = compare(model, x, deformed, noisy, chunk=chunk, batch_norm="running").set_index("layer")
    parts = {
        "input": model[:0],
        "0": model[:1],
        "1": model[:2],
        "2": model[:3],
        "3": model[:4],
        "4": model[:5],
        "7": model,
    }
    assert list(found.index) == list(parts)
    assert found["depth"].tolist() == list(range(7))
    with torch.no_grad():
        for layer, part in parts.items():
            expected = naive(lambda z, part=part: part(z[None]).numpy().ravel(), x, deformed, noisy)
            np.testing.assert_allclose(found.loc[layer, ["D", "G", "R"]].astype(float), expected, rtol=1e-12)


def test_pair_mean_is_over_all_pairs_also_far_from_zero():
    """The O(P d) denominator (identity 16), 1e6 away from zero."""
    x = torch.randn(9, 1, 2, 2, dtype=torch.float64)
    pair = torch.cdist(x.flatten(1), x.flatten(1)).square().mean().item()
    moved = x[None] + 0.1
    near = compare(nn.Identity(), x, moved, moved, layers=[])
    assert near["D"].item() == pytest.approx(0.04 / pair, rel=1e-12)
    far = compare(nn.Identity(), x + 1e6, moved + 1e6, moved + 1e6, layers=[])
    assert far["D"].item() == pytest.approx(0.04 / pair, rel=1e-8)


def test_input_has_ratio_one():
    found = sensitivities(network(), images(6), layers=["0"])
    assert found.loc[0, ["layer", "depth"]].tolist() == ["input", 0]
    assert found.loc[0, "R"] == pytest.approx(1, rel=1e-12)
    assert found.loc[0, "R_stderr"] == pytest.approx(0, abs=1e-12)
    average = sensitivities(network(), images(400), layers=["0"], noise="average")
    assert average.loc[0, "R"] == pytest.approx(1, abs=4 * average.loc[0, "R_stderr"])
    assert 0 < average.loc[0, "R_stderr"] < 0.1


@pytest.mark.parametrize("estimator", ["mean", "median"])
def test_scale_and_shift_change_nothing(estimator):
    class Scaled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return -7.3 * self.model(x) + 11

    model, x = network(), images(12)
    first = sensitivities(model, x, layers=["7"], estimator=estimator, batch_norm="running").iloc[-1]
    second = sensitivities(Scaled(model), x, estimator=estimator, batch_norm="running").iloc[-1]
    assert second["layer"] == "output"
    for quantity in ("D", "G", "R", "D_stderr", "G_stderr", "R_stderr"):
        assert second[quantity] == pytest.approx(first[quantity], rel=1e-9)


def test_orthogonal_maps_change_nothing():
    x = images(10, n=8)
    rotation = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))[0]
    turn = nn.Linear(64, 64, bias=False, dtype=torch.float64)
    turn.weight.data = rotation
    found = sensitivities(nn.Sequential(nn.Flatten(), turn), x, delta=0.2)
    for quantity in ("D", "G", "R"):
        assert found.loc[1, quantity] == pytest.approx(found.loc[0, quantity], rel=1e-10)


def test_linear_map():
    """G = <|eta|^2> |W|_F^2 / (2 d Tr W Sigma W^T), Sigma of the samples (identity 8)."""
    x = images(40, n=8)
    W = torch.randn(5, 64, dtype=torch.float64)
    layer = nn.Linear(64, 5, bias=False, dtype=torch.float64)
    layer.weight.data = W
    found = sensitivities(nn.Sequential(nn.Flatten(), layer), x, delta=0.2, draws=400, noise="average")
    flat = x.flatten(1)
    covariance = torch.cov(flat.T, correction=0)
    mean_square = found.loc[0, "D"] * 2 * covariance.trace()
    predicted = mean_square * W.square().sum() / 64 / (2 * (W @ covariance @ W.T).trace())
    assert found.loc[1, "G"] == pytest.approx(predicted.item(), rel=0.03)
    assert abs(found.loc[1, "G"] - predicted.item()) < 4 * found.loc[1, "G_stderr"]


def test_homogeneous_linear_filter_is_less_stable_than_noise():
    """Averaging pixels removes noise and keeps smooth deformations: R > 1 (identity 9)."""
    convolution = nn.Conv2d(1, 1, 3, padding=1, dtype=torch.float64)
    nn.init.constant_(convolution.weight, 1 / 9)
    assert sensitivities(nn.Sequential(convolution), images(50, n=28))["R"].iloc[1] > 1.5


def test_rolls_of_a_circular_network_change_nothing():
    """Stride-1 circular convolution and global average: D = 0 for integer rolls (identity 10)."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    x = images(6)
    rolled = torch.stack([x.roll((k, 2 * k), (2, 3)) for k in (1, 2, 3)])
    found = compare(model, x, rolled, rolled + 0.1).set_index("layer")
    assert found.loc["2", "D"] == pytest.approx(0, abs=1e-12)
    assert found.loc["1", "D"] > 0.1


@pytest.mark.slow
def test_errors_are_those_of_new_samples():
    """Over disjoint sets of images the estimates scatter as their standard errors say."""
    model = network(3)
    model(images(60))
    frames = [
        sensitivities(model, images(60, seed=seed), draws=2, generator=torch.Generator().manual_seed(seed))
        for seed in range(1, 61)
    ]
    for quantity in ("D", "G", "R"):
        values = np.array([frame[quantity].iloc[1:] for frame in frames])
        errors = np.array([frame[f"{quantity}_stderr"].iloc[1:] for frame in frames])
        ratio = values.std(0, ddof=1) / np.sqrt((errors**2).mean(0))
        assert ((0.7 < ratio) & (ratio < 1.4)).all(), (quantity, ratio)


def test_median_is_over_samples_coordinate_by_coordinate():
    x = torch.randn(11, 1, 4, 4, dtype=torch.float64)
    deformed, noisy = (x + s * torch.randn(1, 11, 1, 4, 4, dtype=torch.float64) for s in (0.1, 0.2))
    found = compare(nn.Identity(), x, deformed, noisy, layers=[], estimator="median").iloc[0]
    D, G = (np.median(((m[0] - x) ** 2).flatten(1).numpy(), axis=0).sum() for m in (deformed, noisy))
    pair = np.median(((x.roll(1, 0) - x) ** 2).flatten(1).numpy(), axis=0).sum()
    np.testing.assert_allclose(found[["D", "G", "R"]].astype(float), [D / pair, G / pair, D / G], rtol=1e-12)
    assert found["D_stderr"] > 0


def test_batch_norm_at_initialisation_takes_the_statistics_of_x():
    model, x = network(), images(30) * 50 + 3
    before = copy.deepcopy(model.state_dict())
    auto = sensitivities(model, x).set_index("layer")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    hidden = model[:3].eval()(x).detach()
    std = hidden.var((0, 2, 3), correction=0).add(1e-5).sqrt()
    scaled = copy.deepcopy(model)
    scaled[3] = nn.BatchNorm2d(6).double()
    scaled[3].running_mean, scaled[3].running_var = hidden.mean((0, 2, 3)), std.square() - 1e-5
    scaled[3].num_batches_tracked += 1
    running = sensitivities(scaled, x).set_index("layer")
    np.testing.assert_allclose(auto["D"], running["D"], rtol=2e-3)  # torch's running variance is the unbiased one
    assert (
        abs(sensitivities(model, x, batch_norm="running").set_index("layer").loc["4", "D"] / auto.loc["4", "D"] - 1)
        > 0.05
    )


def test_a_trained_batch_norm_keeps_its_statistics():
    model, x = network(), images(30)
    model.train()(x)
    frames = [sensitivities(model, x, batch_norm=choice) for choice in ("auto", "running", "batch")]
    assert frames[0].equals(frames[1]) and not frames[0].equals(frames[2])


def test_model_is_left_as_it_was():
    model, x = network(), images(6)
    model[0].eval()
    model.train()
    model[1].eval()
    modes = [m.training for m in model.modules()]
    state = torch.random.get_rng_state()
    sensitivities(model, x)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_generator_decides():
    model, x = network().eval(), images(6)
    same = [sensitivities(model, x) for _ in range(2)]
    assert same[0].equals(same[1])
    generator = torch.Generator().manual_seed(0)
    frames = [sensitivities(model, x, generator=generator) for _ in range(2)]
    assert frames[0].equals(same[0]) and not frames[0].equals(frames[1])


def test_layers_by_name_in_any_network():
    """A block that calls its ReLU twice, branches, and returns what no layer made."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()
            self.unused = nn.Linear(2, 2)

        def forward(self, x):
            return self.relu(x + self.b(self.relu(self.a(x)))).mean((2, 3))

    x = images(6, channels=2).float()
    found = sensitivities(Block(), x)
    assert found["layer"].tolist() == ["input", "a", "relu", "b", "relu#2", "output"]
    assert sensitivities(Block(), x, layers=["relu"])["layer"].tolist() == ["input", "relu", "relu#2"]
    with pytest.raises(ValueError, match="'unused' is not called"):
        sensitivities(Block(), x, layers=["unused"])


def test_a_layer_named_input_is_not_mixed_with_the_input():
    model = nn.Sequential()
    model.add_module("input", nn.Linear(24, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="a layer named 'input'.*rename it"):
        sensitivities(model, images(4))


def test_channel_mean():
    x = images(8)
    deformed, noisy = changed(x, 2)
    model = network().eval()
    found = compare(model, x, deformed, noisy, channel_mean=True, batch_norm="running").set_index("layer")
    assert list(found.index) == ["input", "0", "1", "2", "3", "4"]  # the last layer has no space left
    with torch.no_grad():
        expected = naive(lambda z: model[:2](z[None]).mean(1).numpy().ravel(), x, deformed, noisy)
    np.testing.assert_allclose(found.loc["1", ["D", "G", "R"]].astype(float), expected, rtol=1e-12)


def test_chunk_bounds_what_goes_through_the_network_at_once():
    sizes = []
    model = network_for(24)
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    frames = [sensitivities(model, images(20), draws=3, chunk=chunk) for chunk in (4, 20)]
    assert max(sizes[:10]) == 4 * 7 and max(sizes) == 20 * 7
    for quantity in ("D", "G", "R"):  # deformations and noise do not depend on it
        assert frames[0][quantity].tolist() == pytest.approx(frames[1][quantity].tolist(), rel=1e-9)


def test_a_dead_layer_gives_nan_and_no_warning():
    model = network()
    nn.init.zeros_(model[0].weight)
    found = sensitivities(model, images(6), layers=["0"])
    assert np.isnan(found["D"].iloc[1])


def test_folding_is_warned_of_once():
    with pytest.warns(UserWarning, match="folds images") as warned:
        sensitivities(network_for(8), images(40, n=8), chunk=8)
    assert len(warned) == 1
    if not hasattr(sensitivities, "__wrapped__"):  # the wrapper of a run-time type checker adds frames
        assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sensitivities(network_for(28), images(4, n=28))


def network_for(n):
    return nn.Sequential(nn.Flatten(), nn.Linear(n * n, 3)).double()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 576)}, r"x of shape \(4, 576\) must be square images.*x.unflatten\(1, \(1, 24, 24\)\)"),
        ({"x": torch.zeros(4, 1, 24, 12)}, "must be square images"),
        ({"x": torch.zeros(4, 1, 24, 24, dtype=torch.int64)}, "use x.float"),
        ({"x": images(1)}, "x of 1 samples: the distance between samples needs at least 2"),
        ({"delta": -1}, "delta=-1 must be"),
        ({"c": 0.9}, "c=0.9 is below"),
        ({"c": 1}, "c=1 gives ln c = 0.*Use c >= 2"),
        ({"c": 16}, "T_min.*T_max"),
        ({"draws": 0}, "draws=0 must be"),
        ({"chunk": 0}, "chunk=0 must be"),
        ({"estimator": "mode"}, "estimator='mode' is unknown"),
        ({"noise": "pixel"}, "noise='pixel' is unknown"),
        ({"batch_norm": "eval"}, "batch_norm='eval' is unknown"),
        ({"modes": "square"}, "modes='square' is unknown"),
        ({"layers": ["9"]}, "layers names '9', which is not in the model; there are: 0, 1"),
        ({"layers": "1"}, r"layers='1' must be a sequence of names"),
        ({"layers": ["7"], "channel_mean": True}, "'7' gives .* and has no spatial extent"),
    ],
)
def test_bad_input(change, message):
    arguments = {"model": network(), "x": images(4)} | change
    with pytest.raises(ValueError, match=message):
        sensitivities(**arguments)


def test_changes_of_another_shape():
    x = images(4)
    with pytest.raises(ValueError, match=r"noisy of shape \(3, 4, 1, 24, 24\) must be \(draws, 4, 1, 24, 24\)"):
        compare(network(), x, x.expand(2, *x.shape), x.expand(3, *x.shape))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_sees_the_same_deformations():
    model, x = network(), images(20)
    frames = [sensitivities(model, x, device=device) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(frames[0]["R"], frames[1]["R"], rtol=1e-9)


def test_everything_public_is_there():
    assert all(hasattr(stability, name) for name in stability.__all__)
    assert temperature is stability.temperature


class Choosing(nn.Module):
    """Calls its ReLU a second time if the first number of the batch is positive."""

    def __init__(self):
        super().__init__()
        self.linear, self.relu = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        h = self.relu(self.linear(x))
        return self.relu(self.linear(h)) if x[0, 0] > 0 else self.linear(h)


@pytest.mark.parametrize("estimator", ["mean", "median"])
@pytest.mark.parametrize("first", [-1.0, 1.0])
def test_a_layer_that_some_batches_call_and_others_do_not_is_refused(first, estimator):
    """It has no average over all samples; in one batch it has."""
    x = first * torch.ones(8, 4) + 0.1 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    changed = (x + 0.1)[None]
    assert len(compare(Choosing(), x, changed, changed, chunk=4, estimator=estimator)) > 2
    x[4:] *= -1
    with pytest.raises(ValueError, match=r"layer '.*' is called for some batches of samples and not for others"):
        compare(Choosing(), x, changed, changed, chunk=4, estimator=estimator)

"""Catches closed forms that are not those of the networks, and a task whose moves change its labels."""

import numpy as np
import pytest
import torch
from scipy import integrate

from nin.probes.stability import compare, filter_spectrum
from nin.theory.pooling import (
    constant_filter_D,
    constant_filter_G,
    constant_filter_R,
    large_depth_D,
    self_convolution,
    task2_D,
)
from studies.images import scale_images
from studies.scale_detection.networks import ScaledConv1d, ScaleNet, ScaleRecipe, constant_net, fit_scale
from studies.scale_detection.task import ScaleTask, single_pixels
from studies.statistics import loglog_slope

PUBLISHED = ScaleTask(number=2, length=128, xi=32)


def measured(net, depth, changes):
    frame = compare(net, *changes, layers=[f"act{k}" for k in range(1, depth + 1)])
    return frame.iloc[1:].reset_index(drop=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("F", "depth", "dimensions"), [(3, 8, 1), (2, 5, 1), (5, 4, 1), (3, 3, 2)])
def test_stride_1_D(F, depth, dimensions):
    """Two pixels far apart: the pair distance is known, so that D is exact (identity 11)."""
    length = 2 * depth * F + 8
    net = constant_net(depth, F, dimensions=dimensions)
    changes = single_pixels(length, 2, 2, dimensions=dimensions, generator=generator())
    with torch.no_grad():
        f, moved = net(changes.x[0]), net(changes.deformed[0, 0])
    D = (moved - f).square().sum() / (2 * f.square().sum())
    assert constant_filter_D(depth, F) == pytest.approx(D.item(), abs=1e-10)


def test_large_depth():
    ratio = large_depth_D([10, 19], 3) / constant_filter_D([10, 19], 3)
    assert ratio == pytest.approx([1.054, 1.029], abs=4e-3)
    of_depth = {1: {"D": -1.0, "G": 0.5, "R": -1.5}, 2: {"D": -1.0, "G": 1.0, "R": -2.0}}  # stride 1, large k
    for dimensions, powers in of_depth.items():
        k = np.array([200, 400, 800]) if dimensions == 1 else np.array([40, 60, 80])
        for rectified in ("first", "input"):
            options = {"rectified": rectified, "dimensions": dimensions}
            laws = {"D": constant_filter_D(k, 3), "G": constant_filter_G(k, 3, **options)}
            laws["R"] = constant_filter_R(k, 3, **options)
            for quantity, law in laws.items():
                assert loglog_slope(k, law).value == pytest.approx(powers[quantity], abs=0.08)


@pytest.mark.parametrize(("rectified", "G", "R"), [("first", 0.35, -1.31), ("input", 0.43, -1.40)])
def test_slopes_between_10_and_40_layers(rectified, G, R):
    k = np.arange(10, 41)
    assert loglog_slope(k, constant_filter_G(k, 3, rectified=rectified)).value == pytest.approx(G, abs=0.01)
    assert loglog_slope(k, constant_filter_R(k, 3, rectified=rectified)).value == pytest.approx(R, abs=0.01)


@pytest.mark.parametrize(("F", "depth", "length"), [(2, 6, 512), (3, 4, 729)])
@pytest.mark.parametrize("rectified", ["first", "input", "never"])
def test_stride_F(F, depth, length, rectified):
    """All positions and both moves: D is exact; G within 2 % (identity 12, 13)."""
    activation = "linear" if rectified == "never" else "relu"
    net = constant_net(depth, F, stride=F, activation=activation, rectify_input=rectified == "input")
    frame = measured(net, depth, single_pixels(length, length, 8, generator=generator()))
    k = np.arange(1, depth + 1)
    np.testing.assert_allclose(frame["D"], constant_filter_D(k, F, stride=F, length=length), rtol=1e-9)
    G = constant_filter_G(k, F, stride=F, length=length, rectified=rectified)
    np.testing.assert_allclose(frame["G"], G, rtol=0.03)
    if rectified != "never":
        large = 2 * np.pi * float(F) ** ((1 if rectified == "first" else 0) - 2 * 20)
        assert constant_filter_R(20, F, stride=F, rectified=rectified) == pytest.approx(large, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rectified", ["first", "input", "never"])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_stride_1_G(rectified, dimensions):
    depth, length = (8, 2048) if dimensions == 1 else (4, 64)
    activation = "linear" if rectified == "never" else "relu"
    net = constant_net(depth, 3, activation=activation, rectify_input=rectified == "input", dimensions=dimensions)
    frame = measured(net, depth, single_pixels(length, 200, 4, dimensions=dimensions, generator=generator()))
    k = np.arange(1, depth + 1)
    G = constant_filter_G(k, 3, rectified=rectified, dimensions=dimensions)
    np.testing.assert_allclose(frame["G"], G, rtol=0.04)


def test_rectified_moment():
    """q(rho) by quadrature, where it enters: two layers of F = 2, noise rectified after the first."""

    def q(rho):
        def density(b, a):
            return a * b * np.exp(-(a**2 - 2 * rho * a * b + b**2) / (2 * (1 - rho**2)))

        return integrate.dblquad(density, 0, 9, 0, 9)[0] / (2 * np.pi * np.sqrt(1 - rho**2))

    c2, c4 = self_convolution(2, 2), self_convolution(2, 4)
    expected = c2[1] / c4[2] * (c2[1] * 0.5 + 2 * c2[0] * q(0.5))
    assert constant_filter_G(2, 2) == pytest.approx(expected, rel=1e-6)


def test_self_convolution_sums_to_one_and_is_numpys():
    c = self_convolution(3, 5)
    assert c.sum() == pytest.approx(1, rel=1e-14)
    box = np.ones(3) / 3
    expected = box
    for _ in range(4):
        expected = np.convolve(expected, box)
    np.testing.assert_allclose(c, expected, rtol=1e-14)


def enumerated_D(task, pairs, k):
    """D_k of constant filters over all these pairs, weighted so that classes are balanced, and all four moves."""
    labels = task.labels(pairs).double()
    weight = torch.where(labels > 0, 0.5 / (labels > 0).sum().double(), 0.5 / (labels < 0).sum().double())

    def f(positions):
        return torch.nn.functional.one_hot(positions // 2**k, task.length // 2**k).sum(1).double()

    x, change = f(pairs), 0.0
    for move in torch.cartesian_prod(torch.tensor([-1, 1]), torch.tensor([-1, 1])):
        moved = pairs + move
        kept = torch.where(moved.div(task.xi, rounding_mode="floor") == pairs // task.xi, moved, pairs)
        change += (weight @ (f(kept) - x).square().sum(1)).item() / 4
    return change / (2 * (weight @ x.square().sum(1) - (weight @ x).square().sum()).item())


@pytest.mark.parametrize(("length", "xi"), [(64, 16), (128, 32), (96, 16), (48, 8)])
def test_task_2_by_enumeration(length, xi):
    """Identity 14, over positions drawn independently: exact."""
    task = ScaleTask(length=length, xi=xi)
    pairs = torch.cartesian_prod(torch.arange(length), torch.arange(length))
    for k in range(1, int(np.log2(xi)) + 2):
        assert enumerated_D(task, pairs, k) == pytest.approx(task2_D(k, xi, length).item(), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(("task", "off"), [(PUBLISHED, 0.01), (ScaleTask(), 0.02)])
def test_task_2_of_two_different_pixels(task, off):
    """That pixels differ, as in `pairs`, costs terms of 1/xi: at the paper's size less than 1 %."""
    for k in range(1, int(np.log2(task.xi))):
        assert enumerated_D(task, task.pairs, k) == pytest.approx(task2_D(k, task.xi, task.length).item(), rel=off)


def test_task_2_of_the_paper():
    """xi = 32, L = 4 xi: (2^-k - 1/xi)_+, zero once 2^k >= xi."""
    expected = [2.0**-k - 1 / 32 for k in range(1, 6)] + [0.0]
    np.testing.assert_allclose(task2_D(range(1, 7), 32, 128), expected, atol=1e-15)


@pytest.mark.parametrize("number", [1, 2])
def test_moves_keep_labels_and_pixels_move_by_one(number):
    task = ScaleTask(number=number)
    pairs = task.pairs
    moved = task.move(pairs.expand(50, *pairs.shape), generator=generator())
    assert torch.equal(task.labels(moved), task.labels(pairs).expand(50, -1))
    steps = (moved - pairs + 1) % task.length - 1
    assert steps.abs().max() == 1 and (steps != 0).double().mean() > 0.8
    assert (steps > 0).sum().item() == pytest.approx((steps < 0).sum().item(), rel=0.02)
    if number == 2:
        assert torch.equal(moved // task.xi, (pairs // task.xi).expand(50, -1, -1))


def test_labels_of_task_1_are_circular():
    task = ScaleTask(number=1, length=64, xi=16, gap=4)
    pairs = torch.tensor([[0, 11], [0, 12], [0, 19], [0, 20], [0, 44], [0, 53], [1, 63]])
    assert task.labels(pairs).tolist() == [1, 0, 0, -1, -1, 1, 1]


def test_split_is_balanced_and_disjoint():
    task = ScaleTask()
    train, test = task.split(301, 200, seed=3)
    assert len(train) == 301 and len(test) == 200
    assert abs(task.labels(train).sum()) <= 1 and task.labels(test).sum() == 0
    ours, theirs = ({tuple(pair) for pair in part.tolist()} for part in (train, test))
    assert len(ours) == 301 and not ours & theirs
    assert task.images(test).square().sum((1, 2)).tolist() == pytest.approx([64.0] * 200)


def test_changes_have_equal_mean_squares():
    task = ScaleTask()
    x, deformed, noisy = task.changes(task.split(200, 200, seed=0)[1], 50, generator=generator())
    moved, noise = ((values - x).square().sum((2, 3)) for values in (deformed, noisy))
    assert noise.mean().item() == pytest.approx(moved.mean().item(), rel=0.01)
    assert moved.mean().item() == pytest.approx((1 - 1 / 16) * 2 * 64, rel=0.02)


def test_scaled_convolution_is_torchs():
    layer = ScaledConv1d(3, 5, 4)
    x = torch.randn(2, 3, 12)
    expected = torch.nn.functional.conv1d(x, layer.weight / np.sqrt(12), stride=4)
    torch.testing.assert_close(layer(x), expected)


def test_networks_train_as_they_would_alone():
    task, recipe = ScaleTask(length=16, xi=4), ScaleRecipe(depth=3, channels=4, n_train=32, n_test=8, epochs=3)
    together, alone = fit_scale(task, recipe, seeds=[5, 6]), fit_scale(task, recipe, seeds=[6])
    for name, value in alone[0].state_dict().items():
        torch.testing.assert_close(together[1].state_dict()[name], value, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(together[0].state_dict()[name], value)


def test_training_is_adam_on_the_penalised_hinge_loss():
    """A naive twin: one network, the loss as its docstring says, torch's loop."""
    task = ScaleTask(length=16, xi=4)
    recipe = ScaleRecipe(depth=2, channels=3, n_train=16, n_test=8, epochs=4, batch_size=16, penalty=0.01)
    (ours,) = fit_scale(task, recipe, seeds=[1])
    g = generator(1)
    net = ScaleNet(2, 3, generator=g)
    pairs, _ = task.split(16, 8, seed=1)
    x, y = task.images(pairs), task.labels(pairs)
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)
    for _ in range(4):
        torch.randperm(16, generator=g)  # one batch: its order does not matter
        penalty = net.readout.square().sum() / 3
        penalty = (
            penalty + net.convolutions[0].weight.square().sum() / 2 + net.convolutions[1].weight.square().sum() / 6
        )
        loss = (1 - y * net(x)).clamp(min=0).mean() + 0.01 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_trained_network_pools_up_to_the_scale():
    """Task 2 solved; homogeneous filters in log2(xi) layers; D as of constant filters (stability section 4)."""
    task, recipe = (
        ScaleTask(length=32, xi=8),
        ScaleRecipe(depth=5, channels=16, n_train=128, n_test=48, epochs=200, penalty=3e-3),
    )
    for seed, net in enumerate(fit_scale(task, recipe, seeds=[0, 1])):
        _, test = task.split(128, 48, seed=seed)
        assert torch.equal(net(task.images(test)).sign(), task.labels(test))
        share = filter_spectrum(net).query("mode == 0")["share"].to_numpy()
        assert share[:3].mean() > 0.7 and share[3:].mean() < 0.55


def test_scale_images():
    data = scale_images(200, 50, side=28, seed=1)
    assert data.x_train.shape == (200, 784) and data.classes == 2
    assert abs(data.y_train.double().mean() - 0.5) < 0.1
    places = torch.cat([data.x_train, data.x_test]).topk(2, dim=1).indices
    distance = (torch.stack([places // 28, places % 28], -1).double().diff(dim=1)).norm(dim=-1).squeeze(1)
    labels = torch.cat([data.y_train, data.y_test])
    assert distance[labels == 1].max() < 5 and distance[labels == 0].min() >= 9
    assert data.x_train.square().mean().item() == pytest.approx(1, rel=1e-3)
    assert data.hash == scale_images(200, 50, side=28, seed=1).hash


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: constant_filter_D(1, 3, stride=2), "stride=2 must be 1 or F=3"),
        (lambda: constant_filter_D(0, 3), "k=0 must be integers >= 1"),
        (lambda: constant_filter_D([1.5], 3), "must be integers"),
        (lambda: constant_filter_D(1, 1), "F=1 must be an integer >= 2"),
        (lambda: constant_filter_D(1, 2, stride=2, length=-1), "length=-1 must be"),
        (lambda: constant_filter_G(1, 3, rectified="last"), "rectified='last' is unknown"),
        (lambda: constant_filter_G(1, 2, stride=2, dimensions=2), "dimensions=2 must be 1, or 2 with stride=1"),
        (lambda: task2_D(1, 16, 16), "length=16 must be"),
        (lambda: ScaleTask(number=3), "number=3 must be 1 or 2"),
        (lambda: ScaleTask(length=60, xi=16), "length=60 must be a multiple of xi=16"),
        (lambda: ScaleTask(length=32, xi=16), "gap=4 leaves a class"),
        (lambda: ScaleTask().split(2000, 2, seed=0), "n_train=2000 and n_test=2 ask for"),
        (lambda: ScaleRecipe(penalty=-1), "penalty=-1 must be"),
        (lambda: fit_scale(ScaleTask(), ScaleRecipe(n_train=16), seeds=[0]), "batch_size=32 is larger"),
        (lambda: single_pixels(4, 9, 1, generator=generator()), "count=9 is more than the 4 positions"),
        (lambda: ScaleNet(2, 3, activation="gelu"), "activation='gelu' is unknown"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()

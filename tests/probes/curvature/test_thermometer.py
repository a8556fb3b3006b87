"""Catches: a thermometer that misreads <H>, disturbs training, or has error bars that say nothing."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nin import RunConfig, train
from nin.model.networks import MLP
from nin.probes.curvature import Thermometer, extremes, local_hessian, sharpness
from nin.probes.curvature.averaged import noise_averaged
from studies.curvature_probe.follow import at_rest, errors, follow


def network(inputs=6, widths=(12, 9), activation="tanh", dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return MLP(inputs, widths, 4, activation=activation, dtype=dtype, generator=generator)


def batch(count=64, inputs=6):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, inputs, dtype=torch.float64, generator=generator), torch.arange(count) % 4


def settle(thermometer, x, y, readings):
    for _ in range(readings):
        reading = thermometer.read(x, y, loss=F.cross_entropy)
    return reading


def test_one_sample_many_times_reads_the_hessian_exactly():
    """Identical samples do not scatter, so that the readings are a plain power iteration on <H>."""
    model, (x, y) = network(), batch()
    x, y = x[:1].expand(64, -1), y[:1].expand(64)
    exact = torch.linalg.eigvalsh(local_hessian(model, "layers.0", x, y, loss=F.cross_entropy)).flip(0)
    reading = settle(Thermometer(model, "layers.0", nodes=4, amplitude=1e-3, memory=4), x, y, 200)
    torch.testing.assert_close(reading.eigenvalues[:3], exact[:3], rtol=1e-4, atol=1e-7)
    assert reading.stderr[:2].max() < 1e-4


def test_one_pull_is_v_times_the_hessian_plus_cross_talk():
    """T of each group against <eps eps^T V H_i> from torch's Hessian of its samples; the rest is of order A^2."""
    model, (x, y) = network(), batch(16)
    thermometer = Thermometer(model, "layers.0", nodes=4, amplitude=3e-4)
    thermometer._start(model, x)
    v, rng = thermometer._v.copy(), copy.deepcopy(thermometer._rng)
    place = rng.permutation(16)
    eps, group = torch.from_numpy(thermometer._signs[place % 4]).double(), torch.from_numpy(place // 4)
    pulled = torch.from_numpy(thermometer._pull(x, y, F.cross_entropy))
    assert pulled.shape == (4, 4, 12)
    per_sample = [local_hessian(model, "layers.0", x[i : i + 1], y[i : i + 1], loss=F.cross_entropy) for i in range(16)]
    for g in range(4):
        members = [i for i in range(16) if group[i] == g]
        expected = sum(eps[i][:, None] * (eps[i] @ torch.from_numpy(v) @ per_sample[i]) for i in members) / 4
        torch.testing.assert_close(pulled[g], expected, rtol=1e-5, atol=1e-8)
        columns = eps[members]  # orthogonal within each group
        assert torch.equal(columns.T @ columns, 4 * torch.eye(4, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["convolution", "transformer"])
def test_reads_convolutions_and_transformers(shape):
    """The same batch repeatedly: cross-talk is the only noise; the top two modes against exact Lanczos."""
    torch.manual_seed(0)
    if shape == "convolution":
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
        )
        layer, x = "2", torch.randn(256, 1, 8, 8)
        model(x)
    else:
        encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation="gelu", batch_first=True)
        model, layer = nn.Sequential(encoder, nn.Flatten(), nn.Linear(32, 3)), "0.linear1"
        x = torch.randn(256, 4, 8)
    model, x, y = model.double(), x.double(), torch.arange(256) % 3
    top = extremes(model, layer, x, y, loss=F.cross_entropy, count=2)[0]
    reading = settle(Thermometer(model, layer, memory=200), x, y, 800)
    for rank, mode in enumerate(top):
        assert reading.eigenvalues[rank] == pytest.approx(mode.lam, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_error_bars_cover_the_exact_eigenvalues(activation):
    """On fresh batches of a fixed network about two thirds of the readings lie within one standard error."""
    model, (x, y) = network(widths=(16, 16), activation=activation), batch(1024)
    exact = torch.linalg.eigvalsh(local_hessian(model, "layers.0", x, y, loss=F.cross_entropy)).flip(0)[:3]
    scores = []
    for seed in range(24):
        thermometer, generator = Thermometer(model, "layers.0", seed=seed), torch.Generator().manual_seed(seed)
        for _ in range(40):
            rows = torch.randint(1024, (64,), generator=generator)
            reading = thermometer.read(x[rows], y[rows], loss=F.cross_entropy)
        scores.append((reading.eigenvalues[:3] - exact) / reading.stderr[:3])
    scores = torch.stack(scores)
    assert 0.5 < (scores.abs() < 1).double().mean() < 0.95
    assert (scores.abs() < 2.5).double().mean() > 0.85


def test_training_does_not_notice(blobs):
    """The same weights bit for bit with and without a thermometer, and those of nin.train."""
    config = RunConfig(widths=(8, 8), sigma=2.0, steps=40, batch_size=32, activation="tanh", dtype="float64")
    with_it, without = (follow(config, data=blobs, every=every, samples=64, nodes=4) for every in (3, None))
    for one, other in zip(with_it.network.parameters(), without.network.parameters(), strict=True):
        assert torch.equal(one, other)
    trained = train([config], data=blobs).model(0)
    for one, other in zip(with_it.network.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_model_is_left_as_it_was():
    """Modes, gradients, buffers, hooks and random numbers; dropout and batch normalisation are inactive."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 4)).double()
    model[3].eval()
    x, y = batch()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    Thermometer(model, "0", nodes=4).read(x, y, loss=F.cross_entropy)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert [module.training for module in model] == [True, True, True, False, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_noise_average_of_small_noise_is_the_curvature():
    model, (x, y) = network(), batch()
    hessian = local_hessian(model, "layers.0", x, y, loss=F.cross_entropy)
    v = torch.linalg.eigh(hessian).eigenvectors[:, -1] * 3
    kwargs = {"loss": F.cross_entropy, "direction": v, "amplitude": 1e-3, "pairs": 400}
    value, stderr = noise_averaged(model, "layers.0", x, y, **kwargs)
    v = v / v.norm()
    assert stderr < 0.05 * abs(value)
    assert value == pytest.approx((v @ hessian @ v).item(), abs=3 * stderr)


def test_relu_reads_the_noise_averaged_curvature():
    """Autograd's Hessian omits the kinks and is too small; a thermometer reads the average over its own noise."""
    model, (x, y) = network(widths=(32, 32), activation="relu"), batch(512)
    found = at_rest(model, "layers.0", x, y, loss=F.cross_entropy, amplitudes=[0.1])
    row = found.iloc[0]
    assert row["read"] == pytest.approx(row["averaged"], rel=0.1)
    assert row["read"] > 1.2 * row["autograd"]
    smooth = at_rest(network(widths=(32, 32)), "layers.0", x, y, loss=F.cross_entropy, amplitudes=[0.05]).iloc[0]
    assert smooth["read"] == pytest.approx(smooth["autograd"], rel=0.1)
    assert smooth["averaged"] == pytest.approx(smooth["autograd"], abs=3 * smooth["averaged_stderr"])


def test_sharpness_is_the_top_of_the_hessian():
    """Against torch's dense Hessian in all parameters, and a linear layer's closed form."""
    model, (x, y) = network(widths=(5,)), batch(32)
    names, values = zip(*((name, value.detach()) for name, value in model.named_parameters()), strict=True)

    def total(*parameters):
        out = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))
        return F.cross_entropy(out, y)

    blocks = torch.autograd.functional.hessian(total, values)
    sizes = [value.numel() for value in values]
    dense = torch.cat(
        [torch.cat([block.reshape(n, -1) for block in row], 1) for n, row in zip(sizes, blocks, strict=True)]
    )
    exact = torch.linalg.eigvalsh(dense).max().item()
    mode = sharpness(model, x, y, loss=F.cross_entropy)
    assert mode.lam == pytest.approx(exact, rel=1e-8)
    assert mode.residual < 1e-7

    regression = nn.Linear(6, 1, bias=False).double()
    squares = sharpness(regression, x, x[:, :1], loss=lambda f, t: 0.5 * (f - t).square().sum(-1))
    assert squares.lam == pytest.approx(torch.linalg.eigvalsh(x.T @ x / len(x)).max().item(), rel=1e-8)


def test_follow_records_exact_values_where_asked(blobs):
    config = RunConfig(widths=(8, 8), sigma=1.0, steps=30, batch_size=32, activation="tanh", dtype="float64", seed=3)
    seen = follow(config, data=blobs, exact_at=[0, 20], sharp_at=[0], every=10, samples=64, ranks=3, nodes=4)
    exact = seen.spectrum[seen.spectrum["method"] == "exact"]
    assert sorted(set(exact["step"])) == [0, 20]
    assert seen.niw.shape == (31, 1, 8)
    np.testing.assert_allclose(seen.losses["niw_norm"], seen.niw.flatten(1).norm(dim=1))
    assert set(errors(seen.spectrum)["step"]) == {0, 20}
    start = seen.losses.loc[0]
    first = train([config], data=blobs).frame().iloc[0]
    assert start["noisy_loss"] == pytest.approx(first["noisy_loss"], rel=1e-12)
    assert exact["value"].iloc[0] == pytest.approx(first["lambda_H"], rel=1e-9)
    assert start["noisy_sharpness"] > start["sharpness"] > 0


def test_a_run_that_diverges_ends_there(blobs):
    seen = follow(RunConfig(widths=(8,), sigma=1e6, steps=60, batch_size=32), data=blobs, every=None)
    assert len(seen.losses) < 61
    assert not np.isfinite(seen.losses["noisy_loss"].iloc[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "layers.9"}, r"layer='layers.9' is not in the model; layers that take a node are: layers.0"),
        ({"nodes": 0}, "nodes=0"),
        ({"amplitude": 0.0}, "amplitude=0.0"),
        ({"memory": 0}, "memory=0"),
        ({"nodes": 13}, "nodes=13 is more than the 12 units"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    x, y = batch()
    with pytest.raises(ValueError, match=message):
        Thermometer(network(), **({"layer": "layers.0"} | arguments)).read(x, y, loss=F.cross_entropy)


def test_a_batch_smaller_than_the_nodes_is_refused():
    x, y = batch(7)
    with pytest.raises(ValueError, match="x has 7 samples for nodes=8"):
        Thermometer(network(), "layers.0").read(x, y, loss=F.cross_entropy)


@pytest.mark.parametrize("bad", [torch.nan, 1e200])
def test_a_diverged_batch_reads_nan_and_is_forgotten(bad):
    """Not a number, or so large that its square overflows: without a warning, and later readings do not know of it."""
    model, (x, y) = network(), batch()
    one, other = Thermometer(model, "layers.0"), Thermometer(model, "layers.0")
    for thermometer in (one, other):
        settle(thermometer, x, y, 3)
    lost = one.read(x, y, loss=lambda outputs, labels: bad * F.cross_entropy(outputs, labels))
    assert lost.eigenvalues.isnan().all() and lost.stderr.isnan().all()
    other._rng.permutation(len(x))  # the signs that the lost reading took
    assert torch.equal(settle(one, x, y, 1).eigenvalues, settle(other, x, y, 1).eigenvalues)


def test_first_reading_has_no_error_bar():
    x, y = batch()
    reading = Thermometer(network(), "layers.0").read(x, y, loss=F.cross_entropy)
    assert reading.stderr.isnan().all()
    assert reading.eigenvalues.shape == (8,)


@pytest.mark.slow
def test_digits_along_training():
    """One seed of benchmarks/thermometer.py: tanh step by step; softplus, whose <H> jumps between steps, on average."""
    for activation in ("tanh", "softplus"):
        config = RunConfig(activation=activation, nodes=0, lr=0.1, steps=800, eval_samples=1437)
        found = errors(follow(config, exact_at=range(100, 801, 50)).spectrum)
        if activation == "tanh":
            assert found[found["rank"] == 1]["error"].abs().median() < 0.07
            assert found["error"].abs().median() < 0.09
        total = found.groupby("rank")[["value", "exact"]].mean()
        assert total["value"][1] == pytest.approx(total["exact"][1], rel=0.06 if activation == "tanh" else 0.12)
        assert total["value"].sum() == pytest.approx(total["exact"].sum(), rel=0.08)

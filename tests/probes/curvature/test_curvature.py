"""Catches: a wrong local Hessian, a top mode that is the largest magnitude, a noise average that misses its limit."""

import numpy as np
import pytest
import torch
from torch import nn

from nin import RunConfig, inject, train
from nin.model.losses import LOSSES
from nin.model.networks import MLP
from nin.probes.curvature import extremes, hessian, local_hessian, top_mode


def network(activation="tanh"):
    return MLP(5, (7, 6), 3, activation=activation, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(20, 5, dtype=torch.float64, generator=generator), torch.arange(20) % 3


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_local_hessian_is_the_mean_of_the_samples(layer, activation):
    """Against torch's Hessian of every sample at its own pre-activation, and against central differences."""
    model, (x, y) = network(activation), batch()
    hessian = local_hessian(model, f"layers.{layer}", x, y, loss=nn.functional.cross_entropy)
    phi = {"tanh": torch.tanh, "relu": torch.relu}[activation]

    def upper(z, label):
        for later in model.layers[layer + 1 :]:
            z = later(phi(z))
        return nn.functional.cross_entropy(z[None], label[None])

    z = x
    for earlier in model.layers[:layer]:
        z = phi(earlier(z))
    z = model.layers[layer](z).detach()
    per_sample = [
        torch.autograd.functional.hessian(lambda zi, yi=yi: upper(zi, yi), zi) for zi, yi in zip(z, y, strict=True)
    ]
    torch.testing.assert_close(hessian, torch.stack(per_sample).mean(0), rtol=1e-10, atol=1e-12)
    if activation == "tanh":
        v = torch.linspace(-1, 1, len(hessian), dtype=torch.float64)

        def loss(step):
            return torch.stack([upper(zi + step * v, yi) for zi, yi in zip(z, y, strict=True)]).mean().item()

        second = (loss(1e-4) - 2 * loss(0) + loss(-1e-4)) / 1e-8
        assert (v @ hessian @ v).item() == pytest.approx(second, rel=1e-4)


def test_top_mode_dense_equals_lanczos(monkeypatch):
    model, (x, y) = network(), batch()
    dense = top_mode(model, "layers.1", x, y, loss=LOSSES["cross_entropy"])
    monkeypatch.setattr(hessian, "DENSE_LIMIT", 1)
    lanczos = top_mode(model, "layers.1", x, y, loss=LOSSES["cross_entropy"])
    assert lanczos.lam == pytest.approx(dense.lam, rel=1e-8)
    torch.testing.assert_close(lanczos.vector, dense.vector, rtol=1e-5, atol=1e-6)
    assert dense.residual < 1e-10 and lanczos.residual < 1e-6


def test_top_mode_is_the_algebraically_largest(monkeypatch):
    """-3 has the larger magnitude; +1 is the top."""
    linear = nn.Linear(2, 2, bias=False, dtype=torch.float64)

    def saddle(outputs, y):
        return 0.5 * (outputs[:, 0] ** 2 - 3 * outputs[:, 1] ** 2).mean()

    x = torch.zeros(4, 2, dtype=torch.float64)
    for limit in (1024, 1):
        monkeypatch.setattr(hessian, "DENSE_LIMIT", limit)
        if limit == 1:
            continue  # Lanczos needs more than two dimensions
        mode = top_mode(nn.Sequential(linear), "0", x, x, loss=saddle)
        assert mode.lam == pytest.approx(1)
        torch.testing.assert_close(mode.vector, torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_batches_of_unequal_size_are_weighted_by_their_samples(batch_size):
    model, (x, y) = network(), batch()
    whole = local_hessian(model, "layers.0", x, y, loss=LOSSES["cross_entropy"])
    pieces = local_hessian(model, "layers.0", x, y, loss=LOSSES["cross_entropy"], batch_size=batch_size)
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="batch_size=0 must be an integer >= 1"):
        local_hessian(model, "layers.0", x, y, loss=LOSSES["cross_entropy"], batch_size=0)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_both_algebraic_ends_without_a_matrix(dtype, rel):
    """Against numpy's eigenvalues of the dense <H>, whose lower end is negative away from a minimum."""
    generator = torch.Generator().manual_seed(4)
    model, (x, y) = MLP(5, (40, 30), 3, activation="tanh", dtype=dtype, generator=generator), batch()
    with torch.no_grad():
        model.layers[2].weight *= 3
    x = x.to(dtype)
    values = np.linalg.eigvalsh(local_hessian(model, "layers.0", x, y, loss=LOSSES["cross_entropy"]).double().numpy())
    largest, smallest = extremes(model, "layers.0", x, y, loss=LOSSES["cross_entropy"], count=3, batch_size=9)
    scale = np.abs(values).max()
    np.testing.assert_allclose([mode.lam for mode in largest], values[::-1][:3], atol=rel * scale)
    np.testing.assert_allclose([mode.lam for mode in smallest], values[:3], atol=rel * scale)
    assert values[0] < -1e-3 * scale
    for mode in largest + smallest:
        assert mode.residual < 100 * rel * scale and mode.vector.norm() == pytest.approx(1, rel=1e-5)
    with pytest.raises(ValueError, match="count=20 at both ends is too many for d=40 units"):
        extremes(model, "layers.0", x, y, loss=LOSSES["cross_entropy"], count=20)


@pytest.mark.parametrize("at", ["input", "preactivation"])
def test_curvature_of_a_convolution_is_the_hessian_in_the_niw(at):
    """Against torch's Hessian of the loss in the weights of a node with eps = 1 for every sample, at W_NI = 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4)).double()
    x, y = torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.arange(5) % 4
    model(x)  # statistics of BatchNorm
    noisy = inject(model.eval(), "0", sigma=1.0, niw_std=0.0, at=at, example=x)

    def loss(niw):
        outputs = torch.func.functional_call(noisy, {"niw": niw}, (x, torch.ones(5, 1, dtype=torch.float64)))
        return nn.functional.cross_entropy(outputs, y)

    expected = torch.autograd.functional.hessian(loss, noisy.niw.detach()).reshape(noisy.niw.numel(), -1)
    hessian = local_hessian(model.train(), "0", x, y, loss=nn.functional.cross_entropy, at=at, batch_size=2)
    assert model.training
    torch.testing.assert_close(hessian, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layer", ["layers.0.linear1", "layers.1.linear2"])
def test_curvature_inside_a_transformer(layer):
    """Against central differences of the loss under a shift of the layer's bias."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True, activation="gelu", dtype=torch.float64)
    model, x = nn.TransformerEncoder(block, 2, enable_nested_tensor=False), torch.randn(5, 6, 8, dtype=torch.float64)
    y = torch.randn(5, 6, 8, dtype=torch.float64)
    hessian = local_hessian(model, layer, x, y, loss=nn.functional.mse_loss)
    v = torch.linspace(-1, 1, len(hessian), dtype=torch.float64)
    bias, values = model.eval().get_submodule(layer).bias, []
    with torch.no_grad():
        for step in (1e-3, -1e-3, 0.0):
            bias += step * v
            values.append(nn.functional.mse_loss(model(x), y).item())
            bias -= step * v
    second = (values[0] + values[1] - 2 * values[2]) / 1e-6
    assert (v @ hessian @ v).item() == pytest.approx(second, rel=1e-4)


def test_probe_leaves_the_model_as_it_was():
    model, (x, y) = network().train(), batch()
    model.layers[0].eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    local_hessian(model, "layers.1", x, y, loss=nn.functional.cross_entropy)
    assert model.training and not model.layers[0].training
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_quadratic_law_of_smooth_networks(activation):
    """Prediction 18: E dL/dW = sigma^2 <H> W and E L - L = sigma^2/2 W.<H>W within 2 % for sigma |W| << 1."""
    model, (x, y) = network(activation), batch()
    noisy = inject(model, "layers.1", sigma=0.02, niw_std=0.5, generator=torch.Generator().manual_seed(2))
    hessian = local_hessian(model, "layers.1", x, y, loss=nn.functional.cross_entropy)
    w, sigma = noisy.niw.detach()[0], noisy.sigma
    samples = x.repeat(4000, 1), y.repeat(4000)
    signs = torch.randint(2, (len(samples[1]), 1), generator=torch.Generator().manual_seed(3)) * 2.0 - 1
    gradient, loss = 0, 0
    for noise in (sigma * signs, -sigma * signs):
        value = nn.functional.cross_entropy(noisy(samples[0], noise.double()), samples[1])
        gradient = gradient + torch.autograd.grad(value, noisy.niw)[0][0] / 2
        loss = loss + value.item() / 2
    plain = nn.functional.cross_entropy(model(x), y).item()
    expected = sigma**2 * hessian @ w
    assert ((gradient - expected).norm() / expected.norm()).item() < 0.02
    assert loss - plain == pytest.approx((0.5 * sigma**2 * w @ hessian @ w).item(), rel=0.02)


def test_kappa_avg_of_a_smooth_network_is_the_curvature_along_the_niw(blobs):
    config = RunConfig(widths=(9, 8), steps=0, sigma=0.02, seed=1, activation="tanh", dtype="float64",
                       batch_size=16, law="rademacher", curvature_pairs=16)  # fmt: skip
    runs = train(config, data=blobs)
    model = runs.model(0)
    hessian = local_hessian(model.network, "layers.0", blobs.x_train.double(), blobs.y_train,
                            loss=nn.functional.cross_entropy)  # fmt: skip
    w = model.niw.detach()[0]
    along = (w @ hessian @ w / (w @ w)).item()
    assert runs.kappa_avg[0] == pytest.approx(0.05 * 0.02**2 * along, rel=0.02)
    assert runs.kappa_H[0] == pytest.approx(0.05 * 0.02**2 * np.linalg.eigvalsh(hessian.numpy())[-1], rel=1e-9)


def test_unknown_layer_is_named():
    with pytest.raises(ValueError, match=r"layer='head' is not in the model; layers that take a node are: layers.0"):
        local_hessian(network(), "head", *batch(), loss=nn.functional.cross_entropy)

"""Catches: a closed form of <H> that differs from second derivatives, or that is used where it does not hold."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from nin.model.networks import MLP
from nin.probes.curvature import hessian, local_hessian, perceptron, top_mode
from nin.probes.curvature.hessian import LocalHessian
from nin.probes.curvature.perceptron import in_closed_form
from nin.support.threads import threads

SIZES = (7, (9, 11, 6), 4)
KINDS = {"relu": torch.relu, "tanh": torch.tanh, "softplus": F.softplus, "linear": lambda z: z}


def fourth(outputs, y):
    """Per-sample losses whose second derivatives depend on the targets."""
    return ((outputs - F.one_hot(y, 4)) ** 4).sum(1)


def ranked(outputs, y):
    """No mean over samples: neighbours in the batch see each other."""
    return (outputs - outputs.roll(1, 0)).square().mean() + F.cross_entropy(outputs, y)


def network(kind="tanh", *, init="he", bias=True):
    model = MLP(*SIZES, activation=kind, init=init, bias=bias, dtype=torch.float64, generator=seeded(1))
    for part in model.layers if bias else ():
        part.bias.data.normal_(generator=seeded(2))
    return model


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    return torch.randn(23, 7, dtype=torch.float64, generator=seeded(3)), torch.randint(4, (23,), generator=seeded(4))


def by_autograd(model, layer, x, y, loss):
    """The Hessian of the mean loss in the shift, by torch.func."""

    def shifted(delta):
        h = x
        for index, part in enumerate(model.layers):
            z = part.scale * h @ part.weight.T + (0 if part.bias is None else part.bias)
            h = KINDS[model.activation](z + delta if index == layer else z)
        return loss(z + delta if layer == len(model.layers) - 1 else z, y).mean()

    return torch.func.jacrev(torch.func.grad(shifted))(x.new_zeros(model.layers[layer].out_features))


@pytest.mark.parametrize("loss", [F.cross_entropy, fourth])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_hessian(kind, loss, batch, monkeypatch):
    """At every layer, the last included, with and without biases and scales, in parts of a few samples and at once."""
    for init, bias, layer, size in itertools.product(("he", "ntk"), (True, False), range(4), (400, 2**19)):
        monkeypatch.setattr(perceptron, "SLICE", size)
        model, name = network(kind, init=init, bias=bias), f"layers.{layer}"
        found = local_hessian(model, name, *batch, loss=loss)
        products = LocalHessian(model, name, *batch, loss=loss) @ torch.eye(len(found), dtype=torch.float64)
        exact = by_autograd(model, layer, *batch, loss)
        for other in (products, exact):
            torch.testing.assert_close(found, other, rtol=0, atol=1e-12 * exact.abs().max().item())
        assert exact.abs().max() > 0


def test_a_loss_that_is_no_mean_over_samples_goes_by_products(batch, monkeypatch):
    monkeypatch.setattr(perceptron, "SLICE", 400)
    model = network()
    assert perceptron.perceptron_hessian(model, "layers.1", *batch, loss=ranked) is None
    found = local_hessian(model, "layers.1", *batch, loss=ranked)
    torch.testing.assert_close(found, by_autograd(model, 1, *batch, ranked), rtol=1e-10, atol=1e-12)


def ignoring(outputs, y):
    """The samples that count differ in number from batch to batch, their losses hardly."""
    return F.cross_entropy(outputs, torch.where(y == 3, -100, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ignored_targets_are_noticed_where_all_losses_are_nearly_equal(dtype, monkeypatch):
    """The value is that of the mean over batches to 1e-4; the rival, their mean, is another matrix."""
    monkeypatch.setattr(perceptron, "SLICE", 2000)
    model = MLP(20, (32, 24), 10, activation="softplus", dtype=dtype, generator=seeded(0))
    model.layers[2].weight.data *= 1e-2
    x, y = torch.randn(500, 20, generator=seeded(1)).to(dtype), torch.randint(10, (500,), generator=seeded(2))
    parts = list(zip(x.split(9), y.split(9), strict=True))
    values = [len(t) / len(y) * ignoring(model(part), t).item() for part, t in parts]
    assert abs(sum(values) / ignoring(model(x), y).item() - 1) < 1e-4
    exact = by_autograd(model, 0, x, y, ignoring).detach()
    rival = sum(len(t) / len(y) * by_autograd(model, 0, part, t, ignoring) for part, t in parts).detach()
    close = 1e-5 if dtype == torch.float32 else 1e-11
    found = local_hessian(model, "layers.0", x, y, loss=ignoring)
    assert (found - exact).norm() < close * exact.norm() and (rival - exact).norm() > 1e-3 * exact.norm()
    with pytest.raises(ValueError, match="it is not a mean over samples"):
        local_hessian(model, "layers.0", x, y, loss=ignoring, batch_size=9)


def test_under_autocast_the_products_are_those_of_autocast(batch):
    model = MLP(*SIZES, generator=seeded(1))
    x, y = batch[0].float(), batch[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not in_closed_form(model, "layers.1", None, x)
        assert local_hessian(model, "layers.1", x, y, loss=F.cross_entropy).dtype == torch.float32


@pytest.mark.parametrize("kind", ["relu", "linear"])
def test_it_holds_for_more_outputs_than_units_too(kind):
    model = MLP(5, (6, 7), 30, activation=kind, dtype=torch.float64, generator=seeded(1))
    x, y = (torch.randn(11, size, dtype=torch.float64, generator=seeded(size)) for size in (5, 30))
    loss = lambda f, y: ((f - y) ** 4).sum(1)  # noqa: E731
    for layer in range(3):
        found, exact = local_hessian(model, f"layers.{layer}", x, y, loss=loss), by_autograd(model, layer, x, y, loss)
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12 * exact.abs().max().item())


def doubled(module, inputs, output):
    return 2 * output


def hooked():
    model = network()
    model.layers[2].register_forward_hook(doubled)
    return model


def normed():
    model = network()
    parametrizations.weight_norm(model.layers[2])
    return model


def overridden():
    model = network()
    model.layers[2].forward = lambda z: 3 * nn.Linear.forward(model.layers[2], z)
    return model


class Doubled(MLP):
    """A class of one's own, whose outputs are twice those of the layers."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("make", [hooked, normed, overridden, lambda: Doubled(*SIZES, dtype=torch.float64)])
def test_what_is_no_bare_perceptron_goes_by_products(make, batch):
    """The rival, the closed form of its layers, is another matrix."""
    model = make()
    x, y = batch
    assert not in_closed_form(model, "layers.1", None, x)
    found = local_hessian(model, "layers.1", x, y, loss=F.cross_entropy)
    rival = perceptron.perceptron_hessian(model, "layers.1", x, y, loss=F.cross_entropy)
    step = 1e-4
    v = torch.randn(11, dtype=torch.float64, generator=seeded(5))
    values = []
    for size in (-step, 0, step):
        shift = model.layers[1].register_forward_hook(lambda _, __, z, size=size: z + size * v)
        values.append(F.cross_entropy(model(x), y).item())
        shift.remove()
    curved = (values[0] - 2 * values[1] + values[2]) / step**2
    assert (v @ found @ v).item() == pytest.approx(curved, rel=1e-4)
    if make is not normed:  # whose weights are as they are read
        assert (v @ rival @ v).item() != pytest.approx(curved, rel=1e-2)


def test_it_is_used_for_the_networks_of_the_papers_alone(batch, monkeypatch):
    model, (x, y) = network(), batch
    assert in_closed_form(model, "layers.1", None, x) and in_closed_form(model, "layers.3", "preactivation", x)
    assert not in_closed_form(model, "layers.1", "input", x) and not in_closed_form(model, "layers.1", None, x.float())
    assert not in_closed_form(nn.Sequential(model), "0.layers.1", None, x)
    before = (
        local_hessian(model, "layers.1", x, y, loss=F.cross_entropy),
        top_mode(model, "layers.1", x, y, loss=F.cross_entropy),
    )
    monkeypatch.setattr(hessian.LocalHessian, "__matmul__", lambda *_: pytest.fail("it went by products"))
    torch.testing.assert_close(local_hessian(model, "layers.1", x, y, loss=F.cross_entropy), before[0])
    assert top_mode(model, "layers.1", x, y, loss=F.cross_entropy).lam == before[1].lam


@pytest.mark.parametrize("kind", ["relu", "softplus"])
def test_the_number_of_threads_changes_no_bit(kind):
    """A run's lambda_H is the same in a process of one thread and in one of two."""
    model = MLP(64, (128, 128), 10, activation=kind, generator=seeded(1))
    x, y = torch.randn(1437, 64, generator=seeded(2)), torch.randint(10, (1437,), generator=seeded(3))
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(local_hessian(model, "layers.0", x, y, loss=F.cross_entropy))
    assert torch.equal(*found)

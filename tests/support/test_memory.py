"""Catches: a computation that starts although it does not fit into memory, a refusal of one that does."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nin.probes.curvature import extremes, local_hessian, sharpness, top_mode
from nin.probes.interactions import layerwise, masked_outputs
from nin.probes.response import kernel, kernel_by_layer
from nin.support import memory


@pytest.fixture
def room(monkeypatch):
    """A function that sets the free memory, in bytes."""

    def set_to(size):
        monkeypatch.setattr(memory, "limit", lambda device=None: float(size))

    return set_to


def mlp(outputs=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, outputs))


X, Y = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10
LOSS = F.cross_entropy


def test_the_kernel_is_refused_with_its_size_and_what_to_do(room):
    """Of 12 samples and 10 outputs: 4 * 120^2 bytes in full; its Jacobian 4 * 120 * 350 and what tanh keeps."""
    room(4 * 120**2 + 4 * 120 * 350)
    with pytest.raises(
        ValueError, match=r"n = 12 and m = 12 samples with C = 10 .* 0.00.* GB .*limit: 0.00.*kernel_sk"
    ):
        kernel(mlp(), X, outputs="full")
    with pytest.raises(ValueError, match="lower n, or use outputs='trace'"):
        kernel_by_layer(mlp(), X, outputs="full")
    room(4 * 120**2 + 4 * 120 * 350 * 4)
    assert kernel(mlp(), X, outputs="full").shape == (12, 10, 12, 10)
    room(8 * 12**2 + 4 * 120 * 350 * 2)
    assert kernel(mlp(), X).shape == (12, 12)
    room(4 * 350)
    with pytest.raises(ValueError, match="chunk=1"):
        kernel(mlp(), X)


def test_nothing_is_computed_before_the_refusal(room):
    model, calls = mlp(), []
    model.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    room(1000)
    for probe in (
        lambda: kernel(model, X),
        lambda: sharpness(model, X, Y, loss=LOSS),
        lambda: local_hessian(model, "0", X, Y, loss=LOSS),
    ):
        calls.clear()
        with pytest.raises(ValueError, match="limit: 1e-06 GB"):
            probe()
        assert len(calls) <= 5 and max(calls) <= 2, calls  # the checks of samples that mix or differ


def test_curvature_says_what_to_do(room):
    model = mlp()
    room(3 * 4 * 20**2 - 1)
    with pytest.raises(ValueError, match="d = 20, takes 4.8e-06 GB .* use extremes"):
        local_hessian(model, "0", X, Y, loss=LOSS)
    assert extremes(model, "0", X, Y, loss=LOSS, batch_size=3)[0]
    one = 4 * (20 + 10) + 8 + 6  # bytes for a sample: tanh, log-softmax, its label, half of three numbers for two
    room(5.25 * 12 * one)
    found = extremes(model, "0", X, Y, loss=LOSS)[0][0].lam
    room(5.25 * 12 * one / 2)
    with pytest.raises(ValueError, match="12 samples at a time takes .* smaller batch_size"):
        extremes(model, "0", X, Y, loss=LOSS)
    assert extremes(model, "0", X, Y, loss=LOSS, batch_size=3)[0][0].lam == pytest.approx(found, rel=1e-4)
    with pytest.raises(ValueError, match="12 samples at a time takes .* smaller batch_size"):
        top_mode(model, "0", X, Y, loss=LOSS)
    room(6 * 12 * 4 * 26)
    whole = sharpness(model, X, Y, loss=LOSS).lam
    room(6 * 12 * 4 * 25)
    with pytest.raises(ValueError, match="12 samples at a time takes .* smaller batch_size"):
        sharpness(model, X, Y, loss=LOSS)
    assert sharpness(model, X, Y, loss=LOSS, batch_size=3).lam == pytest.approx(whole, rel=1e-4)
    with pytest.raises(ValueError, match="use fewer samples"):
        sharpness(model, X, Y, loss=LOSS, batch_norm="batch")


def test_games_are_refused_before_their_passes(room):
    model, patches = mlp(), torch.eye(6, dtype=torch.bool)
    room(4 * 2**6 * 20 - 1)
    with pytest.raises(ValueError, match="keeping 0, output on all 64 masked inputs takes .* fewer patches"):
        masked_outputs(model, X[0], patches, X[1], ["0"])
    room(4 * 2**6 * 30)
    assert masked_outputs(model, X[0], patches, X[1], ["0"])["0"].shape == (64, 20)
    with pytest.raises(ValueError, match="n = 6 variables takes .* use fewer images"):
        layerwise(model, X, Y, layers=["0"], patches=patches, untrained=False)
    room(1e12)
    many = nn.Sequential(nn.Linear(14, 4), nn.Tanh(), nn.Linear(4, 2))
    calls = []
    many.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match="n = 14: the split takes an inverse of 2 GB; at most n = 13"):
        layerwise(many, torch.randn(3, 14), torch.tensor([0, 1, 0]), layers=["0"],
                  patches=torch.eye(14, dtype=torch.bool), untrained=False)  # fmt: skip
    assert not calls


def test_the_limit_is_what_this_process_may_use(monkeypatch):
    monkeypatch.setattr(memory.cores, "memory", lambda: 1e6)
    assert memory.limit() == memory.limit(torch.device("cpu")) == 1e6
    assert memory.limit(torch.device("meta")) == float("inf")


def test_what_a_forward_pass_keeps_is_counted_without_parameters():
    """tanh keeps its output, the second layer its input, which is the same tensor, the first layer its input."""
    model = mlp()
    _, sizes = memory.kept(lambda: model(X), model.parameters())
    assert sorted(sizes) == [4 * 12 * 6, 4 * 12 * 20]


def test_what_is_kept_once_is_not_counted_for_every_sample(room):
    """A weight that is computed from others, 4 * 20 * 400 bytes: once for all 64 samples, not for each."""
    torch.manual_seed(0)
    wide = nn.utils.parametrizations.weight_norm(nn.Linear(20, 400))
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), wide, nn.Tanh(), nn.Linear(400, 10))
    x, y = X.repeat(6, 1)[:64], Y.repeat(6)[:64]
    weight, each = 4 * 20 * 400, 4 * (20 + 400 + 20)  # what a sample keeps, at most
    room(6 * (4 * weight + 64 * each))
    assert 6 * (4 * weight + 64 * each) < 5.25 * 64 * weight / 2
    assert extremes(model, "0", x, y, loss=LOSS)[0]
    assert sharpness(model, x, y, loss=LOSS)

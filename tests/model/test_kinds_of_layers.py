"""Catches: a layer of another library that takes no node, or the wrong one; options by layer; nodes taken out again."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nin import inject


def values(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Conv1D(nn.Module):
    """The linear layer of GPT-2: weight (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class Adapted(nn.Module):
    """Acts like a linear layer, as adapters and quantised layers do, and keeps its weight elsewhere."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.base = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.base(x)


@pytest.mark.parametrize("layer", [Conv1D(4, 3), Adapted(3, 4)])
@pytest.mark.parametrize("at", ["preactivation", "input"])
def test_layers_that_act_like_a_linear_one(layer, at):
    model = nn.Sequential(layer).double()
    noisy = inject(model, "0", sigma=1.0, nodes=2, at=at)
    x, eps = values(5, 7, 3), values(5, 2, seed=1)
    shift = (eps @ noisy.niw)[:, None]
    expected = model(x) + shift if at == "preactivation" else model(x + shift)
    torch.testing.assert_close(noisy(x, eps), expected)


def test_an_embedding():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)).double()
    noisy = inject(model, "0", sigma=1.0)
    x, eps = torch.arange(15).view(5, 3) % 10, values(5, 1)
    torch.testing.assert_close(noisy(x, eps), model[1](model[0](x) + (eps @ noisy.niw)[:, None]))
    with pytest.raises(ValueError, match="at='input': layer='0' is an embedding of integers"):
        inject(model, "0", sigma=1.0, at="input")


def test_attention_off_the_fast_path_calls_the_layer():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), 1).double()
    noisy = inject(encoder, "layers.0.linear1", sigma=1.0).eval()
    x, eps = values(4, 3, 8), values(4, 1)
    padding = torch.tensor([[False, False, True]] * 4)
    enabled = torch.backends.mha.get_fastpath_enabled()
    with noisy.using(eps):
        slow = noisy(x, src_key_padding_mask=padding)
        with torch.no_grad():
            fast = noisy(x, src_key_padding_mask=padding)
    torch.testing.assert_close(fast[:, :2], slow[:, :2])
    assert not torch.allclose(slow[:, :2], encoder(x, src_key_padding_mask=padding)[:, :2])
    assert torch.backends.mha.get_fastpath_enabled() is enabled


def test_a_compiled_or_distributed_model_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="model is compiled.*Inject first, then compile"):
        inject(torch.compile(model, backend="eager"), "0", sigma=1.0)
    model[0].compile(backend="eager")
    with pytest.raises(ValueError, match="its module '0' is compiled"):
        inject(model, "0", sigma=1.0)
    assert inject(model, "1", sigma=1.0)


COMPILED = """
import torch, nin
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
noisy = nin.inject(model, "0", sigma=1.0)
compiled, x = torch.compile(noisy, backend="eager"), torch.randn(5, 3)
for _ in range(3):
    eps = noisy.draw(5)
    torch.testing.assert_close(compiled(x, eps), noisy(x, eps))
try:
    torch.compile(noisy, backend="eager", fullgraph=True)(x)
except torch._dynamo.exc.Unsupported as error:
    assert "fullgraph=True cannot hold it" in str(error)
else:
    raise AssertionError("a graph without the noise")
"""


@pytest.mark.slow
def test_compiled_afterwards_a_noisy_network_meets_each_noise():
    """In a process of its own: the tests' type checks cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_spectral_norm_keeps_its_buffers():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noisy = inject(model, "0", sigma=1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    x, eps = values(5, 4), values(5, 1)
    model.eval()
    torch.testing.assert_close(noisy(x, eps), model[1](model[0](x) + eps @ noisy.niw))


def test_options_by_layer():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    noisy = inject(
        model, ["0", "1"], sigma={"1": 2.0, "0": 1.0}, nodes=[1, 3], niw_std=[0.0, 1.0],
        at={"0": "input", "1": "preactivation"}, law=["gaussian", "rademacher"],
    )  # fmt: skip
    weights = noisy.weights
    assert {name: tuple(w.shape) for name, w in weights.items()} == {"0": (1, 3), "1": (3, 2)}
    assert not weights["0"].any() and weights["1"].all()
    eps = noisy.draw(1000)
    assert set(eps["1"].unique().tolist()) == {-2.0, 2.0} and eps["0"].std().item() == pytest.approx(1, abs=0.1)
    x = values(1000, 3)
    torch.testing.assert_close(noisy(x, eps), model(x + eps["0"] @ weights["0"]) + eps["1"] @ weights["1"])
    with pytest.raises(ValueError, match=r"sigma=\{'0': 1.0\} must have a value for each of the layers 0, 1"):
        inject(model, ["0", "1"], sigma={"0": 1.0})


def test_sigma_can_be_set_and_a_node_taken_out():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    noisy = inject(model, ["0", "1"], sigma=1.0, law="rademacher")
    noisy.sigma = {"0": 0.0, "1": 3.0}
    assert not noisy.draw(5)["0"].any() and (noisy.draw(5)["1"].abs() == 3).all()
    with pytest.raises(ValueError, match="sigma=-1 must be a finite number >= 0"):
        noisy.sigma = -1
    rest = noisy.without("0")
    assert rest.layers == ("1",) and rest.niw is noisy.niw["1"] and noisy.without("0", "1") is model
    with pytest.raises(ValueError, match=r"layers=\['2'\] have no node"):
        noisy.without("2")


def test_weight_decay_leaves_the_node_alone():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x, y = values(20, 3), torch.arange(20) % 2
    ends = []
    for grouped in (True, False):
        noisy = inject(model, "0", sigma=0.0)
        start = noisy.niw.norm().item()
        options = {"lr": 0.01, "weight_decay": 1.0}
        optimizer = (
            torch.optim.AdamW(noisy.parameter_groups(**options)) if grouped
            else torch.optim.AdamW(noisy.parameters(), **options)
        )  # fmt: skip
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(noisy(x), y).backward()
            optimizer.step()
        ends.append(noisy.niw.norm().item() / start)
    assert ends[0] == pytest.approx(1, abs=1e-12) and ends[1] == pytest.approx(0.99**20, rel=1e-6)

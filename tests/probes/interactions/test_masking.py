"""Catches masks that hide the wrong pixels, and games of layers that are not those of the network."""

import itertools

import pytest
import torch
from torch import nn

from nin.probes.interactions import log_odds, margin, masked_inputs, masked_outputs
from nin.probes.interactions.games import moebius, orders


def patches(n=4, side=6):
    """Columns of pixels; the last two belong to none."""
    masks = torch.zeros(n, 1, side, side, dtype=torch.bool)
    for i in range(n):
        masks[i, :, :, i] = True
    return masks


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten(), nn.Linear(48, 3)
    ).double()


def image():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(1, 6, 6, dtype=torch.float64, generator=generator) for _ in range(2))


def test_masks_keep_what_a_coalition_has():
    x, baseline = image()
    masked = masked_inputs(x, patches(), baseline, torch.arange(16))
    for T, i in itertools.product(range(16), range(6)):
        kept = i >= 4 or T >> i & 1
        assert torch.equal(masked[T, :, :, i], (x if kept else baseline)[:, :, i]), (T, i)


@pytest.mark.parametrize("chunk", [1, 5, 256])
def test_all_layers_from_one_pass(chunk):
    model, (x, baseline) = network(), image()
    model.train()
    calls = []
    model[0].register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    read = {"output": lambda logits: log_odds(logits, 1)}
    found = masked_outputs(model, x, patches(), baseline, ["2", "5"], read=read, chunk=chunk)
    assert sum(calls) == 16 and max(calls) <= chunk and model.training
    assert list(found) == ["2", "5", "output"]
    model.eval()
    every = masked_inputs(x, patches(), baseline, torch.arange(16))
    with torch.no_grad():
        torch.testing.assert_close(found["2"], model[:3](every).flatten(1), rtol=1e-12, atol=1e-12)
        logits = model(every)
    torch.testing.assert_close(found["5"], logits, rtol=1e-12, atol=1e-12)
    p = logits.softmax(1)[:, 1]
    torch.testing.assert_close(found["output"], (p / (1 - p)).log(), rtol=1e-9, atol=1e-9)


def test_a_linear_network_has_no_interactions_but_its_log_odds_have():
    """Identity 9: the margin of a linear readout of pixels has none above order 1; log-odds make their own."""
    x, baseline = image()
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    logits = masked_outputs(model, x, patches(), baseline, [])["output"]
    high = orders(16) > 1
    assert moebius(margin(logits, 0, 2))[high].abs().max() < 1e-10
    assert moebius(log_odds(logits, 0))[high].abs().max() > 1e-3


def test_log_odds_of_certain_answers_are_finite():
    assert log_odds(torch.tensor([[2000.0, 0.0, -1000.0]]), 0).item() == pytest.approx(2000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patches": patches()[:, :, :5]}, "must be boolean, .n, 1, 6, 6."),
        ({"patches": patches().float()}, "of torch.float32 must be boolean"),
        ({"patches": patches() | patches().roll(1, 3)}, "patches overlap on 18 entries"),
        ({"patches": patches() & ~patches()[:1]}, r"patches \[0\] cover nothing"),
        ({"patches": torch.zeros(21, 1, 6, 6, dtype=torch.bool)}, "n = 21 variables have 2.21 masked inputs"),
        ({"layers": ["9"]}, "layers names '9'"),
        ({"layers": ["0", "output"]}, "layers names 'output', which is reserved"),
        ({"chunk": 0}, "chunk=0 must be"),
        ({"baseline": torch.full((1, 6, 6), torch.inf, dtype=torch.float64)}, "'0' is not finite on masked inputs"),
    ],
)
def test_bad_input(change, message):
    x, baseline = image()
    arguments = {"patches": patches(), "baseline": baseline, "layers": ["0"], "chunk": 8} | change
    with pytest.raises(ValueError, match=message):
        masked_outputs(network(), x, **arguments)


def test_tokens_are_masked_by_a_token():
    x, baseline = torch.tensor([5, 6, 7, 8]), torch.full((4,), 9)
    patches = torch.tensor([[True, False, True, False], [False, True, False, False]])
    found = masked_inputs(x, patches, baseline, torch.arange(4))
    assert found.tolist() == [[9, 9, 9, 8], [5, 9, 7, 8], [9, 6, 9, 8], [5, 6, 7, 8]] and found.dtype == x.dtype
    model = torch.nn.Sequential(torch.nn.Embedding(10, 3), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    outputs = masked_outputs(model, x, patches, baseline, ["0"])
    torch.testing.assert_close(outputs["output"], model(found).detach())


class Choosing(nn.Module):
    """Calls its ReLU a second time if the first masked input of the pass has a positive last entry."""

    def __init__(self):
        super().__init__()
        self.linear, self.relu = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        h = self.relu(self.linear(x))
        return self.relu(h) if x[0, -1] > 0 else h


def test_a_layer_that_some_masked_inputs_call_and_others_do_not_is_refused():
    """Its values would be those of other coalitions than their rows say."""
    x, baseline, each = torch.ones(4), torch.zeros(4), torch.eye(4).bool()
    assert set(masked_outputs(Choosing(), x, each, baseline, ["relu"])) == {"relu", "output"}
    with pytest.raises(ValueError, match="layer 'relu#2' is called for some masked inputs and not for others"):
        masked_outputs(Choosing(), x, each, baseline, ["relu"], chunk=2)

"""Catches: an output read after an in-place layer overwrote it, names out of order, hooks left behind by an error."""

import pytest
import torch
from torch import nn

from nin.probes.watching import watching


class Twice(nn.Module):
    """Calls one in-place layer twice, and returns what no layer computed."""

    def __init__(self):
        super().__init__()
        self.a, self.relu, self.b = nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)
        self.unused = nn.Linear(4, 2)

    def forward(self, x):
        return self.relu(self.b(self.relu(self.a(x)))) + 1


def test_outputs_are_returned_by_layer_as_they_were_when_computed():
    torch.manual_seed(0)
    model, x = Twice().train(), torch.randn(5, 3)
    with watching(model, None, lambda name, output: output.clone()) as run:
        seen, fewer = run(x), run(x[:2])
    assert list(seen) == list(fewer) == ["a", "relu", "b", "relu#2", "output"]
    with torch.no_grad():
        a = model.a(x)
        b = model.b(a.relu())
    for name, expected in {"a": a, "relu": a.relu(), "b": b, "relu#2": b.relu(), "output": b.relu() + 1}.items():
        assert torch.equal(seen[name], expected), name
    assert len(fewer["output"]) == 2 and model.training


def test_the_output_of_a_watched_layer_is_not_read_twice():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(5, 3)
    with watching(model, None, lambda name, output: len(output)) as run:
        assert run(x) == {"0": 5, "1": 5}


@pytest.mark.parametrize(
    ("layers", "message"), [(["unused"], "'unused' is not called"), (["c"], "'c', which is not"), ("a", "sequence")]
)
def test_an_error_leaves_no_hook_behind(layers, message):
    model = Twice()
    with pytest.raises(ValueError, match=message), watching(model, layers, lambda name, output: None) as run:
        run(torch.randn(5, 3))
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_an_output_without_one_row_per_sample_is_named():
    with pytest.raises(ValueError, match=r"layer '0' gives \(15,\) for 5 samples, not one row of numbers per sample"):
        with watching(nn.Sequential(nn.Flatten(0)), ["0"], lambda name, output: None) as run:
            run(torch.randn(5, 3))

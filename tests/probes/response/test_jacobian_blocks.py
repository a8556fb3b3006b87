"""Catches: a kernel that changes with the blocks its Jacobian is cut into, rows that are computed more than once."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.testing import assert_close

from nin.probes.response import jacobians, kernel, kernel_by_layer
from nin.probes.response.jacobians import Jacobian

SETS = {"one": (4, None), "two": (3, 2)}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 6), nn.GELU(), nn.Linear(6, 5)
    ).double()


def samples(n, m):
    torch.manual_seed(1)
    x = torch.randn(n, 1, 3, 3, dtype=torch.float64)
    return x, None if m is None else torch.randn(m, 1, 3, 3, dtype=torch.float64)


def naive(model, x, x2):
    """J of all outputs at once, and all products."""
    model = model.eval()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    one = jacrev(lambda p, sample: functional_call(model, p, (sample[None],))[0])
    J, J2 = (vmap(one, (None, 0))(parameters, z) for z in (x, x if x2 is None else x2))
    return {name: torch.einsum("icp,jdp->icjd", J[name].flatten(2), J2[name].flatten(2)) for name in J}


# the bytes of one row of this network are 8 (15 + 6 + 78 + 35) = 1072
CUTS = {
    "whole": {},
    "pieces of outputs": {"WHOLE": 17_000, "PIECE": 12_000},
    "one output at a time": {"WHOLE": 1, "PIECE": 1},
    "samples cut too": {"WHOLE": 1, "PIECE": 1, "MOST": 6_000},
    "single rows": {"WHOLE": 1, "PIECE": 1, "MOST": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize(("cut", "chunk"), [*((name, None) for name in CUTS), ("one output at a time", 3)])
@pytest.mark.parametrize("sets", SETS)
def test_blocks_do_not_change_the_kernel(cut, sets, chunk, monkeypatch):
    for name, value in CUTS[cut].items():
        monkeypatch.setattr(jacobians, name, value)
    model, (x, x2) = network(), samples(*SETS[sets])
    full = naive(model, x, x2)
    whole = sum(full.values())
    close = {"rtol": 1e-12, "atol": 1e-12}
    assert_close(kernel(model, x, x2, outputs="full", chunk=chunk), whole, **close)
    assert_close(kernel(model, x, x2, chunk=chunk), whole.diagonal(dim1=1, dim2=3).sum(-1), **close)
    for outputs in ("trace", "full"):
        layers = kernel_by_layer(model, x, x2, outputs=outputs, chunk=chunk)
        assert list(layers) == ["0", "1", "4", "6"]
        for layer, ours in layers.items():
            theirs = sum(block for name, block in full.items() if name.rpartition(".")[0] == layer)
            assert_close(ours, theirs if outputs == "full" else theirs.diagonal(dim1=1, dim2=3).sum(-1), **close)


@pytest.fixture
def computed(monkeypatch):
    """The number of rows of J in each block that is computed."""
    counts, before = [], Jacobian.rows

    def rows(self, x, outputs):
        counts.append(len(x) * (outputs.stop - outputs.start))
        return before(self, x, outputs)

    monkeypatch.setattr(Jacobian, "rows", rows)
    return counts


@pytest.mark.parametrize("cut", ["whole", "pieces of outputs", "one output at a time"])
@pytest.mark.parametrize("sets", SETS)
def test_rows_of_the_trace_are_computed_once(cut, sets, computed, monkeypatch):
    for name, value in CUTS[cut].items():
        monkeypatch.setattr(jacobians, name, value)
    x, x2 = samples(*SETS[sets])
    kernel(network(), x, x2)
    blocks = {"whole": 1, "pieces of outputs": 3, "one output at a time": 5}[cut]
    assert sum(computed) == 5 * (len(x) if x2 is None else len(x) + len(x2))
    assert len(computed) == blocks * (1 if x2 is None else 2)


def test_memory_is_bounded_in_outputs_and_in_what_the_forward_pass_keeps(computed, monkeypatch):
    """700 outputs do not come at once, nor many rows whose values on the way back are large."""
    torch.manual_seed(0)
    kernel(nn.Sequential(nn.Linear(8, 40), nn.Tanh(), nn.Linear(40, 700)), torch.randn(4, 8))
    size = 4 * (9 * 40 + 41 * 700)  # bytes of one row
    assert sum(computed) == 2800 and max(computed) * size <= jacobians.PIECE
    computed.clear()
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 64))
    kernel(model, torch.randn(4, 1, 128, 128))  # 128 KiB kept after the convolution, 784 bytes of parameters
    assert sum(computed) == 4 * 64 and max(computed) * 4 * 2 * 128**2 <= jacobians.WHOLE / jacobians.BACK

"""Catches a ledger that does not add up, or that books a block's part under another's name."""

import pytest
import torch
from torch import nn

from nin.probes.interactions import moebius, residual_ledger


class Block(nn.Module):
    """x + branch(x), with or without a ReLU after the addition, in place or not."""

    def __init__(self, channels, after, in_place):
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.last, self.after, self.in_place = nn.Conv2d(channels, channels, 3, padding=1), after, in_place

    def forward(self, x):
        branch = self.last(self.norm(self.first(x)).relu())
        if self.in_place:
            x += branch
        else:
            x = x + branch
        return x.relu() if self.after else x


class Residual(nn.Module):
    def __init__(self, after=False, in_place=False, blocks=3):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(4, after, in_place) for _ in range(blocks))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def setting(**options):
    torch.manual_seed(0)
    model = Residual(**options).double()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    patches = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    for i in range(4):
        patches[i, :, 2 * i : 2 * i + 2] = True
    return model, torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 2]), patches


def readout(model):
    return lambda h: model.head(h.mean((2, 3)))


BLOCKS = ["blocks.0", "blocks.1", "blocks.2"]
BRANCHES = {"blocks": [f"{name}.last" for name in BLOCKS], "adds": "output", "stem": "stem"}


@pytest.mark.parametrize("value", ["margin", "logit"])
@pytest.mark.parametrize("kind", ["and", "or"])
@pytest.mark.parametrize("named", [{"blocks": BLOCKS}, BRANCHES])
def test_stem_and_blocks_add_up(named, kind, value):
    """Identity 10, by whole blocks and by their branches; no remainder but rounding."""
    model, x, y, patches = setting()
    ledger = residual_ledger(model, x, y, readout=readout(model), value=value, patches=patches, chunk=7, **named)
    entries, output = ledger.interactions(kind)
    assert ledger.entries == ("stem", *named["blocks"], "remainder")
    torch.testing.assert_close(entries[:-1].sum(0), output, rtol=0, atol=1e-12)
    assert entries[-1].abs().max() < 1e-12 < 1e-3 < entries[1:-1].abs().amax((1, 2)).min()


def test_entries_are_the_blocks_own():
    """Against streams taken by hand on every masked image."""
    model, x, y, patches = setting()
    model.eval()
    ledger = residual_ledger(model, x, y, readout=readout(model), blocks=BLOCKS, patches=patches)
    rival = model(x[:1]).detach().scatter(1, torch.tensor([[0]]), -torch.inf).argmax().item()
    games = torch.zeros(4, 16, dtype=torch.float64)
    with torch.no_grad():
        for T in range(16):
            masked = x.mean(0).clone()
            for i in range(4):
                if T >> i & 1:
                    masked[patches[i]] = x[0][patches[i]]
            stream = model.stem(masked[None])
            parts = [stream]
            for block in model.blocks:
                after = block(stream)
                parts.append(after - stream)
                stream = after
            w = model.head.weight[0] - model.head.weight[rival]
            games[:, T] = torch.stack([part.mean((2, 3))[0] @ w for part in parts])
    expected = moebius(games)
    expected[:, 0] = 0
    torch.testing.assert_close(ledger.interactions()[0][:4, 0], expected, rtol=0, atol=1e-12)


def test_a_relu_after_the_addition_leaves_the_branches_a_remainder():
    model, x, y, patches = setting(after=True)
    options = {"readout": readout(model), "patches": patches}
    branches = residual_ledger(model, x, y, **options, **BRANCHES)
    entries, output = branches.interactions()
    torch.testing.assert_close(entries.sum(0), output, rtol=0, atol=1e-12)
    assert entries[-1].abs().max() > 0.01
    whole = residual_ledger(model, x, y, blocks=BLOCKS, **options).interactions()[0]
    assert whole[-1].abs().max() < 1e-12


def test_blocks_that_work_in_place_and_hooks_that_go():
    model, x, y, patches = setting(in_place=True)
    other, *_ = setting()
    options = {"blocks": BLOCKS, "patches": patches}
    found = residual_ledger(model, x, y, readout=readout(model), **options)
    expected = residual_ledger(other, x, y, readout=readout(other), **options)
    torch.testing.assert_close(found.games, expected.games)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_shares_add_up_to_the_strength_of_the_output():
    model, x, y, patches = setting()
    frame = residual_ledger(model, x, y, readout=readout(model), blocks=BLOCKS, patches=patches).frame()
    assert list(frame.columns) == ["entry", "depth", "kind", "order", "strength", "share"]
    total = frame[frame["entry"] != "output"].groupby(["kind", "order"])["share"].sum()
    output = frame[frame["entry"] == "output"].set_index(["kind", "order"])["strength"]
    assert (total - output).abs().max() < 1e-12 and (output > 0).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": []}, "names no block"),
        ({"blocks": ["blocks.7"]}, "layers names 'blocks.7'"),
        ({"adds": "output"}, "name the stem if, and only if"),
        ({"stem": "stem"}, "name the stem if, and only if"),
        ({"value": "log_odds"}, "value='log_odds' is unknown"),
        ({"readout": lambda h: h.mean((2, 3))}, r"readout gives \(1, 4\) for one sample, not \(1, 3\) as the model"),
        ({"readout": lambda h: h.mean((2, 3))[:, :3].relu()}, "readout is not linear"),
        ({"blocks": ["stem"]}, r"block 'stem' turns \(16, 1, 8, 8\) into \(16, 4, 4, 4\)"),
        (
            {"blocks": ["blocks.0.last"], "adds": "output", "stem": "head"},
            "all parts of one stream must have one shape",
        ),
        ({"y": torch.tensor([0, 7])}, "must be integer classes"),
    ],
)
def test_bad_input(change, message):
    model, x, y, patches = setting()
    arguments = {"blocks": BLOCKS, "readout": readout(model), "patches": patches, "y": y} | change
    with pytest.raises(ValueError, match=message):
        residual_ledger(model, x, **arguments)


def test_blocks_that_are_called_twice_or_never():
    model, x, y, patches = setting()
    model.blocks[2] = model.blocks[0]
    options = {"readout": readout(model), "patches": patches}
    with pytest.raises(ValueError, match="'blocks.0' is called twice"):
        residual_ledger(model, x, y, blocks=["blocks.0", "blocks.1"], **options)
    model, *_ = setting()
    model.idle = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="'idle' is not called"):
        residual_ledger(model, x, y, blocks=[*BLOCKS, "idle"], **options)

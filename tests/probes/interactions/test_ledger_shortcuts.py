"""Catches a part of a stream that changes its shape which is booked wrongly: a bias twice, a shortcut left out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nin.probes.interactions import moebius, residual_ledger
from nin.probes.interactions.masking import masked_inputs


class Block(nn.Module):
    def __init__(self, before, after, stride, relu, projection="convolution"):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.last, self.relu = nn.Conv2d(after, after, 3, padding=1), relu
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride), nn.BatchNorm2d(after))
            if projection != "convolution":
                self.downsample.append({"relu": nn.ReLU(), "tanh": nn.Tanh()}[projection])

    def forward(self, x):
        branch = self.last(self.first(x).relu())
        branch += x if self.downsample is None else self.downsample(x)
        return branch.relu() if self.relu else branch


class Stages(nn.Module):
    """Like a ResNet: a stem, two stages of which the second halves the resolution, and a third that does so again."""

    def __init__(self, relu=False, projection="convolution"):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.a = Block(3, 3, 1, relu)
        self.b = Block(3, 5, 2, relu, projection)
        self.c = Block(5, 5, 1, relu)
        self.d = Block(5, 4, 2, relu)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.d(self.c(self.b(self.a(self.stem(x))))).mean((2, 3)))


SHORTCUTS = {"b": "b.downsample", "d": "d.downsample"}
BLOCKS = ["a", "b", "c", "d"]


def setting(**options):
    torch.manual_seed(0)
    model = Stages(**options).double()
    for value in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
        value.data += 0.3 * torch.rand_like(value)
    patches = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    for i in range(4):
        patches[i, :, 2 * i : 2 * i + 2] = True
    return model, torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 2]), patches


def ledger(model, x, y, patches, **options):
    given = {"blocks": BLOCKS, "shortcuts": SHORTCUTS, "readout": lambda h: model.head(h.mean((2, 3)))} | options
    return residual_ledger(model, x, y, patches=patches, **given)


def projected(block, h):
    """The linear part of a projection: strided 1x1 convolution and batch norm in eval mode, without their constants."""
    convolution, norm = block.downsample[0], block.downsample[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale[:, None, None] * F.conv2d(h, convolution.weight, stride=convolution.stride)


@torch.no_grad()
def by_hand(model, x, patches, baseline):
    """Logits (entries, 2^n, classes) of stem and blocks up to constants, each branch computed from the stream."""
    model.eval()
    h = model.stem(masked_inputs(x, patches, baseline, torch.arange(2 ** len(patches))))
    parts = [h]
    for name in BLOCKS:
        block = getattr(model, name)
        if block.downsample is not None:
            parts = [projected(block, part) for part in parts]
        out = block(h)
        parts.append(out - (h if block.downsample is None else block.downsample(h)))
        h = out
    return torch.stack([part.mean((2, 3)) @ model.head.weight.T for part in parts])


@pytest.mark.parametrize("relu", [False, True])
def test_parts_pass_through_the_shortcuts(relu):
    """Every interaction of every entry is that of the parts computed by hand, and they add up to the output."""
    model, x, y, patches = setting(relu=relu)
    found = ledger(model, x, y, patches, value="logit")
    entries, output = found.interactions()
    assert found.entries == ("stem", *BLOCKS, "remainder")
    torch.testing.assert_close(entries.sum(0), output, rtol=1e-10, atol=1e-10)
    assert found.games[-1].abs().max() < 1e-10 * found.output.abs().max()  # nothing is left over
    for i in range(2):
        games = by_hand(model, x[i], patches, x.mean(0))[..., y[i]]
        theirs = moebius(games)
        theirs[..., 0] = 0
        torch.testing.assert_close(entries[:-1, i], theirs, rtol=1e-10, atol=1e-10)
        assert theirs.abs().amax(1).min() > 1e-3  # each entry has something to get wrong


def test_constants_are_counted_once_with_the_stem():
    """v(empty) adds up too, and only the stem's changes with the bias of a shortcut."""
    model, x, y, patches = setting()
    first = ledger(model, x, y, patches, value="logit")
    torch.testing.assert_close(first.games.sum(0), first.output, rtol=1e-10, atol=1e-10)
    assert first.games[-1].abs().max() < 1e-10
    model.d.downsample[1].bias.data += 1.0
    moved = ledger(model, x, y, patches, value="logit").games - first.games
    assert moved[0].abs().min() > 1e-2 and moved[1:].abs().max() < 1e-10


def test_a_function_or_branches_may_be_named_instead():
    model, x, y, patches = setting()
    modules = ledger(model, x, y, patches)
    functions = ledger(
        model, x, y, patches, shortcuts={"b": model.b.downsample.forward, "d": model.d.downsample.forward}
    )
    torch.testing.assert_close(functions.games, modules.games, rtol=1e-10, atol=1e-10)
    branches = {f"{name}.last": f"{name}.downsample" for name in "bd"}
    outputs = ledger(model, x, y, patches, shortcuts=branches, blocks=[f"{n}.last" for n in BLOCKS], adds="output",
                     stem="stem")  # fmt: skip
    torch.testing.assert_close(outputs.games, modules.games, rtol=1e-10, atol=1e-10)


class Activated(Stages):
    """The shortcut of the second block receives an activation of the stream, as in ResNets of the second kind."""

    def forward(self, x):
        hook = self.b.downsample.register_forward_pre_hook(lambda module, inputs: (inputs[0].relu(),))
        try:
            return super().forward(x)
        finally:
            hook.remove()


def test_shortcuts_that_do_not_map_the_stream_are_refused():
    for activation in ("relu", "tanh"):
        model, x, y, patches = setting(projection=activation)
        for first in (0, 1):  # with two parts before it, and with the stem alone
            with pytest.raises(ValueError, match="the shortcut of block 'b' is not affine"):
                ledger(model, x, y, patches, blocks=BLOCKS[first:])
    model, x, y, patches = setting()
    with pytest.raises(ValueError, match=r"block 'b' turns \(16, 3, 8, 8\) into \(16, 5, 4, 4\).*shortcuts={'b': ...}"):
        ledger(model, x, y, patches, shortcuts=None)
    with pytest.raises(ValueError, match=r"shortcuts names \['e'\], which are not among blocks: a, b, c, d"):
        ledger(model, x, y, patches, shortcuts={"e": "b.downsample"})
    with pytest.raises(ValueError, match="which is not in the model"):
        ledger(model, x, y, patches, shortcuts={"b": "b.shortcut"})
    with pytest.raises(ValueError, match="block 'a' is not called in its block"):
        ledger(model, x, y, patches, shortcuts={**SHORTCUTS, "a": "head"})
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="block 'b' does not receive the input of its block"):
        ledger(Activated().double(), x, y, patches)

"""Catches: a probe that cannot ask a network with several inputs or outputs, or that reads other numbers from it."""

from dataclasses import dataclass

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nin
from nin.model.losses import cross_entropy
from nin.model.views import View
from nin.probes.curvature import (
    Thermometer,
    critical_rate,
    extremes,
    local_hessian,
    noise_averaged,
    sharpness,
    top_mode,
)
from nin.probes.interactions import Noise, layerwise, masked_outputs, residual_ledger
from nin.probes.response import ResponseLaw, kernel, kernel_by_layer, kernel_sketch, kernel_trace, response
from nin.probes.response.fragility import flips, margin, weight_noise, worst_neuron
from nin.probes.stability import compare, sensitivities

TOKENS, WORDS, CLASSES = 5, 7, 3


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


class Reader(nn.Module):
    """Takes ids and mask by keyword and returns a dataclass, as models of language do."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(WORDS, 4), nn.Linear(4, 6)
        self.block, self.head = Block(6), nn.Linear(6, CLASSES)
        self.scale = nn.Parameter(torch.ones(1))
        self.twice = self.inner  # a second name

    def forward(self, ids, mask, *, verbose=False):
        h = self.block(torch.tanh(self.inner(self.embed(ids))) * mask[..., None])
        return Output(self.head(self.scale * h.sum(1) / mask.sum(1, keepdim=True)), h)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, h):
        return h + torch.tanh(self.linear(h))


class Twin(nn.Module):
    """The same network as a function of one tensor (n, tokens, 2) of ids and masks."""

    def __init__(self, reader):
        super().__init__()
        for name, module in reader.named_children():
            self.add_module(name, module)
        self.scale, self.twice, self.ask = reader.scale, reader.inner, [reader]

    def forward(self, x):
        return Reader.forward(self, x[..., 0].long(), x[..., 1]).logits


@pytest.fixture
def sides():
    """(model, forward, inputs) of the reader and of its twin, and labels; the numbers of both must agree."""
    generator = torch.Generator().manual_seed(0)
    model = Reader()
    for parameter in model.parameters():
        parameter.data = 0.7 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    ids = torch.randint(WORDS, (8, TOKENS), generator=generator)
    mask = (torch.rand(8, TOKENS, generator=generator) < 0.7).double()
    mask[:, 0] = 1
    inputs = {"ids": ids, "mask": mask, "verbose": False}
    y = torch.arange(8) % CLASSES
    return (model, lambda m, x: m(**x).logits, inputs), (Twin(model), None, torch.stack([ids.double(), mask], -1)), y


def part(x, rows):
    return {key: value[rows] if torch.is_tensor(value) else value for key, value in x.items()} if isinstance(x, dict) \
        else x[rows]  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def steps(model, forward, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = response(model, part(x, slice(0, 2)), y[:2], part(x, slice(2, 6)), loss=F.cross_entropy,
                     optimizer=optimizer, forward=forward)  # fmt: skip
    return torch.stack([found.exact, found.linear])


def thermometer(model, forward, x, y):
    reader = Thermometer(model, "inner", nodes=2, forward=forward)
    return torch.stack([reader.read(x, y, loss=cross_entropy).eigenvalues for _ in range(3)])


def rate(model, forward, x, y):
    noisy = nin.inject(model, "inner", sigma=2.0, generator=seeded(1))
    found = critical_rate(noisy, x, y, loss=cross_entropy, batch_size=4, generator=seeded(2), judges=4, forward=forward)
    return torch.tensor([found.rate, found.stderr, found.decay])


def predicted(model, forward, x, y):
    noisy = nin.inject(model, "inner", sigma=2.0, generator=seeded(1))
    options = {"loss": cross_entropy, "lr": 0.1, "batch_size": 4, "steps": 10, "judges": 4, "forward": forward}
    found = nin.predict(noisy, x, y, generator=seeded(3), **options)
    scale = nin.noise_scale("catapult", noisy, x, y, generator=seeded(3), **options)
    return torch.tensor([*found.probability.values(), scale.sigma])


ASKED = {
    "local_hessian": lambda m, f, x, y: local_hessian(m, "inner", x, y, loss=cross_entropy, forward=f, batch_size=3),
    "extremes": lambda m, f, x, y: torch.tensor(
        [mode.lam for end in extremes(m, "inner", x, y, loss=cross_entropy, forward=f) for mode in end]
    ),
    "top_mode": lambda m, f, x, y: torch.tensor(top_mode(m, "inner", x, y, loss=cross_entropy, forward=f).lam),
    "sharpness": lambda m, f, x, y: torch.tensor(sharpness(m, x, y, loss=cross_entropy, forward=f).lam),
    "sharpness, batches": lambda m, f, x, y: torch.tensor(
        sharpness(m, x, y, loss=cross_entropy, forward=f, batch_size=3).lam
    ),
    "noise_averaged": lambda m, f, x, y: torch.tensor(
        noise_averaged(m, "inner", x, y, loss=cross_entropy, direction=torch.ones(6).double(), amplitude=0.1, forward=f)
    ),
    "thermometer": thermometer,
    "critical_rate": rate,
    "predict": predicted,
    "kernel": lambda m, f, x, y: kernel(m, part(x, slice(3)), part(x, slice(3, 8)), outputs="full", forward=f),
    "kernel_by_layer": lambda m, f, x, y: kernel_by_layer(m, x, forward=f)["inner"],
    "kernel_trace": lambda m, f, x, y: kernel_trace(m, x, forward=f).value,
    "kernel_sketch": lambda m, f, x, y: kernel_sketch(m, x, probes=8, forward=f).value,
    "response": steps,
    "worst_neuron": lambda m, f, x, y: torch.tensor(worst_neuron(m, x, y, layer="block.linear", forward=f)),
    "weight_noise": lambda m, f, x, y: torch.tensor(weight_noise(m, x, y, generator=seeded(), forward=f)),
}


@pytest.mark.parametrize("probe", ASKED)
def test_a_probe_reads_the_same_from_inputs_by_name_and_from_one_tensor(sides, probe):
    (model, *_), _, y = sides
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    found, expected = (ASKED[probe](*side, y) for side in sides[:2])
    assert expected.isfinite().all() and expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.is_leaf for parameter in model.parameters())


def test_labels_and_weights_by_name(sides):
    (model, forward, x), (twin, _, stacked), y = sides
    weights = torch.rand(8, dtype=torch.float64, generator=seeded(5))
    given = {"labels": y, "weights": weights}

    def loss(outputs, targets):
        return targets["weights"] * F.cross_entropy(outputs, targets["labels"], reduction="none")

    expected = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(8):
        one = local_hessian(twin, "inner", stacked[i : i + 1], y[i : i + 1], loss=cross_entropy)
        expected += weights[i] * one / 8
    found = local_hessian(model, "inner", x, given, loss=loss, batch_size=3, forward=forward)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_probes_that_move_their_inputs_take_another_forward_pass(sides):
    (model, *_), _, y = sides
    e = torch.randn(8, TOKENS, 4, dtype=torch.float64, generator=seeded(1))
    mask = torch.ones(1, TOKENS, dtype=torch.float64)

    def forward(model, e):
        h = model.block(torch.tanh(model.inner(e)) * mask[..., None])
        return Output(model.head(model.scale * h.sum(1) / TOKENS), h).logits

    class Plain(Twin):
        def forward(self, e):
            return forward(self, e)

    moves = e + 0.1, e - 0.3
    for ask in (
        lambda m, **f: torch.tensor(flips(m, e, generator=seeded(), **f)),
        lambda m, **f: torch.tensor(margin(m, e, **f)),
        lambda m, **f: torch.tensor(compare(m, e, *(v[None] for v in moves), layers=["inner"], **f)["R"].to_numpy()),
    ):
        torch.testing.assert_close(ask(model, forward=forward), ask(Plain(model)), rtol=1e-10, atol=0)
    tables = []
    for network, options in ((model, {"forward": forward}), (Plain(model), {})):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        law = ResponseLaw(
            network, e, y, loss=F.cross_entropy, optimizer=optimizer, features=["block.linear"], **options
        )
        tables.append(law.read(0))
    pd.testing.assert_frame_equal(*tables)


def test_tokens_are_masked_by_a_token(sides):
    (model, *_), _, y = sides
    ids, hidden = torch.tensor([1, 2, 3, 4, 5]), torch.full((TOKENS,), 6)
    patches = torch.eye(TOKENS, dtype=torch.bool)[:3]
    forward = lambda m, ids: m(ids, torch.ones(ids.shape, dtype=torch.float64)).logits  # noqa: E731
    found = masked_outputs(model, ids, patches, hidden, ["block"], forward=forward)
    for coalition in range(8):
        kept = torch.tensor([bool(coalition >> i & 1) for i in range(3)] + [True, True])
        masked = torch.where(kept, ids, hidden)
        expected = model(masked[None], torch.ones(1, TOKENS, dtype=torch.float64)).logits[0]
        torch.testing.assert_close(found["output"][coalition], expected.detach())
    x = torch.randint(6, (4, TOKENS), generator=seeded())
    options = {"layers": ["inner", "block"], "patches": patches, "baseline": hidden, "forward": forward}
    table = layerwise(model, x, y[:4], **options, resamples=10, iterations=200)
    assert table.loc[table["network"] == "model", "strength"].notna().all() and table["stability"].isna().all()
    with pytest.raises(ValueError, match=r"x of torch.int64 has neither a mean nor a foreground nor noise"):
        layerwise(model, x, y[:4], **options, noise=Noise())
    options = {"blocks": ["block"], "patches": patches, "baseline": hidden, "forward": forward}
    ledger = residual_ledger(model, x, y[:4], readout=lambda h: model.head(model.scale * h.sum(1) / TOKENS), **options)
    torch.testing.assert_close(ledger.games.sum(0), ledger.output)
    assert ledger.games[-1].abs().max() < 1e-12  # no remainder: the stream is read linearly


def test_tokens_have_distances_but_are_not_moved(sides):
    (model, *_), _, y = sides
    ids = torch.randint(WORDS, (6, TOKENS), generator=seeded())
    forward = lambda m, ids: m(ids, torch.ones(ids.shape, dtype=torch.float64)).logits  # noqa: E731
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    law = ResponseLaw(model, ids, y[:6], loss=F.cross_entropy, optimizer=optimizer, forward=forward)
    table = law.read(0)
    apart = {int((a != b).sum()) for i, a in enumerate(ids) for b in ids[i + 1 :]}
    assert set(table.loc[table["quantity"] == "kernel_at", "distance"]) == apart
    assert not {"flips", "margin"} & set(table["quantity"]) and "weight_noise" in set(table["quantity"])
    for ask in (
        lambda: flips(model, ids, generator=seeded(), forward=forward),
        lambda: margin(model, ids, forward=forward),
        lambda: compare(model, ids, ids[None], ids[None], forward=forward),
    ):
        with pytest.raises(ValueError, match="x is .*: its values cannot be moved by small amounts"):
            ask()


def test_images_through_a_network_that_returns_more():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(2, 2)

        def forward(self, x):
            h = self.conv(x)
            return {"logits": self.head(h.mean((2, 3))), "hidden": h}

    model, x = Several().double(), torch.rand(4, 1, 8, 8, dtype=torch.float64, generator=seeded())
    found = sensitivities(model, x, delta=0.3, layers=["conv"], forward=lambda m, x: m(x)["logits"])
    pd.testing.assert_frame_equal(found, sensitivities(model, x, delta=0.3, layers=["conv"]))
    noisy = nin.inject(model, "conv", sigma=1.0, example=[x])
    assert noisy.niw.shape == (1, 1, 8, 8)


def test_what_does_not_fit_is_named(sides):
    (model, forward, x), _, y = sides
    with pytest.raises(ValueError, match="model returned Output, not a tensor; say which part is meant"):
        kernel(model, x)
    with pytest.raises(ValueError, match=r"x: x\['ids'\] 8, x\['mask'\] 7 samples; all its tensors need"):
        kernel(model, x | {"mask": x["mask"][:7]}, forward=forward)
    with pytest.raises(ValueError, match="x: the sets of samples differ in structure"):
        kernel(model, x, x["ids"], forward=forward)
    with pytest.raises(ValueError, match="x is a dict without tensors"):
        kernel(model, {"ids": 3}, forward=forward)
    with pytest.raises(ValueError, match=r"inputs.*further arguments"):
        sharpness(model, x, y, y, loss=cross_entropy)


@pytest.mark.slow
def test_a_view_does_not_hide_what_wraps_its_network(sides):
    """And a module that keeps something under the name that a view uses is no view."""
    (model, forward, x), _, y = sides
    model.compile(backend="eager")
    for ask in (
        lambda: local_hessian(model, "inner", x, y, loss=cross_entropy, forward=forward),
        lambda: worst_neuron(model, x, y, layer="inner", axis=2, forward=forward),
    ):
        with pytest.raises(ValueError, match="model is compiled"):
            ask()
    plain = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    plain.seen = 7
    assert 0 <= worst_neuron(plain, torch.ones(4, 3), torch.zeros(4, dtype=torch.long), layer="0") <= 1


def test_a_view_is_its_network_under_another_pass(sides):
    (model, *_), _, _ = sides
    view = View(model, None, lambda m, ids: m(ids, torch.ones(ids.shape, dtype=torch.float64)).logits)
    assert [name for name, _ in view.named_parameters()] == [name for name, _ in model.named_parameters()]
    view.eval()
    assert not model.training
    view.train()
    assert model.training

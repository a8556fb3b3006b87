"""Catches: a probe that damages a network whose modules or weights have two names."""

import copy

import pytest
import torch
from torch import nn

from nin.model.functional import call_with, slots
from nin.model.losses import cross_entropy
from nin.probes.curvature import local_hessian, sharpness
from nin.probes.response import kernel, response


class Aliased(nn.Module):
    """`enc` is also the first module of `body`, and `head` shares its weight with `enc`."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(4, 4)
        self.body = nn.Sequential(self.enc, nn.Tanh())
        self.head = nn.Linear(4, 4)
        self.head.weight = self.enc.weight

    def forward(self, x):
        return self.head(self.body(x))


class Plain(nn.Module):
    """The same function of its parameters, written out."""

    def __init__(self, aliased):
        super().__init__()
        self.w, self.a, self.b = (nn.Parameter(p.detach().clone()) for p in
                                  (aliased.enc.weight, aliased.enc.bias, aliased.head.bias))  # fmt: skip

    def forward(self, x):
        return torch.tanh(x @ self.w.T + self.a) @ self.w.T + self.b


@pytest.fixture
def networks():
    torch.manual_seed(0)
    aliased = Aliased().double()
    return aliased, Plain(aliased)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, dtype=torch.float64, generator=generator), torch.arange(6) % 4


def untouched(model, before, x, output):
    assert isinstance(model.enc.weight, nn.Parameter) and model.enc is model.body[0]
    assert model.enc.weight is model.head.weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(x), output)
    model(x).sum().backward()
    assert model.enc.weight.grad is not None


def test_probes_of_an_aliased_network_are_right_and_leave_it(networks, batch):
    (aliased, plain), (x, y) = networks, batch
    before, output = copy.deepcopy(aliased.state_dict()), aliased(x).detach()
    torch.testing.assert_close(kernel(aliased, x), kernel(plain, x), rtol=1e-12, atol=0)
    found, expected = (sharpness(model, x, y, loss=cross_entropy) for model in (aliased, plain))
    assert found.lam == pytest.approx(expected.lam, rel=1e-9)
    for steps in (copy.deepcopy(aliased), copy.deepcopy(plain)):
        del steps
    changes = [
        response(m, x, y, x[:2], loss=lambda f, y: cross_entropy(f, y).mean(),
                 optimizer=torch.optim.SGD(m.parameters(), lr=0.1)) for m in (aliased, plain)
    ]  # fmt: skip
    torch.testing.assert_close(changes[0].exact, changes[1].exact, rtol=1e-10, atol=1e-14)
    for name in ("enc", "body.0", "head"):
        local_hessian(aliased, name, x, y, loss=cross_entropy)
    untouched(aliased, before, x, output)


def test_other_values_reach_all_places_of_a_tied_weight(networks, batch):
    (aliased, plain), (x, _) = networks, batch
    doubled = {"enc.weight": 2 * aliased.enc.weight.detach()}
    with torch.no_grad():
        plain.w.mul_(2)
    torch.testing.assert_close(call_with(aliased, doubled, (x,)), plain(x))
    assert [name for name, _ in slots(aliased)] == ["enc.weight", "enc.bias", "head.weight", "head.bias"]

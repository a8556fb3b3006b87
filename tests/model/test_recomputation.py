"""Catches: noise that differs between a forward pass and its repetition by a checkpoint, or is lost there."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nin import inject


class Blocks(nn.Module):
    """Three linear blocks, of which the second is checkpointed in one of torch's two ways, or not at all."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.reentrant = reentrant

    def block(self, h):
        return torch.tanh(self.second(torch.tanh(h)))

    def forward(self, x):
        h = self.first(x)
        h = self.block(h) if self.reentrant is None else checkpoint(self.block, h, use_reentrant=self.reentrant)
        return self.third(h)


def noisy_network(reentrant=None, layer="second", nodes=2):
    torch.manual_seed(0)
    model = Blocks(reentrant).double()
    return inject(model, layer, sigma=2.0, nodes=nodes, generator=torch.Generator().manual_seed(1))


def samples(seed=0):
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(noisy):
    return {name: parameter.grad.clone() for name, parameter in noisy.named_parameters()}


def same(left, right):
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("layer", ["second", "third", ["first", "second"]])
def test_gradients_with_a_checkpoint_inside_are_those_without(reentrant, layer):
    plain, inside = noisy_network(layer=layer), noisy_network(reentrant, layer=layer)
    for seed in range(3):  # draws follow on one another: nothing is drawn twice
        for noisy in (plain, inside):
            noisy.zero_grad()
            noisy(samples(seed)).square().sum().backward()
        same(gradients(plain), gradients(inside))
    assert torch.equal(plain.generator.get_state(), inside.generator.get_state())


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_of_a_checkpoint_around_are_those_without(reentrant):
    plain, around = noisy_network(), noisy_network()
    x = samples().requires_grad_()
    for _ in range(3):
        for noisy in (plain, around):
            noisy.zero_grad()
        plain(x).square().sum().backward()
        checkpoint(around, x, use_reentrant=reentrant).square().sum().backward()
        same(gradients(plain), gradients(around))
    assert torch.equal(plain.generator.get_state(), around.generator.get_state())


@pytest.mark.parametrize("reentrant", [True, False])
def test_two_passes_before_one_backward(reentrant):
    plain, inside = noisy_network(), noisy_network(reentrant)
    for noisy in (plain, inside):
        (noisy(samples(0)).square().sum() + noisy(samples(1)).square().sum()).backward()
    same(gradients(plain), gradients(inside))


@pytest.mark.parametrize("reentrant", [True, False])
def test_noise_that_was_given_is_met_again(reentrant):
    plain, inside = noisy_network(), noisy_network(reentrant)
    eps = plain.draw(7)
    for noisy in (plain, inside):
        noisy(samples(), eps).square().sum().backward()
    same(gradients(plain), gradients(inside))


def test_passes_that_cannot_be_told_apart_are_refused():
    noisy = noisy_network(True)
    loss = noisy(samples()).square().sum() + noisy(samples()).square().sum()
    with pytest.raises(ValueError, match="layer='second' is computed again .* 2 calls with these values wait"):
        loss.backward()


def test_the_network_is_as_before_once_nothing_waits():
    noisy = noisy_network(True)
    x = samples()
    noisy(x).sum().backward()
    model = noisy.network
    clean = copy.deepcopy(model)
    clean.second._forward_hooks.clear()
    assert torch.equal(model(x), clean(x))  # a hook that stays does nothing
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), clean(x)) and torch.equal(
        copy.deepcopy(model)(x), clean(x)
    )
    model.reentrant = None
    noisy(x)
    assert not model.second._forward_hooks


def test_a_layer_under_no_grad_is_refused():
    class Frozen(Blocks):
        def forward(self, x):
            with torch.no_grad():
                h = self.block(self.first(x))
            return self.third(h)

    noisy = inject(Frozen(), "second", sigma=1.0)
    with pytest.raises(ValueError, match="layer='second' runs under torch.no_grad inside the network"):
        noisy(samples().float())

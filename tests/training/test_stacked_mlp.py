"""Catches: a written-out gradient that is not autograd's, buffers that a second call or a smaller ensemble spoils."""

import itertools

import pytest
import torch

from nin import inject
from nin.model.networks import ACTIVATIONS, INITS, MLP, linear_net
from nin.training.ensemble import Ensemble

K, BATCH = 3, 7


def members(activation, init, layer, nodes=2):
    generator = torch.Generator().manual_seed(1)
    networks = [
        MLP(5, (6, 4), 3, activation=activation, init=init, dtype=torch.float64, generator=generator) for _ in range(K)
    ]
    with torch.no_grad():
        for network in networks:
            for linear in network.layers:
                linear.bias.normal_(generator=generator)
    if layer is None:
        return networks
    return [inject(n, f"layers.{layer}", sigma=0.7, nodes=nodes, generator=generator) for n in networks]


def batch(nodes, *, count=BATCH, inputs=5, seed=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(K, count, inputs, dtype=torch.float64, generator=generator)
    y = torch.randint(3, (K, count), generator=generator)
    return x, y, torch.randn(K, count, nodes, dtype=torch.float64, generator=generator) if nodes else None


def gradients(ensemble, x, y, noise, loss="cross_entropy"):
    scale = torch.tensor([0.1, 2.0, 1.0], dtype=torch.float64)[: len(x)]
    losses = ensemble.backward(x, y, noise, loss=loss, scale=scale)
    return {"loss": losses} | {name: p.grad.clone() for name, p in ensemble.parameters.items()}


@pytest.mark.parametrize(("activation", "init", "layer"), list(itertools.product(ACTIVATIONS, INITS, (None, 0, 1, 2))))
def test_gradients_are_those_of_autograd(activation, init, layer):
    stack = members(activation, init, layer)
    x, y, noise = batch(0 if layer is None else 2)
    ours, autograd = (gradients(Ensemble(stack, vectorise=v), x, y, noise) for v in (False, True))
    assert ours.keys() == autograd.keys()
    for name, value in ours.items():
        assert value.abs().max() > 1e-4, name
        torch.testing.assert_close(value, autograd[name], rtol=1e-11, atol=1e-13, msg=name)


def test_linear_net_without_biases():
    generator = torch.Generator().manual_seed(0)
    stack = [
        inject(linear_net(9, inputs=2, generator=generator), "layers.0", sigma=1.0, generator=generator)
        for _ in range(K)
    ]
    x, _, noise = batch(1, inputs=2)
    y = x.sum(-1, keepdim=True)
    ours, autograd = (gradients(Ensemble(stack, vectorise=v), x, y, noise, "mse") for v in (False, True))
    for name, value in ours.items():
        torch.testing.assert_close(value, autograd[name], rtol=1e-11, atol=1e-13, msg=name)


def test_calls_between_and_members_dropped_leave_no_trace():
    """Evaluation on another batch size, then half of the members gone: what follows is that of a fresh ensemble."""
    stack = members("relu", "he", 0)
    x, y, noise = batch(2)
    used, fresh = Ensemble(stack), Ensemble([stack[2], stack[0]])
    gradients(used, x, y, noise)
    used(batch(0, count=11, seed=5)[0])
    used.keep(torch.tensor([2, 0]), torch.optim.SGD(used.parameters.values(), lr=1.0))
    for _ in range(2):
        again = gradients(used, *(t[[2, 0]] for t in (x, y, noise)))
        for name, value in gradients(fresh, *(t[[2, 0]] for t in (x, y, noise))).items():
            assert torch.equal(again[name], value), name


def test_outputs_are_the_members_own():
    stack = members("tanh", "ntk", 1)
    x, _, noise = batch(2)
    outputs = Ensemble(stack)(x, noise)
    assert not outputs.requires_grad
    for k, member in enumerate(stack):
        torch.testing.assert_close(outputs[k], member(x[k], noise[k]), rtol=1e-12, atol=1e-14)
    silent = Ensemble(stack)(x)
    torch.testing.assert_close(silent[0], stack[0].network(x[0]), rtol=1e-12, atol=1e-14)

"""Catches: a wrong forward pass or initial law, and networks that depend on dtype or on torch's global generator."""

import pytest
import torch
from torch import nn

from nin.model.networks import MLP, linear_net


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("activation", "module"),
    [("relu", nn.ReLU()), ("tanh", nn.Tanh()), ("softplus", nn.Softplus()), ("linear", nn.Identity())],
)
def test_forward_is_that_of_a_sequential(activation, module):
    mlp = MLP(5, (7, 6), 3, activation=activation, generator=generator())
    first, second, third = mlp.layers
    x = torch.randn(4, 5, generator=generator(1))
    torch.testing.assert_close(mlp(x), nn.Sequential(first, module, second, module, third)(x))


def test_initial_laws():
    he = MLP(400, (500,), 10, generator=generator())
    ntk = MLP(400, (500,), 10, init="ntk", generator=generator())
    assert he.layers[0].weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.01)
    assert ntk.layers[0].weight.std().item() == pytest.approx(1, rel=0.01)
    x = torch.randn(8, 400)
    torch.testing.assert_close(ntk.layers[0](x), x @ ntk.layers[0].weight.T / 20, rtol=1e-4, atol=1e-4)
    assert all(not layer.bias.any() for layer in he.layers)


def test_linear_net_is_the_linear_test_case():
    net = linear_net(100, generator=generator())
    u, v = net.layers[0].weight[:, 0], net.layers[1].weight[0]
    x = torch.randn(6, 1, dtype=torch.float64)
    torch.testing.assert_close(net(x)[:, 0], (v @ u) / 10 * x[:, 0])
    assert not any("bias" in name for name, _ in net.named_parameters())


def test_dtypes_agree_and_global_generator_rests():
    state = torch.get_rng_state()
    single, double = (MLP(5, (7,), 3, dtype=d, generator=generator()) for d in (torch.float32, torch.float64))
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(single.layers[0].weight.double(), double.layers[0].weight, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (0,)}, "widths=0 must be an integer >= 1"),
        ({"widths": (4.5,)}, "widths=4.5 must be an integer >= 1"),
        ({"activation": "relus"}, "activation='relus' is unknown; choose one of relu.* Did you mean 'relu'"),
        ({"init": "x"}, "init='x' is unknown; choose one of he, ntk"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**({"inputs": 3, "widths": (4,), "outputs": 2} | arguments))

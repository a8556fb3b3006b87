"""Catches gradients written out wrongly: the stacked networks against autograd, one by one, and their factors."""

import copy

import pytest
import torch

from nin.probes.response import kernel, response
from studies.training_response.networks import (
    ACTIVATIONS,
    ETA,
    LOSSES,
    MODULES,
    SLOPES,
    SimpleNetworks,
    SimpleRecipe,
    strings,
)

RECIPE = SimpleRecipe(seeds=(3, 4), inputs=5, hidden=7)


def data(recipe=RECIPE, count=6):
    x = strings(count, recipe.inputs, recipe.seeds)
    return x, x[..., 0].clone()


def loss_of(name):
    return lambda outputs, y: LOSSES[name](outputs.squeeze(1), y).mean()


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_the_derivatives_of_the_losses(name):
    f = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    for y in (-1.0, 1.0):
        target = torch.full_like(f, y)
        (gradient,) = torch.autograd.grad(LOSSES[name](f, target).sum(), f)
        torch.testing.assert_close(SLOPES[name](f.detach(), target), gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("batch", [1, 3, None])
def test_training_is_that_of_autograd(batch):
    """Every network alone: torch's SGD on the same samples."""
    recipe = SimpleRecipe(seeds=(3, 4), inputs=5, hidden=7, batch=batch)
    networks, (x, y) = SimpleNetworks(recipe), data()
    places = [(s, a, k) for s in range(2) for a in range(4) for k in range(3)]
    alone = {place: networks.module(*place) for place in places}
    generators = [torch.Generator().manual_seed(seed) for seed in recipe.seeds]
    for g in generators:  # the draws of the initial weights
        torch.randn(7, 5, dtype=torch.float64, generator=g), torch.randn(7, dtype=torch.float64, generator=g)
    list(networks.train(x, y, 5))
    rows = [
        torch.arange(6).expand(5, 6) if batch is None else torch.randint(6, (5, batch), generator=g) for g in generators
    ]
    for (s, a, k), network in alone.items():
        loss = recipe.losses[k]
        optimizer = torch.optim.SGD(network.parameters(), lr=ETA[loss])
        for step in range(5):
            optimizer.zero_grad()
            loss_of(loss)(network(x[s, rows[s][step]]), y[s, rows[s][step]]).backward()
            optimizer.step()
        torch.testing.assert_close(networks.w[s, a, k], network[0].weight, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(networks.outputs(x)[s, a, k], network(x[s]).squeeze(1), rtol=1e-10, atol=1e-12)


def test_factors_are_the_kernel_of_autograd():
    """Prediction 2: to 1e-12, symmetric, positive semi-definite."""
    networks, (x, y) = SimpleNetworks(RECIPE), data()
    list(networks.train(x, y, 50))
    factors, across = networks.factors(x), networks.factors(x, x[:, :2]).whole
    for s in range(2):
        for a in range(len(ACTIVATIONS)):
            for k in range(len(LOSSES)):
                exact = kernel(networks.module(s, a, k), x[s])
                torch.testing.assert_close(factors.whole[s, a, k], exact, rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(across[s, a, k], exact[:, :2], rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(exact, exact.T, rtol=1e-12, atol=1e-12)
                assert torch.linalg.eigvalsh(exact).min() > -1e-12 * exact.trace()


def ntk_output(parameters, x, activation):
    """f = H^-1/2 v . phi(d^-1/2 w . x + b) + c, written out."""
    w, b, v, c = parameters
    h = MODULES[activation]()(x @ w.T / w.shape[1] ** 0.5 + b)
    return h @ v / len(v) ** 0.5 + c


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_ntk_scaling_is_that_of_autograd(activation):
    """Output, kernel and one step, of a network with the factors written out, and the module's output."""
    recipe = SimpleRecipe(seeds=(3,), inputs=5, hidden=7, activations=(activation,), losses=("ce",), eta=0.7,
                          bias=0.5, batch=None, scaling="ntk")  # fmt: skip
    networks, (x, y) = SimpleNetworks(recipe), data(recipe)
    parameters = [p[0, 0, 0].clone().requires_grad_() for p in (networks.w, networks.b, networks.v, networks.c)]
    f = ntk_output(parameters, x[0], activation)
    torch.testing.assert_close(networks.outputs(x)[0, 0, 0], f)
    torch.testing.assert_close(networks.module(0, 0, 0)(x[0])[:, 0], f)
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(one, parameters, retain_graph=True)]) for one in f]
    gradients = torch.stack(rows)
    torch.testing.assert_close(networks.factors(x).whole[0, 0, 0], gradients @ gradients.T, rtol=1e-12, atol=1e-12)
    moves = torch.autograd.grad(LOSSES["ce"](f, y[0]).mean(), parameters)
    list(networks.train(x, y, 1))
    for ours, start, move in zip((networks.w, networks.b, networks.v, networks.c), parameters, moves, strict=True):
        torch.testing.assert_close(ours[0, 0, 0], start.detach() - 0.7 * move, rtol=1e-12, atol=1e-14)


def test_biases_are_drawn_without_moving_the_other_weights():
    plain = SimpleNetworks(SimpleRecipe(seeds=(3, 4), inputs=5, hidden=200))
    biased = SimpleNetworks(SimpleRecipe(seeds=(3, 4), inputs=5, hidden=200, bias=(0.0, 1.0, 2.0)))
    assert torch.equal(plain.w, biased.w) and torch.equal(plain.v, biased.v) and not plain.b.any()
    assert not biased.b[:, :, 0].any() and torch.equal(2 * biased.b[:, :, 1], biased.b[:, :, 2])
    assert biased.b[:, 0, 1].std().item() == pytest.approx(1, abs=0.1)
    assert SimpleNetworks(SimpleRecipe(seeds=(3,), scaling="ntk")).v.std().item() == pytest.approx(1, abs=0.2)


def test_responses_are_those_of_the_probe():
    networks, (x, y) = SimpleNetworks(RECIPE), data()
    exact, linear = networks.exact_responses(x, y), networks.linear_responses(x, y)
    for a in range(4):
        for k, loss in enumerate(RECIPE.losses):
            network = networks.module(1, a, k)
            optimizer = torch.optim.SGD(network.parameters(), lr=ETA[loss])
            found = response(network, x[1, 2:3], y[1, 2:3], x[1], loss=loss_of(loss), optimizer=optimizer)
            torch.testing.assert_close(exact[1, a, k, :, 2], found.exact.squeeze(1), rtol=1e-9, atol=1e-13)
            torch.testing.assert_close(linear[1, a, k, :, 2], found.linear.squeeze(1), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("method", ["momentum", "adam"])
def test_methods_are_torchs(method):
    recipe = SimpleRecipe(seeds=(3, 4), inputs=5, hidden=7, batch=None, method=method, eta=0.01)
    networks, (x, y) = SimpleNetworks(recipe), data()
    network = networks.module(1, 0, 1)
    list(networks.train(x, y, 4))
    kinds = {"momentum": (torch.optim.SGD, {"momentum": 0.9}), "adam": (torch.optim.Adam, {})}
    kind, options = kinds[method]
    optimizer = kind(network.parameters(), lr=0.01, **options)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of("ce")(network(x[1]), y[1]).backward()
        optimizer.step()
    torch.testing.assert_close(networks.outputs(x)[1, 0, 1], network(x[1]).squeeze(1), rtol=1e-9, atol=1e-11)
    exact = networks.exact_responses(x, y)[1, 0, 1, :, 2]
    found = response(network, x[1, 2:3], y[1, 2:3], x[1], loss=loss_of("ce"), optimizer=optimizer)
    torch.testing.assert_close(exact, found.exact.squeeze(1), rtol=1e-8, atol=1e-12)


def test_rates_and_noise_of_each_loss():
    one = SimpleRecipe(losses=("mse",), seeds=(3, 4), inputs=5, hidden=7, eta=0.03, label_noise=0.5)
    two = SimpleRecipe(losses=("mse", "mse"), seeds=(3, 4), inputs=5, hidden=7, eta=(0.01, 0.03), label_noise=(0, 0.5))
    (x, y), outputs = data(), []
    for recipe in (one, two):
        networks = SimpleNetworks(recipe)
        list(networks.train(x, y, 9))
        outputs.append(networks.outputs(x))
    torch.testing.assert_close(outputs[0][:, :, 0], outputs[1][:, :, 1], rtol=1e-9, atol=1e-11)
    assert not torch.allclose(outputs[1][:, :, 0], outputs[1][:, :, 1])


def test_stops_and_seeds():
    networks, (x, y) = SimpleNetworks(RECIPE), data()
    before = copy.deepcopy(networks.w)
    assert list(networks.train(x, y, 20, at=[0, 7, 20])) == [0, 7, 20]
    assert not torch.equal(before, networks.w)
    alone = SimpleNetworks(SimpleRecipe(seeds=(4,), inputs=5, hidden=7))
    list(alone.train(x[1:], y[1:], 20))
    torch.testing.assert_close(alone.w[0], networks.w[1], rtol=1e-10, atol=1e-12)


def test_label_noise_moves_a_network_at_rest():
    recipe = SimpleRecipe(activations=("tanh",), losses=("mse",), seeds=(0,), inputs=4, hidden=5, label_noise=0.5)
    networks = SimpleNetworks(recipe)
    x = strings(4, 4, (0,))
    y, start = networks.outputs(x)[0, 0, 0][None], networks.w.clone()
    list(networks.train(x, y, 1))
    assert not torch.equal(networks.w, start)


def test_strings_differ():
    x = strings(32, 5, [0, 1])
    assert x.shape == (2, 32, 5) and set(x.unique().tolist()) == {-1.0, 1.0}
    assert len({tuple(row) for row in x[0].tolist()}) == 32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SimpleRecipe(activations=("gelu",)), "activations='gelu' is unknown"),
        (lambda: SimpleRecipe(losses=("hinge",)), "losses='hinge' is unknown"),
        (lambda: SimpleRecipe(batch=0), "batch=0 must be"),
        (lambda: SimpleRecipe(eta=0), "eta=0 must be"),
        (lambda: SimpleRecipe(eta=(0.1, 0.2)), "one for each of the 3 losses"),
        (lambda: SimpleRecipe(method="adam"), "eta=None of adam must be one number"),
        (lambda: SimpleRecipe(method="lion"), "method='lion' is unknown"),
        (lambda: SimpleRecipe(scaling="mup"), "scaling='mup' is unknown"),
        (lambda: SimpleRecipe(bias=-1.0), "bias=-1.0 must be"),
        (lambda: strings(33, 5, [0]), "count=33 is more than the 32 strings"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()

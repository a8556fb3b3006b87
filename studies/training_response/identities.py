"""Checks of kernels and responses that hold for any network, measured in float64 (notebook 08)."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from nin.checks import Check
from nin.model.networks import MLP
from nin.probes.response import kernel, response
from nin.theory.response import EXPONENTS, constant_kernel, relu_kernel, summed_response_gain
from studies.statistics import loglog_slope
from studies.training_response.measure import task
from studies.training_response.networks import LOSSES, SimpleNetworks, SimpleRecipe

ANGLES = (0.0, 0.5, math.pi / 2, 2.4, math.pi)


def one_step_checks(etas: Sequence[float] = (1e-4, 1e-3, 1e-2)) -> list[Check]:
    """Prediction 1: the nonlinearity of a step grows like eta, and its linear part is -eta Theta l'."""
    recipe = SimpleRecipe(losses=("mse",) * len(etas), eta=tuple(etas), seeds=(0, 1, 2))
    networks, (x, y) = SimpleNetworks(recipe), task("random", recipe, 16)
    exact, linear = networks.exact_responses(x, y), networks.linear_responses(x, y)
    off = ((exact - linear).flatten(3).norm(dim=3) / linear.flatten(3).norm(dim=3)).mean(0)  # (A, etas)
    bands = {"tanh": (1, 0.05), "sigmoid": (1, 0.05), "relu": (1.15, 0.25)}
    checks = []
    for activation, (middle, half) in bands.items():
        slope = loglog_slope(etas, off[recipe.activations.index(activation)].numpy()).value
        checks.append(Check(f"one step, {activation}: nonlinearity ~ eta^", "prediction 1", slope, middle, half))
    network = networks.module(0, 0, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=etas[0])
    found = response(network, x[0, :1], y[0, :1], x[0], loss=_loss("mse"), optimizer=optimizer).linear[:, 0]
    gap = ((found - linear[0, 0, 0, :, 0]).norm() / found.norm()).item()
    return [*checks, Check("linear response against -eta Theta l'", "prediction 1", gap, 0, 1e-12)]


def kernel_checks(*, width: int = 4096) -> list[Check]:
    """Predictions 2 and 3: factors against autograd, symmetry, positivity; infinitely wide ReLU."""
    recipe = SimpleRecipe(seeds=(0,))
    networks, (x, y) = SimpleNetworks(recipe), task("random", recipe, 16)
    list(networks.train(x, y, 200))
    factors, gaps, lowest = networks.factors(x).whole, [], []
    for place in np.ndindex(*networks.c.shape):
        exact = kernel(networks.module(*place), x[0])
        gaps.append(((factors[place] - exact).norm() / exact.norm()).item())
        lowest.append((torch.linalg.eigvalsh(exact)[0] / exact.trace()).item())
    checks = [
        Check("factors (4) against autograd", "prediction 2", max(gaps), 0, 1e-12),
        Check("smallest eigenvalue / trace", "prediction 2", min(lowest), 0, 1e-12, ">="),
    ]
    generator = torch.Generator().manual_seed(0)
    wide = MLP(8, (width,), 1, activation="relu", init="ntk", bias=False, dtype=torch.float64, generator=generator)
    points = torch.zeros(len(ANGLES), 8, dtype=torch.float64)
    points[:, 0], points[:, 1] = torch.tensor(ANGLES).cos(), torch.tensor(ANGLES).sin()
    row = kernel(wide, points[:1] * 8**0.5, points * 8**0.5)[0].numpy()
    worst = np.abs(row - relu_kernel(np.array(ANGLES))).max()
    return [*checks, Check(f"ReLU of width {width} against infinite width", "prediction 3", worst, 0, 0.05)]


def aging_checks() -> list[Check]:
    """Prediction 5: a constant kernel ages with exact exponents; mse decays exponentially."""
    checks = []
    for loss, powers in EXPONENTS.items():
        found = constant_kernel(loss, K=1.0, eta=0.5, steps=200_000)
        for quantity in ("logit", "p", "error"):
            slope = loglog_slope(found.step[2000::100], getattr(found, quantity)[2000::100]).value
            name = f"constant kernel, {loss}: slope of {quantity}"
            checks.append(Check(name, "prediction 5", slope, powers[quantity], 0.03))
    found = constant_kernel("mse", K=2.0, eta=0.01, steps=500)
    rate = float(np.polyfit(found.step, np.log(found.logit), 1)[0])
    return [*checks, Check("constant kernel, mse: rate", "prediction 5", rate, math.log(1 - 0.02), 1e-4)]


def method_checks(beta: float = 0.9) -> list[Check]:
    """Prediction 10: the summed response of momentum, and the first step of Adam."""
    recipe = SimpleRecipe(activations=("tanh",), losses=("mse",), seeds=(0,))
    networks, (x, y) = SimpleNetworks(recipe), task("random", recipe, 8)
    network, one, target = networks.module(0, 0, 0), x[0, :1], y[0, :1]
    loss = _loss("mse")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=beta)
    first = response(network, one, target, one, loss=loss, optimizer=optimizer).linear.item()
    gradient = torch.autograd.grad(network(one).sum(), list(network.parameters()))
    start = [p.detach().clone() for p in network.parameters()]
    loss(network(one), target).backward()
    for _ in range(400):  # one gradient, then none
        optimizer.step()
        for p in network.parameters():
            p.grad.zero_()
    pairs = zip(gradient, network.parameters(), start, strict=True)
    summed = sum((g * (p.detach() - s)).sum().item() for g, p, s in pairs)
    network = networks.module(0, 0, 0)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4, eps=1e-15)
    step = response(network, one, target, one, loss=loss, optimizer=adam).linear.abs().item()
    size = 1e-4 * sum(g.abs().sum().item() for g in gradient)
    gain = summed_response_gain(beta)
    return [
        Check("momentum: summed response / first", "prediction 10", summed / first, gain, 1e-3 * gain),
        Check("Adam: first response / (lr |grad f|_1)", "prediction 10", step / size, 1, 1e-6),
    ]


def _loss(name: str):
    return lambda outputs, y: LOSSES[name](outputs.squeeze(1), y).mean()

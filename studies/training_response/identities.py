"""Checks of kernels and responses that hold for any network, in float64, each beside the nearest wrong formula."""

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
    """Prediction 1: the nonlinearity of a step grows like eta, and its linear part is -eta Theta l'.

    Rival: a linear part whose kernel lacks the factor of the output bias.
    """
    recipe = SimpleRecipe(losses=("mse",) * len(etas), eta=tuple(etas), seeds=(0, 1, 2))
    networks, (x, y) = SimpleNetworks(recipe), task("random", recipe, 16)
    exact, linear = networks.exact_responses(x, y), networks.linear_responses(x, y)
    factors = networks.factors(x)
    wrong = linear * (1 - factors.bias / factors.whole)
    off, missed = (
        ((exact - part).flatten(3).norm(dim=3) / part.flatten(3).norm(dim=3)).mean(0) for part in (linear, wrong)
    )  # (A, etas)
    bands = {"tanh": (1, 0.05), "sigmoid": (1, 0.05), "relu": (1.15, 0.25)}
    checks = []
    for activation, (middle, half) in bands.items():
        place = recipe.activations.index(activation)
        slope, rival = (loglog_slope(etas, part[place].numpy()).value for part in (off, missed))
        name = f"one step, {activation}: nonlinearity ~ eta^"
        checks.append(Check(name, "prediction 1", slope, middle, half, "=", rival))
    network = networks.module(0, 0, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=etas[0])
    found = response(network, x[0, :1], y[0, :1], x[0], loss=_loss("mse"), optimizer=optimizer).linear[:, 0]
    gap, rival = (((found - part[0, 0, 0, :, 0]).norm() / found.norm()).item() for part in (linear, wrong))
    return [*checks, Check("linear response against -eta Theta l'", "prediction 1", gap, 0, 1e-12, "=", rival)]


def kernel_checks(*, width: int = 4096) -> list[Check]:
    """Predictions 2 and 3: factors against autograd, positivity; infinitely wide ReLU.

    Rivals: factors without that of the output bias; with the output weights' factor subtracted; the infinitely wide
    covariance of the outputs, [sin a + (pi - a) cos a] / 2 pi, in place of the kernel.
    """
    recipe = SimpleRecipe(seeds=(0,))
    networks, (x, y) = SimpleNetworks(recipe), task("random", recipe, 16)
    list(networks.train(x, y, 200))
    factors, gaps, missed, lowest, wrong = networks.factors(x), [], [], [], []
    for place in np.ndindex(*networks.c.shape):
        exact = kernel(networks.module(*place), x[0])
        ours, output, bias = (part[place] for part in (factors.whole, factors.output, factors.bias))
        gaps.append(((ours - exact).norm() / exact.norm()).item())
        missed.append(((ours - bias - exact).norm() / exact.norm()).item())
        lowest.append((torch.linalg.eigvalsh(exact)[0] / exact.trace()).item())
        wrong.append((torch.linalg.eigvalsh(exact - 2 * output)[0] / exact.trace()).item())
    checks = [
        Check("factors (4) against autograd", "prediction 2", max(gaps), 0, 1e-12, "=", min(missed)),
        Check("smallest eigenvalue / trace", "prediction 2", min(lowest), 0, 1e-12, ">=", max(wrong)),
    ]
    generator = torch.Generator().manual_seed(0)
    wide = MLP(8, (width,), 1, activation="relu", init="ntk", bias=False, dtype=torch.float64, generator=generator)
    points = torch.zeros(len(ANGLES), 8, dtype=torch.float64)
    points[:, 0], points[:, 1] = torch.tensor(ANGLES).cos(), torch.tensor(ANGLES).sin()
    row = kernel(wide, points[:1] * 8**0.5, points * 8**0.5)[0].numpy()
    a = np.array(ANGLES)
    worst, rival = (np.abs(row - law).max() for law in (relu_kernel(a), _relu_covariance(a)))
    name = f"ReLU of width {width} against infinite width"
    return [*checks, Check(name, "prediction 3", worst, 0, 0.05, "=", rival)]


def _relu_covariance(a: np.ndarray) -> np.ndarray:
    """Of the outputs of an infinitely wide ReLU network at the start, which the factor of the output weights equals."""
    return (np.sin(a) + (np.pi - a) * np.cos(a)) / (2 * np.pi)


def aging_checks() -> list[Check]:
    """Prediction 5: a constant kernel ages with exact exponents; mse decays exponentially.

    Rivals: the slope of mse's response over its first 100 steps (logit), the other loss's slope (p, error), and the
    rate of continuous time, -eta K.
    """
    slopes = {loss: _late_slopes(loss) for loss in EXPONENTS}
    start = constant_kernel("mse", K=1.0, eta=0.5, steps=100)
    exponential = loglog_slope(start.step[1:], start.logit[1:]).value
    checks = []
    for (loss, powers), other in zip(EXPONENTS.items(), reversed(EXPONENTS), strict=True):
        for quantity, slope in slopes[loss].items():
            rival = exponential if quantity == "logit" else slopes[other][quantity]
            name = f"constant kernel, {loss}: slope of {quantity}"
            checks.append(Check(name, "prediction 5", slope, powers[quantity], 0.03, "=", rival))
    found = constant_kernel("mse", K=2.0, eta=0.01, steps=500)
    rate = float(np.polyfit(found.step, np.log(found.logit), 1)[0])
    exact, flow = math.log(1 - 0.02), -0.02
    return [*checks, Check("constant kernel, mse: rate", "prediction 5", rate, exact, 1e-4, "=", flow)]


def _late_slopes(loss: str) -> dict[str, float]:
    found = constant_kernel(loss, K=1.0, eta=0.5, steps=200_000)
    late = slice(2000, None, 100)
    return {name: loglog_slope(found.step[late], getattr(found, name)[late]).value for name in ("logit", "p", "error")}


def method_checks(beta: float = 0.9) -> list[Check]:
    """Prediction 10: the summed response of momentum, and the first step of Adam.

    Rivals: plain SGD's summed response, and a first step of Adam lr sqrt(P) |grad f|_2, P parameters.
    """
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
    squares = torch.cat([g.flatten() for g in gradient]).square()
    rival = step / (1e-4 * (len(squares) * squares.sum()).sqrt().item())
    gain = summed_response_gain(beta)
    plain = summed_response_gain(0.0)
    return [
        Check("momentum: summed response / first", "prediction 10", summed / first, gain, 1e-3 * gain, "=", plain),
        Check("Adam: first response / (lr |grad f|_1)", "prediction 10", step / size, 1, 1e-6, "=", rival),
    ]


def _loss(name: str):
    return lambda outputs, y: LOSSES[name](outputs.squeeze(1), y).mean()

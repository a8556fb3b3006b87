"""Catches: a candidate for the onset of catapults that misses its closed form, or a Gauss-Newton matrix that is not."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from nin import inject
from nin.model.losses import LOSSES
from nin.model.networks import MLP, linear_net
from nin.probes.curvature import critical_rate
from studies.phase_borders import candidates

DOUBLE = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear():
    """The noise sector of the linear net with Rademacher noise, and V, W."""
    net = linear_net(500, generator=seeded(3))
    noisy = inject(net, "layers.0", sigma=1.7, niw_std=1.0, law="rademacher", generator=seeded(4))
    x = torch.zeros(300, 1, dtype=DOUBLE)
    return noisy, x, net.layers[1].weight.detach().square().mean().item(), noisy.niw.detach().square().mean().item()


def test_candidates_in_the_linear_net():
    """<H> = v v^T / N gives 2 / (s^2 V); all weights together, and one or several steps, 2 / (s^2 (V + W))."""
    noisy, x, V, W = linear()
    data, steps = {"loss": LOSSES["mse"]}, {"batch_size": 16, "generator": seeded()}
    local = 2 / (1.7**2 * V)
    assert candidates.local_curvature(noisy, x, x, **data).eta == pytest.approx(local)
    found = candidates.self_consistent(noisy, x, x, **data, generator=seeded())
    assert found.eta == pytest.approx(local, abs=4 * found.stderr) and 0 < found.stderr < 0.02 * local
    whole = 2 / (1.7**2 * (V + W))
    assert candidates.noisy_sharpness(noisy, x, x, **data, generator=seeded()).eta == pytest.approx(whole)
    ahead = candidates.look_aheads(noisy, x, x, **data, **steps, asked=[(1, 1.0), (3, 1.0)])
    assert ahead[1, 1.0].eta == pytest.approx(whole, rel=0.01)
    assert ahead[3, 1.0].eta == pytest.approx(whole, rel=0.02)


def test_averaged_curvature_of_a_frozen_network():
    """W_NI alone, L~ = s^2 |W|^2 / 2: |W_NI| decays at the rate s^2 per unit of learning rate."""
    net = nn.Sequential(nn.Linear(2, 2, dtype=DOUBLE)).requires_grad_(False)
    noisy = inject(net, "0", sigma=3.0, law="rademacher", generator=seeded())
    x = torch.zeros(50, 2, dtype=DOUBLE)
    options = {"loss": LOSSES["mse"], "batch_size": 8, "generator": seeded(), "trials": 3}
    found = candidates.averaged_curvature(noisy, x, x, **options)
    assert found.eta == pytest.approx(2 / 9) and found.stderr < 0.2
    noisy.niw.requires_grad_(False)
    net.requires_grad_(True)
    assert candidates.averaged_curvature(noisy, x, x + 1, **options).eta == math.inf


@pytest.mark.parametrize("layers", ["layers.1", ["layers.0", "layers.1"]])
def test_noisy_sharpness_is_that_of_the_dense_matrix(layers):
    net = MLP(3, (4,), 3, activation="tanh", dtype=DOUBLE, generator=seeded(1))
    noisy = inject(net, layers, sigma=0.8, generator=seeded(2))
    x, y = torch.randn(20, 3, dtype=DOUBLE, generator=seeded(5)), torch.arange(20) % 3
    before = [p.clone() for p in noisy.parameters()]
    found = candidates.noisy_sharpness(noisy, x, y, loss=LOSSES["cross_entropy"], generator=seeded(7), samples=6)
    generator = seeded(7)
    index = torch.randperm(20, generator=generator)[:6]
    draws = [0.8 * torch.randn(6, 1, dtype=DOUBLE, generator=generator) for _ in noisy.layers]
    parameters = {name: p.detach() for name, p in noisy.named_parameters()}
    total = 0
    for sign in (1, -1):
        noise = {layer: sign * draw for layer, draw in zip(noisy.layers, draws, strict=True)}
        jacobian = jacrev(lambda p, noise=noise: functional_call(noisy, p, (x[index], noise)))(parameters)
        J = torch.cat([part.flatten(2) for part in jacobian.values()], 2)  # (samples, outputs, parameters)
        outputs = noisy(x[index], noise).detach()
        for j, f, label in zip(J, outputs, y[index], strict=True):
            total = (
                total + j.T @ jacrev(jacrev(lambda f, label=label: nn.functional.cross_entropy(f, label)))(f) @ j / 12
            )
    assert 2 / found.eta == pytest.approx(torch.linalg.eigvalsh(total)[-1].item(), rel=1e-6)
    assert all(torch.equal(p, q) for p, q in zip(before, noisy.parameters(), strict=True)) and noisy.training


def test_look_ahead_is_never_later_than_one_step():
    net = MLP(5, (16, 16), 3, dtype=DOUBLE, generator=seeded(1))
    noisy = inject(net, "layers.0", sigma=1.0, generator=seeded(2))
    x, y = torch.randn(90, 5, dtype=DOUBLE, generator=seeded(5)), torch.arange(90) % 3
    options = {"loss": LOSSES["cross_entropy"], "batch_size": 8}
    asked = {"asked": [(4, 1.0)], "trials": 6, "judges": 90}
    ahead = candidates.look_aheads(noisy, x, y, **options, generator=seeded(), **asked)[4, 1.0]
    one = critical_rate(noisy, x, y, **options, generator=seeded(), trials=6, judges=90)
    assert 0 < ahead.eta < 1.2 * one.rate


def test_look_aheads_are_those_of_critical_rate():
    """One set of passes gives what separate searches give, and a rise of 1.05 is reached later than one of 1."""
    net = MLP(5, (16, 16), 3, dtype=DOUBLE, generator=seeded(1))
    noisy = inject(net, "layers.0", sigma=1.0, generator=seeded(2))
    x, y = torch.randn(90, 5, dtype=DOUBLE, generator=seeded(5)), torch.arange(90) % 3
    options = {"loss": LOSSES["cross_entropy"], "batch_size": 8, "tolerance": 1e-3}
    asked = [(1, 1.0), (3, 1.0), (1, 1.05)]
    found = candidates.look_aheads(noisy, x, y, **options, generator=seeded(), asked=asked)
    three = critical_rate(noisy, x, y, **options, generator=seeded(), steps=3)
    assert found[3, 1.0].eta == pytest.approx(three.rate, rel=2e-3)
    assert found[3, 1.0].eta <= 1.001 * found[1, 1.0].eta < found[1, 1.05].eta


def test_local_numbers_name_what_they_cannot_do():
    net = MLP(3, (4,), 3, dtype=DOUBLE, generator=seeded(1))
    noisy = inject(net, ["layers.0", "layers.1"], sigma=0.8, generator=seeded(2))
    x, y = torch.zeros(4, 3, dtype=DOUBLE), torch.arange(4) % 3
    with pytest.raises(ValueError, match=r"nodes in layers.0, layers.1; this number is defined for one layer"):
        candidates.local_curvature(noisy, x, y, loss=LOSSES["cross_entropy"])

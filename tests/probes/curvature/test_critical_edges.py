"""Catches: a crossing that is skipped, a wrong border of another optimiser, an error that does not name its cause."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import DOUBLE, network, quadratic, rate, seeded, task

from nin import inject
from nin.model.losses import LOSSES
from nin.probes.curvature import CriticalRate, critical_rate
from nin.probes.curvature.crossing import first_crossing


def test_heavy_ball_spikes_at_two_and_lasts_to_two_and_twice_the_momentum():
    """Against the recurrence w' = (1 + m - a) w - m w_before, a = eta lambda, of a mode that starts at rest."""
    m = 0.5

    def heavy(p, lr):
        return torch.optim.SGD(p, lr, momentum=m)

    def lasting(steps):
        a = np.linspace(0.01, 4, 4000)
        w = before = np.ones_like(a)
        for _ in range(steps):
            w, before = (1 + m - a) * w - m * before, w
        return a[np.abs(w) >= 1][0]

    noisy, x, y = quadratic([4.0], [3.0])
    small = {"trials": 2, "judges": 1, "batch_size": 1, "optimizer": heavy, "tolerance": 1e-6}
    for steps in (1, 5):
        assert rate(noisy, x, y, steps=steps, **small).rate == pytest.approx(2 / 4, rel=1e-6)
    for steps in (2, 9):
        assert rate(noisy, x, y, steps=steps, judged="last", **small).rate * 4 == pytest.approx(
            lasting(steps), rel=2e-3
        )
    assert lasting(400) == pytest.approx(2 * (1 + m), rel=0.01)
    plain = rate(noisy, x, y, steps=5, optimizer=lambda p, lr: torch.optim.SGD(p, lr)).rate
    assert plain == pytest.approx(rate(noisy, x, y, steps=5).rate, rel=1e-9) == pytest.approx(0.5, rel=1e-6)


def test_adam_does_not_know_the_scale_of_the_loss():
    noisy, x, y = quadratic([4.0], [3.0])
    for factor in (1, 100):
        found = rate(
            noisy,
            x,
            y,
            loss=lambda f, y, c=factor: c * LOSSES["mse"](f, y),
            optimizer=lambda p, lr: torch.optim.Adam(p, lr),
        )
        assert found.rate == pytest.approx(6, rel=1e-5)  # w = 3 -> 3 - eta = -3


def test_crossings_are_the_first_and_may_be_missing():
    def curve(t):
        return (t - 3) * (t - 7) * (t - 90) + np.zeros(3)

    for start in (0.01, 0.3, 2.9):
        assert first_crossing(curve, start).at == pytest.approx(3, rel=1e-2)
    assert first_crossing(lambda t: np.full(2, -t), 1.0).at == math.inf
    uphill = first_crossing(lambda t: np.array([t, 2 * t]), 1.0)
    assert uphill.at == 0 and math.isnan(uphill.stderr)
    wall = first_crossing(lambda t: np.full(2, -t if t < 5.3 else np.nan), 1.0)
    assert wall.at == pytest.approx(5.3, rel=2e-2) and math.isnan(wall.stderr)
    high = first_crossing(lambda t: np.array([t - 1, t - 1]), 1000.0)
    assert high.at == pytest.approx(1, rel=1e-2)
    parts = np.array([0.9, 1.0, 1.3])
    found = first_crossing(lambda t: t**2 - parts * t, 0.3, tolerance=1e-9)
    assert found.at == pytest.approx(parts.mean()) and found.stderr == pytest.approx(parts.std(ddof=1) / math.sqrt(3))


def test_a_minimum_and_a_loss_without_end():
    noisy, x, y = quadratic([4.0], [3.0])
    endless = rate(noisy, x, y, loss=lambda f, y: f.sum(1))
    assert endless.rate == math.inf and endless.kappa(1.0) == 0
    generator = seeded()
    line = inject(nn.Sequential(nn.Linear(1, 1, dtype=DOUBLE)), "0", sigma=0.0, generator=generator)
    x = torch.ones(400, 1, dtype=DOUBLE)
    y = torch.randn(400, 1, dtype=DOUBLE, generator=generator)
    with torch.no_grad():
        line.network[0].weight.zero_()
        line.network[0].bias.fill_(y.mean())
    bottom = rate(line, x, y, batch_size=1, judges=399)
    assert bottom.rate < 0.05 and bottom.kappa(0.1) > 4
    assert CriticalRate(0.0, math.nan, 1.0, 0.0, 0.0, 4).kappa(0.1) == math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 61}, "batch_size=61 is larger than the 60 samples"),
        ({"x": torch.zeros(0, 5, dtype=DOUBLE), "y": torch.zeros(0, dtype=torch.int64)}, "x has 0"),
        ({"y": torch.zeros(59, dtype=torch.int64)}, "x has 60 and y has 59 samples"),
        ({"loss": lambda f, y: f[:3]}, r"loss returned shape \(3, 3\) for 64 samples"),
        ({"loss": lambda f, y: 1.0}, "loss returned float"),
        ({"loss": lambda f, y: f.sum() / 0}, "the noisy loss is not finite at the start"),
        ({"loss": lambda f, y: 0 * f.sum()}, "the gradient is zero in every batch"),
        ({"sigma": -1.0}, "sigma=-1.0 must be"),
        ({"sigma": [1.0, 2.0]}, "2 values for 1 layers"),
        ({"trials": 1}, "trials=1"),
        ({"judges": 0}, "judges=0"),
        ({"steps": 0}, "steps=0"),
        ({"judged": "worst"}, "judged='worst' is unknown"),
    ],
)
def test_errors_name_the_argument(change, message, unchecked):
    x, y = task()
    options = {"x": x, "y": y, "loss": LOSSES["cross_entropy"], "batch_size": 8, "generator": seeded()} | change
    with pytest.raises(ValueError, match=message):
        critical_rate(network(), options.pop("x"), options.pop("y"), **options)


def test_a_network_that_cannot_move_or_has_no_node(unchecked):
    x, y = task()
    with pytest.raises(ValueError, match="requires_grad=True"):
        rate(network().requires_grad_(False), x, y, loss=LOSSES["cross_entropy"])
    with pytest.raises(ValueError, match="noisy is a MLP; pass nin.inject"):
        rate(network().network, x, y, loss=LOSSES["cross_entropy"])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_sum_over_samples_is_not_cut_into_chunks(reduction):
    """Its rate is that of the mean over |B|, found without chunks; with them, the pieces would not add up."""
    noisy = network()
    x, y = task()
    given = {"loss": nn.CrossEntropyLoss(reduction=reduction), "batch_size": 8, "trials": 2, "judges": 6}
    whole = critical_rate(noisy, x, y, **given, generator=seeded()).rate
    mean = critical_rate(noisy, x, y, **given | {"loss": nn.CrossEntropyLoss()}, generator=seeded()).rate
    assert whole == pytest.approx(mean / 8 if reduction == "sum" else mean, rel=0.02)
    if reduction == "sum":
        with pytest.raises(ValueError, match="loss is not a mean over samples, so chunk=3 would change it"):
            critical_rate(noisy, x, y, **given, generator=seeded(), chunk=3)
    else:
        assert critical_rate(noisy, x, y, **given, generator=seeded(), chunk=3).rate == pytest.approx(whole, rel=1e-6)


def test_weighted_samples_are_not_cut_into_chunks():
    """Counted twice they give the same; in pieces each of them is divided by its own weights."""
    noisy = network()
    x, y = task()
    loss = nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, int(y.max()) + 1).to(x))
    given = {"loss": loss, "batch_size": 8, "trials": 2, "judges": 6}
    assert critical_rate(noisy, x, y, **given, generator=seeded()).rate > 0
    with pytest.raises(ValueError, match="loss is not a mean over samples, so chunk=4 would change it"):
        critical_rate(noisy, x, y, **given, generator=seeded(), chunk=4)

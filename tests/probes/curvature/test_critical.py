"""Catches: a critical rate that misses 2 / lambda, a crossing that is skipped, an error bar that does not cover, a
network that is changed, a number that depends on the chunks."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from nin import inject
from nin.model.losses import LOSSES
from nin.model.networks import MLP, linear_net
from nin.probes.curvature import CriticalRate, critical_rate
from nin.probes.curvature.crossing import first_crossing
from nin.probes.curvature.trials import Trials

DOUBLE = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """f_i = w_i sqrt(lam_i), so that the loss |f|^2 / 2 has the eigenvalues lam; the input does not matter."""

    def __init__(self, lam, start):
        super().__init__()
        self.unused = nn.Linear(1, 1, dtype=DOUBLE)  # the place of a node that nothing depends on
        self.lam = torch.tensor(lam, dtype=DOUBLE)
        self.w = nn.Parameter(torch.tensor(start, dtype=DOUBLE))

    def forward(self, x):
        return self.unused(x) * 0 + self.w * self.lam.sqrt()


def quadratic(lam, start):
    x = torch.zeros(40, 1, dtype=DOUBLE)
    noisy = inject(Quadratic(lam, start), "unused", sigma=1.0, generator=seeded())
    return noisy, x, torch.zeros(40, len(lam), dtype=DOUBLE)


def rate(noisy, x, y, *, loss=LOSSES["mse"], batch_size=8, seed=0, **options):
    return critical_rate(noisy, x, y, loss=loss, batch_size=batch_size, generator=seeded(seed), **options)


def task(n=60):
    generator = seeded(5)
    return torch.randn(n, 5, dtype=DOUBLE, generator=generator), torch.arange(n) % 3


def network(activation="tanh", layers="layers.0", sigma=0.7, law="gaussian"):
    net = MLP(5, (7, 6), 3, activation=activation, dtype=DOUBLE, generator=seeded(1))
    return inject(net, layers, sigma=sigma, law=law, generator=seeded(2))


def test_quadratic_loss_has_its_closed_form():
    """L~(eta) = sum_i lam_i w_i^2 (1 - eta lam_i)^2 / 2: eta_1 = 2 sum lam^2 w^2 / sum lam^3 w^2; 2 / lam for one."""
    assert rate(*quadratic([4.0], [3.0])).rate == pytest.approx(0.5, rel=1e-6)
    lam, w = np.array([0.1, 1.0, 7.0]), np.array([20.0, -1.0, 0.3])
    found = rate(*quadratic(lam.tolist(), w.tolist()))
    assert found.rate == pytest.approx(2 * (lam**2 * w**2).sum() / (lam**3 * w**2).sum(), rel=1e-6)
    assert found.initial_loss == pytest.approx((lam * w**2).sum() / 2) and found.stderr == pytest.approx(0, abs=1e-9)
    assert found.kappa(0.1) == pytest.approx(0.2 / found.rate)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
@pytest.mark.parametrize("kappa", [0.5, 3.0])
def test_wide_linear_net_has_kappa(law, kappa):
    """Noise sector of NIN section 3: eta_1 = 2 / lam, lam = s^2 (V + W), up to 1/N.

    With Gaussian noise of variances q in the batches and Q in the judges, L~ = sum_k Q_k n^2 (1 - eta lam q_k)^2 / 2,
    so that eta_1 = 2 <Qq> / (lam <Qq^2>).
    """
    net = linear_net(1000, generator=seeded(3))
    noisy = inject(net, "layers.0", sigma=1.0, niw_std=1.0, law=law, generator=seeded(4))
    x = torch.zeros(400, 1, dtype=DOUBLE)
    lam = (net.layers[1].weight.detach().square().mean() + noisy.niw.detach().square().mean()).item()
    lr, sigma = 0.02, math.sqrt(kappa / (0.02 * lam))
    found = rate(noisy, x, x, batch_size=64, sigma=sigma)
    drawn = Trials(noisy, x, x, loss=LOSSES["mse"], batch_size=64, generator=seeded(), trials=4, judges=32).trials
    q, Q = (
        np.array([part.noise[0].square().mean().item() for part in parts])
        for parts in ([t.batches[0] for t in drawn], [t.judges for t in drawn])
    )
    assert found.kappa(lr) == pytest.approx(kappa * (Q * q**2).sum() / (Q * q).sum(), rel=0.01)
    if law == "rademacher":
        assert found.kappa(lr) == pytest.approx(kappa, rel=0.01)


def test_units_are_those_of_the_learning_rate():
    """Twice the loss: half the rate. Noise and NIW scaled inversely: another rate, because W_NI learns faster."""
    noisy, (x, y) = network(), task()
    one = rate(noisy, x, y, loss=LOSSES["cross_entropy"])
    two = rate(noisy, x, y, loss=lambda f, y: 2 * LOSSES["cross_entropy"](f, y))
    assert two.rate == pytest.approx(one.rate / 2, rel=1e-6) and two.decay == pytest.approx(2 * one.decay)
    assert two.stderr / two.rate == pytest.approx(one.stderr / one.rate, rel=1e-6)


@pytest.mark.parametrize(
    ("layers", "steps", "momentum"), [("layers.1", 1, 0.0), (["layers.0", "layers.2"], 2, 0.0), ("layers.1", 2, 0.9)]
)
def test_naive_twin(layers, steps, momentum):
    """Deep copies of the network, torch's SGD and a dense grid of learning rates, on the same draws."""
    noisy, (x, y), loss = network(layers=layers), task(), LOSSES["cross_entropy"]
    factory = (lambda p, lr: torch.optim.SGD(p, lr, momentum=momentum)) if momentum else None
    found = rate(noisy, x, y, loss=loss, steps=steps, optimizer=factory, trials=3, judges=20, tolerance=1e-8)
    drawn = Trials(noisy, x, y, loss=loss, batch_size=8, generator=seeded(), trials=3, judges=20, steps=steps)

    def eps(samples):
        return dict(zip(noisy.layers, (0.7 * noise for noise in samples.noise), strict=True))

    def worst(lr):
        after = np.zeros(steps)
        for trial in drawn.trials:
            twin = copy.deepcopy(noisy)
            sgd = torch.optim.SGD(twin.parameters(), lr=lr, momentum=momentum)
            for step, batch in enumerate(trial.batches):
                sgd.zero_grad()
                loss(twin(batch.x, eps(batch)), batch.y).mean().backward()
                sgd.step()
                after[step] += loss(twin(trial.judges.x, eps(trial.judges)), trial.judges.y).mean().item()
        return after.max() / 3

    start = np.mean([loss(noisy(t.judges.x, eps(t.judges)), t.judges.y).mean().item() for t in drawn.trials])
    assert found.initial_loss == pytest.approx(start, rel=1e-12)
    grid = np.geomspace(found.rate / 30, 1.001 * found.rate, 12)
    raised = [worst(lr) >= start for lr in grid]
    assert not any(raised[:-1]) and raised[-1]
    assert worst(found.rate * (1 - 1e-6)) < start < worst(found.rate * (1 + 1e-6))


def test_judges_are_other_samples_with_paired_noise():
    noisy, x, y = network(), torch.arange(60, dtype=DOUBLE).view(12, 5), torch.arange(12) % 3
    drawn = Trials(noisy, x, y, loss=LOSSES["mse"], batch_size=4, generator=seeded(), trials=5, judges=8)
    for trial in drawn.trials:
        batch, judges = trial.batches[0].x[:, 0], trial.judges.x[:, 0]
        assert len(set(batch.tolist())) == 4 and not set(batch.tolist()) & set(judges.tolist())
        assert torch.equal(judges[:8], judges[8:]) and len(set(judges.tolist())) == 8
        assert torch.equal(trial.judges.noise[0][:8], -trial.judges.noise[0][8:])
    whole = Trials(noisy, x, y, loss=LOSSES["mse"], batch_size=12, generator=seeded(), trials=2, judges=8)
    assert len(whole.trials[0].judges.x) == 16


def test_chunks_and_the_kind_of_loss_change_only_rounding():
    noisy, (x, y) = network("relu"), task()
    whole = rate(noisy, x, y, loss=LOSSES["cross_entropy"], tolerance=1e-9)
    for chunk in (17, 1000):
        part = rate(noisy, x, y, loss=LOSSES["cross_entropy"], chunk=chunk, tolerance=1e-9)
        assert part.rate == pytest.approx(whole.rate, rel=1e-8) and part.decay == pytest.approx(whole.decay, rel=1e-10)
    mean = rate(noisy, x, y, loss=nn.functional.cross_entropy, chunk=17, tolerance=1e-9)
    assert mean.rate == pytest.approx(whole.rate, rel=1e-8) and mean.stderr == pytest.approx(whole.stderr, rel=1e-6)
    assert rate(noisy, x, y, loss=LOSSES["cross_entropy"]) == rate(noisy, x, y, loss=LOSSES["cross_entropy"])


class Tied(nn.Module):
    """A tied weight, dropout, batch norm, a frozen layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(5, 5, dtype=DOUBLE) for _ in range(3))
        self.second.weight = self.first.weight
        self.norm, self.drop = nn.BatchNorm1d(5, dtype=DOUBLE), nn.Dropout(0.5)
        self.last.requires_grad_(False)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.second(self.norm(torch.tanh(self.first(x)))))))


def test_network_is_left_as_it_was():
    torch.manual_seed(0)
    noisy, (x, y) = inject(Tied(), "last", sigma=1.0), task()
    noisy.niw.grad = torch.ones_like(noisy.niw)
    noisy.network.norm.eval()
    before, parameters = copy.deepcopy(noisy.state_dict()), list(noisy.parameters())
    values = [p.clone() for p in parameters]
    modes, random = [m.training for m in noisy.modules()], torch.get_rng_state()
    with torch.no_grad():
        found = rate(
            noisy, x, y, loss=LOSSES["cross_entropy"], steps=2, optimizer=lambda p, lr: torch.optim.Adam(p, lr)
        )
    assert math.isfinite(found.rate) and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in noisy.state_dict().items())  # the generator, too
    assert all(p is q for p, q in zip(parameters, noisy.parameters(), strict=True))
    assert all(torch.equal(p, q) for p, q in zip(values, parameters, strict=True))
    assert modes == [m.training for m in noisy.modules()] and not noisy.network.last.weight.requires_grad
    assert noisy.niw.grad.eq(1).all() and noisy.network.first.weight.grad is None
    assert noisy.network.first.weight is noisy.network.second.weight
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in noisy.modules())


def test_network_is_measured_in_eval_mode():
    """Dropout changes nothing, and batch norm uses its running statistics."""
    torch.manual_seed(0)
    noisy, (x, y) = inject(Tied(), "last", sigma=1.0), task()
    found = rate(noisy, x, y, loss=LOSSES["cross_entropy"])
    noisy.network.drop.p = 0.0
    assert rate(noisy.eval(), x, y, loss=LOSSES["cross_entropy"]) == found


def test_frozen_parameters_do_not_move():
    """Only W_NI moves, with Rademacher noise, so that L~ = s^2 |W|^2 / 2 exactly: eta_1 = 2 / s^2, decay s^2."""
    net = nn.Sequential(nn.Linear(2, 2, dtype=DOUBLE)).requires_grad_(False)
    net[0].bias.zero_()
    noisy = inject(net, "0", sigma=3.0, law="rademacher", generator=seeded())
    x = torch.zeros(50, 2, dtype=DOUBLE)
    found = rate(noisy, x, x)
    assert found.rate == pytest.approx(2 / 9, rel=1e-6) and found.decay == pytest.approx(9, rel=1e-12)
    net.requires_grad_(True)
    assert rate(noisy, x, x).rate != pytest.approx(2 / 9, rel=1e-6)
    noisy.niw.requires_grad_(False)
    assert rate(noisy, x + 1, x).decay == 0


def test_decay_is_the_noise_averaged_pull_on_the_node():
    """-d ln|W| / d eta from central differences of E L~ along W, times s^2 for a fixed noise: W.dL/dW / |W|^2."""
    noisy, (x, y), loss = network(), task(), LOSSES["cross_entropy"]
    found = rate(noisy, x, y, loss=loss)
    trials = Trials(noisy, x, y, loss=loss, batch_size=8, generator=seeded(), trials=4, judges=32).trials
    w, step = noisy.niw.detach().clone(), 1e-5

    def at(factor):
        noisy.niw.data = w * factor
        return np.mean([loss(noisy(t.judges.x, 0.7 * t.judges.noise[0]), t.judges.y).mean().item() for t in trials])

    slope = (at(1 + step) - at(1 - step)) / (2 * step)
    assert found.decay == pytest.approx(slope / w.square().sum().item(), rel=1e-6)


def test_no_noise_is_plain_sgd():
    noisy, (x, y) = network(), task()
    plain = rate(noisy, x, y, loss=LOSSES["cross_entropy"], sigma=0.0)
    silent = rate(network(sigma=0.0), x, y, loss=LOSSES["cross_entropy"])
    assert plain == silent and plain.decay == 0
    assert rate(noisy, x, y, loss=LOSSES["cross_entropy"], sigma=50.0).rate < plain.rate / 3


@pytest.mark.slow
def test_interval_covers_the_value_of_many_trials():
    """95 % intervals of 50 generators cover the value found with 60 trials of all samples as judges."""
    noisy, (x, y), loss = network("relu", sigma=2.0), task(300), LOSSES["cross_entropy"]
    truth = rate(noisy, x, y, loss=loss, batch_size=16, trials=60, judges=284, seed=99)
    found = [rate(noisy, x, y, loss=loss, batch_size=16, judges=32, seed=seed) for seed in range(50)]
    inside = np.mean([low <= truth.rate <= high for low, high in (f.interval for f in found)])
    spread = np.std([math.log(f.rate) for f in found])
    typical = np.median([f.stderr / f.rate for f in found])
    assert 0.85 <= inside <= 0.99 and 0.7 < typical / spread < 1.4, (inside, typical, spread)


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

"""Catches: a critical rate that misses 2 / lambda, a crossing that is skipped, an error bar that does not cover, a
network that is changed, a number that depends on the chunks."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import DOUBLE, Tied, network, quadratic, rate, seeded, task

from nin import inject
from nin.model.losses import LOSSES
from nin.model.networks import linear_net
from nin.probes.curvature.critical import Descent
from nin.probes.curvature.trials import Trials


def test_quadratic_loss_has_its_closed_form():
    """L~(eta) = sum_i lam_i w_i^2 (1 - eta lam_i)^2 / 2: eta_1 = 2 sum lam^2 w^2 / sum lam^3 w^2; 2 / lam for one."""
    assert rate(*quadratic([4.0], [3.0])).rate == pytest.approx(0.5, rel=1e-6)
    assert rate(*quadratic([4.0], [3.0]), rise=9.0).rate == pytest.approx(1.0, rel=1e-6)  # (1 - eta lam)^2 = 9
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


def test_dropout_is_off_and_a_batch_norm_does_as_its_mode_says():
    """In training mode it uses the statistics of each batch, whatever its running ones are; in eval mode the latter."""
    torch.manual_seed(0)
    noisy, (x, y) = inject(Tied(), "last", sigma=1.0), task()
    found = rate(noisy, x, y, loss=LOSSES["cross_entropy"])
    noisy.network.drop.p = 0.0
    assert rate(noisy, x, y, loss=LOSSES["cross_entropy"]) == found
    evaluated = rate(noisy.eval(), x, y, loss=LOSSES["cross_entropy"])
    assert evaluated.rate != pytest.approx(found.rate, rel=1e-2)
    noisy.network.norm.running_mean.fill_(3.0)
    assert rate(noisy.eval(), x, y, loss=LOSSES["cross_entropy"]).rate != pytest.approx(evaluated.rate, rel=1e-2)
    assert rate(noisy.train(), x, y, loss=LOSSES["cross_entropy"]) == found
    with pytest.raises(
        ValueError, match="chunk=4 would give each part of a batch its own statistics in 'network.norm'"
    ):
        rate(noisy, x, y, loss=LOSSES["cross_entropy"], chunk=4)


def test_a_network_with_batch_norm_steps_as_in_training():
    """L~ after one step by the network in training mode, a copy for each trial."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()
    noisy, (x, y), loss = inject(net, "0", sigma=0.7, generator=seeded(2)), task(), LOSSES["cross_entropy"]
    drawn = Trials(noisy, x, y, loss=loss, batch_size=8, generator=seeded(), trials=2, judges=20)
    lr = 0.3
    for trial, ours in zip(drawn.trials, Descent(drawn, drawn.sigmas(None)).losses(lr)[:, 0], strict=True):
        twin = copy.deepcopy(noisy).train()
        for samples, step in ((trial.batches[0], True), (trial.judges, False)):
            value = loss(twin(samples.x, 0.7 * samples.noise[0]), samples.y).mean()
            if step:
                sgd = torch.optim.SGD(twin.parameters(), lr=lr)
                value.backward()
                sgd.step()
        assert ours == pytest.approx(value.item(), rel=1e-12)


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
def test_scales_by_layer_belong_to_their_layers():
    noisy, (x, y), loss = network(layers=["layers.0", "layers.2"]), task(), LOSSES["cross_entropy"]
    named = rate(noisy, x, y, loss=loss, sigma={"layers.2": 9.0, "layers.0": 0.1})
    assert named.rate == rate(noisy, x, y, loss=loss, sigma=[0.1, 9.0]).rate
    assert named.rate != rate(noisy, x, y, loss=loss, sigma=[9.0, 0.1]).rate
    with pytest.raises(ValueError, match="must have a value for each of the layers layers.0, layers.2"):
        rate(noisy, x, y, loss=loss, sigma={"layers.0": 0.1})


def test_interval_covers_the_value_of_many_trials():
    """95 % intervals of 50 generators cover the value found with 60 trials of all samples as judges."""
    noisy, (x, y), loss = network("relu", sigma=2.0), task(300), LOSSES["cross_entropy"]
    truth = rate(noisy, x, y, loss=loss, batch_size=16, trials=60, judges=284, seed=99)
    found = [rate(noisy, x, y, loss=loss, batch_size=16, judges=32, seed=seed) for seed in range(50)]
    inside = np.mean([low <= truth.rate <= high for low, high in (f.interval for f in found)])
    spread = np.std([math.log(f.rate) for f in found])
    typical = np.median([f.stderr / f.rate for f in found])
    assert 0.85 <= inside <= 0.99 and 0.7 < typical / spread < 1.4, (inside, typical, spread)

"""Catches: a phase that is predicted on the wrong side of its border, a noise scale that is not where the phase begins,
plain SGD's own instability blamed on the node, a network that is changed."""

import copy
import math

import pytest
import torch
from torch import nn

import nin
from nin import inject
from nin.model.losses import LOSSES
from nin.model.networks import MLP, linear_net
from nin.phases import PHASES
from nin.probes.curvature import critical_rate
from nin.probes.prediction import DIVERGENCE, DIVERGENCE_AHEAD

DOUBLE = torch.float64
LR = 0.02


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(sigma=1.0):
    """The noise sector of the linear net with Rademacher noise, and V + W."""
    net = linear_net(1000, generator=seeded(3))
    noisy = inject(net, "layers.0", sigma=sigma, niw_std=1.0, law="rademacher", generator=seeded(4))
    lam = net.layers[1].weight.detach().square().mean().item() + noisy.niw.detach().square().mean().item()
    return noisy, torch.zeros(200, 1, dtype=DOUBLE), lam


def digits(sigma, *, width=64, seed=0):
    data = nin.load_data("digits")
    net = MLP(64, (width,) * 3, 10, generator=seeded(seed))
    return inject(net, "layers.0", sigma=sigma, generator=seeded(seed + 1)), data.x_train, data.y_train


def predict(noisy, x, y, *, loss="cross_entropy", lr=0.05, batch_size=128, steps=1500, **options):
    return nin.predict(
        noisy, x, y, loss=LOSSES[loss], lr=lr, batch_size=batch_size, steps=steps, generator=seeded(5), **options
    )


def scale(phase, noisy, x, y, *, loss="cross_entropy", lr=0.05, batch_size=128, steps=1500, **options):
    return nin.noise_scale(
        phase, noisy, x, y, loss=LOSSES[loss], lr=lr, batch_size=batch_size, steps=steps, generator=seeded(5), **options
    )


@pytest.mark.parametrize(
    ("kappa", "phase"), [(0.5, "decoupled"), (2.5, "catapult"), (3.5, "divergent"), (9.0, "divergent")]
)
def test_phases_of_the_linear_net(kappa, phase):
    """Calm below 2; |W_NI| of the wide net does not move, hence decoupled. Divergence is set to 3, not to its 4."""
    noisy, x, lam = linear()
    found = predict(noisy, x, x, loss="mse", lr=LR, batch_size=16, steps=100, sigma=math.sqrt(kappa / (LR * lam)))
    assert found.phase == phase and found.kappa == pytest.approx(kappa, rel=0.01) and not found.own
    assert sum(found.probability.values()) == pytest.approx(1) and list(found.probability) == list(PHASES)
    assert found.probability[phase] == max(found.probability.values())


def test_noise_scales_of_the_linear_net():
    """sigma_cat = sqrt(2 / (eta lam)), wherever the search begins; L~ rises 2.5 times at kappa = 1 + sqrt 2.5."""
    noisy, x, lam = linear()
    exact = math.sqrt(2 / (LR * lam))
    for sigma in (0.01 * exact, exact, 300 * exact):
        found = scale("catapult", noisy, x, x, loss="mse", lr=LR, batch_size=16, steps=100, sigma=sigma)
        assert found.sigma == pytest.approx(exact, rel=0.01)
    found = scale("divergent", noisy, x, x, loss="mse", lr=LR, batch_size=16, steps=100)
    border = DIVERGENCE.at * (1 + math.sqrt(DIVERGENCE.rise))  # of kappa
    assert found.sigma == pytest.approx(math.sqrt(border / 2) * exact, rel=0.01) and found.stderr < 1e-6
    told = predict(noisy, x, x, loss="mse", lr=LR, batch_size=16, steps=100)
    assert told.divergence[0] * lam == pytest.approx(border, rel=0.11)
    ahead = predict(noisy, x, x, loss="mse", lr=LR, batch_size=16, steps=100, ahead=4)
    border = DIVERGENCE_AHEAD.at * (1 + DIVERGENCE_AHEAD.rise ** (1 / 8))  # L~ is multiplied by (1 - kappa)^2 each step
    assert ahead.divergence[0] * lam == pytest.approx(border, rel=0.11)


def test_decay_of_a_frozen_network_is_exact():
    """L~ = s^2 |W|^2 / 2: |W_NI| loses lr s^2 per step, and decays from s = sqrt(-ln 0.9 / (lr steps))."""
    net = nn.Sequential(nn.Linear(2, 2, dtype=DOUBLE)).requires_grad_(False)
    net[0].bias.zero_()
    noisy = inject(net, "0", sigma=0.3, law="rademacher", generator=seeded())
    x = torch.zeros(50, 2, dtype=DOUBLE)
    options = {"loss": "mse", "lr": 0.1, "batch_size": 8, "steps": 1000}
    border = math.sqrt(-math.log(0.9) / 100)
    assert scale("decay", noisy, x, x, **options).sigma == pytest.approx(border, rel=2e-3)
    found = predict(noisy, x, x, **options)
    assert found.decay == pytest.approx(0.1 * 0.09) and found.phase == "decay"
    assert predict(noisy, x, x, **options, sigma=border / 3).phase == "decoupled"
    assert predict(noisy, x, x, **options, sigma=border).probability["decay"] == pytest.approx(0.5, abs=0.01)


def test_digits_have_their_known_phases():
    """As trained (NIN section 4, lr 0.05, batch 128): calm at 0.1, decay at 8, catapult at 32-48, divergent at 100."""
    found = {sigma: predict(*digits(sigma, width=128)).phase for sigma in (0.1, 8.0, 40.0, 200.0)}
    assert list(found.values()) == list(PHASES)


def test_prediction_and_noise_scale_agree():
    noisy, x, y = digits(8.0)
    border = scale("catapult", noisy, x, y)
    at = [predict(noisy, x, y, sigma=factor * border.sigma).kappa for factor in (0.99, 1.01)]
    assert at[0] < 2 < at[1] and 10 < border.sigma < 60 and 0.01 < border.stderr < 0.3
    found = predict(noisy, x, y, scales=True)
    assert [one.phase for one in found.scales] == list(PHASES[1:]) and found.scales[1] == border
    assert found.scales[0].sigma < found.scales[1].sigma < found.scales[2].sigma
    text = str(found)
    assert "kappa_1 = 2 lr / eta_1" in text and f"catapult from sigma = {border.sigma:.3g}" in text
    assert text.startswith(found.phase) and "plain SGD is stable at lr = 0.05" in text


def test_plain_sgd_that_is_unstable_is_not_the_node():
    noisy, x, y = digits(0.1)
    rate = critical_rate(noisy, x, y, loss=LOSSES["cross_entropy"], batch_size=128, generator=seeded(5), sigma=0.0).rate
    wild = predict(noisy, x, y, lr=1.6 * rate)
    assert wild.own and wild.phase == "catapult" and "UNSTABLE by itself" in str(wild)
    assert not predict(noisy, x, y, lr=rate / 3).own and not predict(noisy, x, y, lr=rate / 3, sigma=100.0).own
    assert scale("catapult", noisy, x, y, lr=1.6 * rate).sigma == 0


def test_several_layers_keep_the_ratio_of_their_noise():
    net = MLP(5, (7, 6), 3, dtype=DOUBLE, generator=seeded(1))
    noisy = inject(net, ["layers.0", "layers.2"], sigma=[1.0, 3.0], generator=seeded(2))
    x, y = torch.randn(60, 5, dtype=DOUBLE, generator=seeded(5)), torch.arange(60) % 3
    found = scale("catapult", noisy, x, y, batch_size=8)
    assert found.sigma["layers.2"] == pytest.approx(3 * found.sigma["layers.0"]) and "layers.2 = " in str(found)
    assert predict(noisy, x, y, batch_size=8).sigma == {"layers.0": 1.0, "layers.2": 3.0}


def test_a_node_without_weights():
    """W_NI = 0 has no rate of decay, but its gradient, noise times the pull, grows with sigma: a catapult exists."""
    noisy, x, y = digits(1.0)
    with torch.no_grad():
        noisy.niw.zero_()
    found = predict(noisy, x, y, scales=True)
    assert math.isnan(found.decay) and math.isnan(found.scales[0].sigma) and found.scales[1].sigma > 1
    assert found.phase == "decoupled" and "decay from sigma = nan" in str(found)


@pytest.mark.slow
def test_small_weights_need_a_look_ahead():
    """Small W_NI hardly moves the loss in one step, but grows by a factor in each: 5 steps see it earlier."""
    noisy, x, y = digits(40.0, width=32)
    with torch.no_grad():
        noisy.niw.mul_(0.01)
    one, five = (predict(noisy, x, y, lr=0.1, ahead=ahead) for ahead in (1, 5))
    assert five.critical.rate < 0.7 * one.critical.rate


def test_network_is_left_as_it_was():
    noisy, x, y = digits(8.0)
    before, random = copy.deepcopy(noisy.state_dict()), torch.get_rng_state()
    predict(noisy, x, y, scales=True)
    assert all(torch.equal(before[name], value) for name, value in noisy.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and noisy.training and noisy.niw.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"ahead": 0}, "ahead=0"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 5000}, "batch_size=5000 is larger"),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        predict(*digits(1.0), **change)


def test_noise_scale_needs_a_phase_and_a_start(unchecked):
    with pytest.raises(ValueError, match="phase='decoupled' is unknown; choose one of decay, catapult, divergent"):
        scale("decoupled", *digits(1.0))
    with pytest.raises(ValueError, match=r"sigma=\(0.0,\) is zero in every layer; give a positive one"):
        scale("catapult", *digits(0.0))


def test_a_loss_that_cannot_rise_does_not_diverge():
    """tanh bounds the loss below 2.5 times its start: the prediction says that it found no divergence."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Tanh()).double()
    noisy = inject(net, "0", sigma=0.5, generator=seeded())
    x = torch.randn(60, 3, dtype=DOUBLE, generator=seeded(5))
    found = nin.predict(noisy, x, x[:, :1].sign(), loss=lambda f, y: 10 + ((f - y) ** 2).mean(1), lr=0.1,
                        batch_size=10, steps=20, generator=seeded(1))  # fmt: skip
    assert found.divergence[0] == math.inf and "no divergence found" in str(found)
    assert found.probability["divergent"] == 0


def test_a_negative_loss_is_refused():
    noisy, x, y = digits(1.0)
    below = {"loss": lambda f, y: LOSSES["cross_entropy"](f, y) - 100, "lr": 0.05, "batch_size": 128, "steps": 10}
    with pytest.raises(ValueError, match=r"the noisy loss is -\d+.* at the start; a rise to 2.5 times it needs"):
        nin.predict(noisy, x, y, **below, generator=seeded())
    with pytest.raises(ValueError, match=r"add a constant to the loss"):
        nin.noise_scale("divergent", noisy, x, y, **below, generator=seeded())

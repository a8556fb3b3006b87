"""Catches an explorer whose predicted borders are not those of its networks, or that disagrees with its own picture."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from nin.companion.explorer.borders import SCALES, SIGMA, Borders, borders
from nin.companion.explorer.setting import SEEDS, Setting
from nin.companion.explorer.trained import explore
from nin.companion.explorer.words import seen
from nin.model.data import load_data
from nin.model.losses import LOSSES
from nin.phases import PHASES
from nin.probes.curvature import critical_rate
from nin.probes.prediction import CATAPULT, DIVERGENCE
from nin.training.start import build, with_node

BORDERS = Borders(
    sigma=np.array([0.1, 10.0, 100.0]),
    rates={"decay": np.array([1.0, 1e-2, 1e-4]), "catapult": np.array([1.0, 1.0, 0.01])}
    | {"divergent": np.array([3.0, 3.0, 0.03])},
    scatter=dict.fromkeys(PHASES[1:], 1.3),
)


def of(setting: Setting) -> Borders:
    return borders(tuple(setting.config.replace(seed=seed, sigma=1.0, lr=1.0) for seed in range(SEEDS)))


def test_borders_are_straight_in_logarithms():
    assert BORDERS.rate("catapult", 1.0) == pytest.approx(1.0)
    assert BORDERS.rate("catapult", np.array([20.0, 200.0])) == pytest.approx([0.25, 0.0025])  # the last line goes on
    assert BORDERS.rate("decay", 0.01) == pytest.approx(10.0)
    assert BORDERS.kappa(20.0, 0.1) == pytest.approx(0.8)
    assert [BORDERS.phase(20.0, lr) for lr in (1e-4, 0.01, 0.3, 0.8)] == ["decoupled", "decay", "catapult", "divergent"]
    assert BORDERS.scale(0.8, 0.1) == pytest.approx(20.0, rel=1e-3)
    assert [BORDERS.scale(kappa, 0.1) for kappa in (1e-3, 1e9)] == pytest.approx(SIGMA)


def test_linear_net_has_the_borders_of_theory():
    """kappa_0 = eta sigma^2 (V + W) with V + W near 2; 2 and 4 are exact."""
    found = of(Setting(network="linear net", width=1024))
    for sigma in (0.1, 3.0, 200.0):
        onset = found.rate("catapult", sigma)
        assert onset * sigma**2 == pytest.approx(2 / 2, rel=0.1)
        assert found.rate("divergent", sigma) == pytest.approx(2 * onset)
        assert found.rate("decay", sigma) * 2 / onset == pytest.approx(-np.log(0.9) / 100)  # in kappa_0, in 100 steps
    assert found.plain == np.inf


def test_regions_fill_the_plane_once():
    """Each point lies in one region, that of its phase, where plain SGD is unstable, too."""
    plain = Borders(BORDERS.sigma, BORDERS.rates, BORDERS.scatter, plain=1.0)
    for found in (BORDERS, plain):
        for sigma in (0.1, 7.0, 20.0, 90.0):
            regions = found.regions(sigma)
            assert regions[0][1] == 0 and regions[-1][2] == np.inf
            assert all(above[1] == below[2] for below, above in pairwise(regions))
            for lr in (1e-5, 1e-3, 0.1, 0.9, 1.2, 2.0, 9.0):
                (inside,) = [phase for phase, low, high in regions if low <= lr < high]
                assert found.phase(sigma, lr) == inside
                share = found.probability(sigma, lr)
                assert sum(share.values()) == pytest.approx(1) and min(share.values()) >= 0
                assert found.nearest(inside, sigma, lr) == lr


def test_spikes_of_plain_sgd_are_no_catapults():
    """Above twice its own rate less the onset, plain SGD spikes by more than half of what the node adds."""
    found = Borders(BORDERS.sigma, BORDERS.rates, BORDERS.scatter, plain=1.0)
    assert found.own(20.0) == pytest.approx(2 - 0.25)
    assert [found.phase(0.1, lr) for lr in (0.5, 1.5, 4.0)] == ["decoupled", "decay", "divergent"]
    assert [found.phase(20.0, lr) for lr in (0.3, 0.7)] == ["catapult", "catapult"]
    assert found.probability(0.1, 1.5)["catapult"] < 0.2 < BORDERS.probability(0.1, 1.5)["catapult"]


def test_probability_is_even_at_a_border():
    assert BORDERS.probability(20.0, 0.25)["catapult"] == pytest.approx(0.5, abs=1e-4)
    assert BORDERS.probability(20.0, 0.75)["divergent"] == pytest.approx(0.5)
    sharp = Borders(BORDERS.sigma, BORDERS.rates, dict.fromkeys(PHASES[1:], 1.0001))
    assert sharp.probability(20.0, 0.1)["decay"] == pytest.approx(1)
    assert BORDERS.nearest("catapult", 20.0, 0.1) == pytest.approx(0.25)
    assert Borders(BORDERS.sigma, BORDERS.rates, BORDERS.scatter).nearest("growing", 20.0, 0.1) is None


@pytest.mark.slow
def test_digits_have_the_one_step_rates_of_their_networks():
    """Against critical_rate with other draws and twice the trials, at scales that are measured and one between."""
    setting = Setting(width=32, batch=64)
    found, data = of(setting), load_data("digits")
    for sigma in (0.0, SCALES[1], 42.0, SCALES[-1]):
        rates, ends = [], []
        for seed in range(SEEDS):
            config = setting.config.replace(seed=seed)
            for found_ones, rise in ((rates, 1.0), (ends, DIVERGENCE.rise)):
                found_ones.append(
                    critical_rate(
                        with_node(config, build(config, data), data), data.x_train, data.y_train, sigma=sigma,
                        loss=LOSSES["cross_entropy"], batch_size=64, trials=8, rise=rise,
                        generator=torch.Generator().manual_seed(99),
                    )
                )  # fmt: skip
        expected = np.median([rate.rate for rate in rates])
        assert found.rate("catapult", sigma or SIGMA[0]) == pytest.approx(CATAPULT.at * expected, rel=0.35), sigma
        end = DIVERGENCE.at * np.median([rate.rate for rate in ends])
        assert found.rate("divergent", sigma or SIGMA[0]) == pytest.approx(end, rel=0.35), sigma
        if sigma == SCALES[-1]:  # so strong that nothing slows the decay
            lost = -np.log(0.9) / (np.median([rate.decay for rate in rates]) * setting.config.steps)
            assert found.rate("decay", sigma) == pytest.approx(lost, rel=0.35), sigma
    assert found.plain == found.rate("catapult", SIGMA[0]) / CATAPULT.at


def test_borders_are_computed_once_for_a_plane():
    assert of(Setting(width=16, sigma=3.0)) is of(Setting(width=16, lr=0.5))
    assert Setting(width=16, sigma=3.0).plane == Setting(width=16, lr=0.5).plane != Setting(width=32).plane


@pytest.mark.slow
@pytest.mark.parametrize("batch", [16, 32, 64])
def test_weak_noise_and_slow_training_are_decoupled(batch):
    """Batch noise passed for a catapult, and a |W_NI| of 1.00002 for divergence."""
    found = explore(Setting(sigma=0.1, lr=0.001, batch=batch))
    assert found.phases == ("decoupled",) * 3 and found.expected == "decoupled" and "Plain" not in seen(found)


@pytest.mark.slow
def test_plain_sgd_that_spikes_is_named():
    found = explore(Setting(sigma=1.0, lr=0.7))
    assert seen(found).endswith("Plain SGD spikes at this learning rate by itself, without a node.")
    assert found.phase == found.expected == "decay" and found.borders.plain < 0.7


@pytest.mark.slow
def test_decay_ends_with_the_loss():
    """Large learning rates end training sooner, and with it the decay: weak noise then never moves the node."""
    for layer, sigma in ((0, 0.3), (1, 1.24), (2, 1.04)):
        for lr in (0.06, 0.3):
            found = explore(Setting(sigma=sigma, lr=lr, layer=layer))
            assert found.phase == found.expected, (layer, lr)


@pytest.mark.slow
def test_shading_agrees_with_what_is_measured():
    """Along sigma at lr = 0.05: no miss is farther from the border than 95 % of the runs scatter around it."""
    agree = 0
    for sigma in (8.0, 16.0, 20.0, 24.0, 32.0, 40.0, 48.0, 64.0, 80.0, 100.0):
        found = explore(Setting(sigma=sigma))
        agree += found.phase == found.expected
        if found.phase != found.expected:
            assert {found.phase, found.expected} in ({"decay", "catapult"}, {"catapult", "divergent"})
            phase, scatter = (
                ("divergent", DIVERGENCE) if "divergent" in (found.phase, found.expected) else ("catapult", CATAPULT)
            )
            assert abs(np.log(0.05 / found.borders.rate(phase, sigma))) < 1.96 * np.log(scatter.scatter), sigma
    assert agree >= 7


def test_strong_noise_that_is_unlearnt_early_leaves_the_node_where_it_is():
    """Its first rate says decay; it stays at 0.96 of its size up to near the catapult, or at 0.9, where both occur."""
    sure, open_ = (
        Borders(BORDERS.sigma, BORDERS.rates, BORDERS.scatter, plain=1.0, stop=stop) for stop in (0.04, 0.11)
    )
    assert BORDERS.phase(100.0, 1e-3) == open_.phase(100.0, 1e-3) == "decay"
    assert sure.phase(100.0, 1e-3) == "decoupled" and sure.phase(100.0, 5e-3) == "decay"
    assert sure.stops(100.0, 1e-3) and not sure.stops(100.0, 5e-3) and not BORDERS.stops(100.0, 1e-3)
    assert BORDERS.probability(100.0, 1e-3)["decay"] > 0.99
    assert sure.probability(100.0, 1e-3)["decay"] < 0.01 and open_.probability(100.0, 1e-3)["decay"] == pytest.approx(
        0.5, abs=0.1
    )
    for found in (sure, open_):  # weak noise keeps its border
        assert found.fade(0.5) == found.rate("decay", 0.5)


@pytest.mark.slow
def test_a_late_layer_keeps_its_node_under_strong_noise():
    """Over two decades of the learning rate, which were all shaded as decay."""
    for lr in (2e-4, 1e-3):
        found = explore(Setting(width=128, layer=2, sigma=60.0, lr=lr))
        assert found.phase == found.expected == "decoupled"
        assert all(0.92 < one.kept < 1 for one in found.judged)

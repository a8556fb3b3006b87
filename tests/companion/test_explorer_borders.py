"""Catches an explorer whose predicted borders are not those of its networks, or that disagrees with its own picture."""

import numpy as np
import pandas as pd
import pytest
import torch

from nin.companion.explorer.borders import SCALES, SIGMA, Borders, borders
from nin.companion.explorer.setting import SEEDS, SEEN, Found, Setting, explore
from nin.model.data import load_data
from nin.model.losses import LOSSES
from nin.probes.curvature import critical_rate
from nin.probes.prediction import CATAPULT, DIVERGENCE
from nin.training.start import build, with_node

BORDERS = Borders(
    sigma=np.array([0.1, 10.0, 100.0]),
    rates={"decay": np.array([1.0, 1e-2, 1e-4]), "catapult": np.array([1.0, 1.0, 0.01])}
    | {"divergent": np.array([3.0, 3.0, 0.03])},
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
        assert found.rate("decay", sigma) == pytest.approx(0.01 * onset)
    assert found.plain == np.inf


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
        if sigma:
            lost = -np.log(0.9) / (np.median([rate.decay for rate in rates]) * setting.config.steps)
            assert found.rate("decay", sigma) == pytest.approx(min(lost, expected), rel=0.35), sigma
    assert found.plain == found.rate("catapult", SIGMA[0]) / CATAPULT.at


def test_borders_are_computed_once_for_a_plane():
    assert of(Setting(width=16, sigma=3.0)) is of(Setting(width=16, lr=0.5))
    assert Setting(width=16, sigma=3.0).plane == Setting(width=16, lr=0.5).plane != Setting(width=32).plane


@pytest.mark.parametrize(
    ("phases", "plains", "headline", "sentence"),
    [
        (("decay",) * 3, ("stable",) * 3, "decay (3 of 3 seeds), predicted: catapult, κ₁ = 2.4", SEEN["decay"]),
        (("decay", "catapult", "decay"), ("spikes", "stable", "stable"), "decay (2 of 3 seeds)", SEEN["decay"]),
        (("decoupled", "divergent", "catapult"), ("stable",) * 3, "divergent (1 of 3 seeds)",
         "The seeds disagree: decoupled, divergent, catapult."),
        (("decay",) * 3, ("spikes", "stable", "diverges"), "decay (3", " Plain SGD spikes at this learning rate"),
        (("decay",) * 3, ("diverges", "stable", "diverges"), "decay (3", " Plain SGD diverges at this learning rate"),
    ],
)  # fmt: skip
def test_words_say_what_was_found(phases, plains, headline, sentence):
    found = Found(Setting(sigma=20.0, lr=0.3), pd.DataFrame(), phases, plains, BORDERS)
    assert found.headline.startswith(headline) and found.headline.endswith("predicted: catapult, κ₁ = 2.4")
    assert sentence in found.sentence and ("Plain" in found.sentence) == ("Plain" in sentence)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [16, 32, 64])
def test_weak_noise_and_slow_training_are_decoupled(batch):
    """Batch noise passed for a catapult, and a |W_NI| of 1.00002 for divergence."""
    found = explore(Setting(sigma=0.1, lr=0.001, batch=batch))
    assert found.phases == ("decoupled",) * 3 and found.expected == "decoupled" and "Plain" not in found.sentence


@pytest.mark.slow
def test_plain_sgd_that_spikes_is_named():
    found = explore(Setting(sigma=0.1, lr=1.0))
    assert found.sentence.endswith("Plain SGD spikes at this learning rate by itself, without a node.")
    assert found.borders.plain < 1


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

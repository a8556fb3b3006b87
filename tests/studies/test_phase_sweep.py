"""Catches: borders drawn at another noise scale or learning rate, a diagram that mixes seeds, one mode that does not
decay at its own rate, control numbers that are swapped."""

import numpy as np
import pandas as pd
import pytest

import nin
from nin.phases import OUTCOMES
from studies.phase_sweep import measure

BASE = nin.RunConfig(widths=(16,), steps=60, batch_size=64, eval_points=2, curvature_pairs=1, eval_samples=128)


@pytest.fixture(scope="module")
def digits():
    return nin.load_data("digits")


def test_borders_are_the_rates_by_noise_scale():
    rates = pd.DataFrame(
        {
            "seed": [0, 1] * 2,
            "sigma": [1.0, 1.0, 4.0, 4.0],
            "rate": [0.2, 0.8, 0.02, 0.08],
            "stderr": 0.0,
            "decay": 0.01,
            "end": [0.5, 2.0, 0.1, 0.4],
        }
    )
    lines = measure.borders(rates, steps=100)
    assert lines["sigma"].tolist() == [1, 4]
    assert lines["catapult"].to_numpy() == pytest.approx([0.4, 0.04])
    assert lines["divergent"].to_numpy() == pytest.approx([1.0, 0.2])
    assert lines["decay"].to_numpy() == pytest.approx(-np.log(0.9) / (100 * 0.01))


def test_expected_phases_lie_between_the_borders():
    lines = pd.DataFrame(
        {"sigma": [1.0, 100.0], "decay": [1e-2, 1e-4], "catapult": [1.0, 1e-2], "divergent": [3.0, 3e-2]}
    )
    etas = {
        "decoupled": 9e-4,
        "decay": 1.1e-3,
        "catapult": 0.11,
        "divergent": 0.31,
    }  # borders at sigma = 10 by slope -1
    grid = pd.DataFrame({"sigma": 10.0, "lr": list(etas.values())}, index=list("abcd"))
    found = measure.expected_phase(lines, grid)
    assert found.tolist() == list(etas) and found.index.tolist() == list("abcd")


def test_the_rival_has_its_borders_at_two_and_four():
    lines = measure.kappa_borders([2.0, 20.0], lambda_H=0.05, steps=50)
    assert (lines["catapult"] * lines["sigma"] ** 2 * 0.05).to_numpy() == pytest.approx(2)
    assert (lines["divergent"] / lines["catapult"]).to_numpy() == pytest.approx(2)
    assert (lines["decay"] * lines["sigma"] ** 2 * 0.05 * 50).to_numpy() == pytest.approx(-np.log(0.9))


@pytest.mark.slow
def test_diagram_has_each_point_once_and_the_runs_phase(digits, monkeypatch):
    """Cut into small ensembles, against one run trained alone."""
    monkeypatch.setattr(measure, "TOGETHER", 5)
    grid = measure.diagram(BASE, digits, sigmas=[0.1, 8.0, 3000.0], etas=[0.01, 0.05], seeds=2)
    assert len(grid) == 6 and set(grid["phase"]) <= set(OUTCOMES) and set(grid["agree"]) <= {0.5, 1.0}
    assert grid[grid["sigma"] == 3000.0]["phase"].tolist() == ["divergent"] * 2 and set(grid["plain"]) == {"stable"}
    alone = [
        nin.phases.classify(nin.train(BASE.replace(sigma=8.0, lr=0.05, seed=seed), data=digits).frame())
        for seed in (0, 1)
    ]
    (row,) = grid[(grid["sigma"] == 8.0) & (grid["lr"] == 0.05)].itertuples()
    assert row.phase == nin.phases.vote(alone) and row.agree == np.mean([phase == row.phase for phase in alone])


@pytest.mark.slow
def test_one_mode_of_a_smooth_network_decays_as_predicted(digits):
    table = measure.one_mode(BASE, digits, activations=["softplus"], sigmas=[0.8, 1.6], seeds=2)
    assert (table["tau"] / table["theory"]).to_numpy() == pytest.approx(1, abs=0.1)
    kappa = (1 - np.exp(-1 / table["tau"])).to_numpy().reshape(2, 2)
    assert np.log2(kappa[:, 1] / kappa[:, 0]) == pytest.approx(2, abs=0.15)


@pytest.mark.slow
def test_spikes_are_those_of_each_seeds_own_noise_scale(digits):
    """kappa_1 far below and far above 2, with rates measured at those noise scales; kappa_H beside it."""
    base = BASE.replace(steps=50, lr=0.05)
    rates = measure.critical_rates(base, digits, sigmas=np.geomspace(5, 500, 8), seeds=3, judges=128)
    assert (rates.groupby("seed")["rate"].apply(lambda r: r.iloc[0] / r.iloc[-1]) > 20).all()
    lam = nin.train([base.replace(seed=seed, steps=0) for seed in range(3)], data=digits).lambda_H
    found = measure.spikes(base, digits, rates, lambda_H=lam, kappas=[0.7, 8.0])
    assert found["kappa_1"].tolist() == [0, 1] and found.index.tolist() == [0.7, 8.0]

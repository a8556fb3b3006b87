"""Catches: a measured border that is not where runs begin to spike or diverge, and error tables that hide a failure."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import nin
from benchmarks import borders as benchmark
from nin.model.data import linear_teacher
from nin.model.losses import LOSSES
from nin.probes.curvature import critical_rate
from nin.training.config import RunConfig
from studies.phase_borders import losses, scores
from studies.phase_borders.measure import (
    CANDIDATES,
    Border,
    find_border,
    measure,
    noise_scales,
    outcomes_of,
    predictions,
    start,
)
from studies.phase_borders.networks import Case, cases


@pytest.fixture
def few_samples(monkeypatch):
    """Predictions from few trials, which cost the most of a measurement."""
    monkeypatch.setattr("studies.phase_borders.measure.SIZES", {"trials": 4, "judges": 32, "tolerance": 0.1})
    monkeypatch.setattr("studies.phase_borders.measure.PRODUCTS_ON", 16)


def test_border_of_a_known_threshold():
    points = 2.0 ** (np.arange(-9, 9) / 3)
    found = find_border(points[::-1], points[::-1] > 0.7)
    assert found.at == pytest.approx(2 ** (-1.5 / 3)) and found.error == pytest.approx(1 / 6)
    assert abs(math.log2(found.at / 0.7)) <= found.error
    holes = points > 0.7
    holes[-1] = False  # calm again above: a dead network has no spike
    assert find_border(points, holes) == found


def test_border_outside_the_grid():
    assert find_border([1.0, 2.0], [True, True]) == Border(0.0, 1.0)
    assert find_border([1.0, 2.0], [False, False]) == Border(2.0, math.inf)
    assert math.isnan(Border(0.0, 1.0).at) and math.isnan(Border(2.0, math.inf).error)
    with pytest.raises(ValueError, match="points has 2 and happens 1 values"):
        find_border([1.0, 2.0], [True])


@pytest.mark.slow
def test_linear_net_begins_at_kappa_2():
    """N = 300, eta_1 = 2 / lambda with lambda = sigma^2 (V + W): the onset lies within the grid step around it."""
    data = linear_teacher(target=0.0, n_train=128, n_test=16)
    config = RunConfig(
        dataset="linear_teacher", network="linear", widths=(300,), loss="mse", resample="step", batch_size=32,
        steps=50, law="rademacher", sigma=10.0, dtype="float64", curvature_pairs=1, eval_points=2,
    )  # fmt: skip
    noisy = start(Case("linear", "linear"), config, data)
    V, W = (w.detach().square().mean().item() for w in (noisy.network.layers[1].weight, noisy.niw))
    onset = 2 / (config.sigma**2 * (V + W))
    grid = onset * 2.0 ** ((np.arange(-4, 5) + 0.5) / 3)
    outcomes = outcomes_of([config.replace(lr=float(eta)) for eta in grid], data)
    found = find_border(outcomes["eta"], outcomes["spiked"])
    assert abs(math.log2(found.at / onset)) <= 1 / 3
    assert not outcomes["plain"].any()


@pytest.mark.slow
def test_names_of_cases_are_unique_and_their_layers_exist():
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names) >= 25
    for case in cases():
        if case.name == "width 512" or not case.available:
            continue
        data = case.data()
        noisy = start(case, case.config, data)
        outputs = noisy(data.x_train[:3])
        assert outputs.shape == (3, 10) and outputs.isfinite().all(), case.name


def test_tokens_are_attended_to():
    """A change of one row of the image changes what the others contribute: attention mixes tokens."""
    (case,) = [case for case in cases() if case.name == "transformer, MLP"]
    network = case.network()
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    swapped = x.unflatten(1, (8, 8)).flip(1).flatten(1)
    assert not torch.allclose(network(x), network(swapped), atol=1e-4)
    h = torch.randn(1, 4, 32)
    other = torch.cat([h[:, :3], -h[:, 3:]], 1)
    assert not torch.allclose(network.attention[0](h)[0, 0], network.attention[0](other)[0, 0])


@pytest.mark.slow
def test_a_case_from_end_to_end(few_samples):
    """One step gives the onset within a factor 2, and plain SGD's own onset is marked."""
    case = Case("small", "small", {"widths": (32,), "batch_size": 256}, plain=True)
    rows = measure(case, seeds=1, ratios=(0.1,))
    assert list(rows["sigma"] == 0) == [True, False] and list(rows["own"]) == [True, False]
    assert set(CANDIDATES) <= set(rows)
    error = np.log2(rows["onset"] / rows["one_step"]).abs()
    assert (error < 1).all() and not (rows["divergence"] <= rows["onset"]).any()


@pytest.mark.slow
def test_adam_has_no_curvature_candidates(monkeypatch):
    monkeypatch.setattr("studies.phase_borders.measure.SIZES", {"trials": 2, "judges": 8, "tolerance": 0.1})
    case = Case("adam", "optimiser", {"optimizer": "adam", "widths": (16,), "batch_size": 16})
    found = predictions(case, case.config.replace(sigma=10.0), nin.load_data("digits"))
    assert 0 < found["ahead_10"] <= 1.1 * found["one_step"] and math.isnan(found["kappa_H"])


@pytest.mark.slow
def test_noise_scales_lower_eta_1_by_their_ratio(monkeypatch):
    monkeypatch.setattr("studies.phase_borders.measure.JUDGES", 200)
    case, data = Case("small", "small", {"widths": (16,)}), nin.load_data("digits")
    (sigma,) = noise_scales(case, case.config, data, (0.2,))
    rates = [
        critical_rate(
            start(case, case.config, data), data.x_train, data.y_train, loss=LOSSES["cross_entropy"], batch_size=128,
            sigma=value, generator=torch.Generator().manual_seed(1), trials=8, judges=200,
        ).rate
        for value in (0.0, sigma)
    ]  # fmt: skip
    assert 0.2 / 1.6 < rates[1] / rates[0] < 0.2 * 1.6


def test_unreachable_noise_scales_are_an_error():
    case = Case("none", "none", {"widths": (16,)})
    with pytest.raises(ValueError, match=r"case='none': no noise scale lowers eta_1 to ratios=\(\)"):
        measure(case, seeds=1, ratios=())


def test_scores_of_known_errors():
    frame = pd.DataFrame(
        {
            "case": ["a", "a", "b", "b", "c"], "group": "g", "sigma": [1.0, 1.0, 2.0, 2.0, 3.0],
            "seed": [0, 1, 0, 1, 0], "own": False, "onset": [1.0, 2.0, 4.0, 8.0, np.nan],
            "exact": [1.0, 2.0, 4.0, 8.0, 1.0], "double": [2.0, 4.0, 8.0, 16.0, 1.0], "never": math.inf,
        }
    )  # fmt: skip
    names = ["exact", "double", "never"]
    found = scores.score(frame, names, generator=np.random.default_rng(0)).set_index("candidate")
    assert (found["count"] == 4).all() and (found["missed"] == 1).all()
    assert found.loc["exact", "error"] == 0 and found.loc["exact", "within"] == 1
    assert (
        found.loc["double", "signed"] == found.loc["double", "signed_low"] == -1 and found.loc["double", "within"] == 0
    )
    assert found.loc["never", "error"] == math.inf and found.loc["never", "within"] == 0
    settings = scores.by_setting(frame, names).set_index("case")
    assert settings.loc["a", "onset"] == pytest.approx(2**0.5) and settings.loc["a", "double"] == pytest.approx(8**0.5)


@pytest.mark.slow
def test_quick_benchmark_reports_and_writes_its_tables(tmp_path, few_samples):
    """Under MSE the catapult begins at the same kappa_H for all eta: sigma ~ eta^-1/2, far from the rival, -1."""
    text = benchmark.quick(tmp_path)
    assert "one_step" in text and "kappa_H" in text and "d ln sigma / d ln eta" in text
    columns = {"case", "group", "sigma", "seed", "own", "onset", "divergence", *CANDIDATES}
    assert columns <= set(pd.read_csv(tmp_path / benchmark.FILES["borders"]))
    control = pd.read_csv(tmp_path / benchmark.FILES["losses"])
    assert control["kappa_catapult"].between(1, 4).all()
    assert abs(losses.slopes(control, "catapult").mean + 0.5) < 0.15

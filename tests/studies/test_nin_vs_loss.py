"""Catches: a similarity that is not that of the curves, a curvature not of the loss, a rate of the wrong sign."""

import numpy as np
import pandas as pd
import pytest
import torch

from nin import RunConfig, train
from studies.nin_vs_loss.measure import curvature_clock, similarity, softmax_curvature
from studies.statistics import loglog_slope, mean_interval

BASE = RunConfig(widths=(16, 16), steps=300, batch_size=32, eval_points=20, activation="tanh", dtype="float64")


def test_softmax_curvature_is_the_hessian_trace_and_under_its_bound():
    generator = torch.Generator().manual_seed(0)
    outputs = 4 * torch.randn(200, 5, dtype=torch.float64, generator=generator)
    y = torch.randint(5, (200,), generator=generator)
    trace = softmax_curvature(outputs)
    hessian = torch.autograd.functional.hessian(lambda f: torch.nn.functional.cross_entropy(f[None], y[:1]), outputs[0])
    assert trace[0].item() == pytest.approx(hessian.trace().item())
    assert (trace <= 2 * torch.nn.functional.cross_entropy(outputs, y, reduction="none")).all()


def test_similarity_of_a_known_power_law(blobs):
    frame = train([BASE.replace(sigma=s) for s in (0.0, 2.0)], data=blobs).frame()
    plain = frame[frame["run"] == 0]
    loss = plain.set_index("step")["train_loss"]
    noisy = frame["run"] == 1
    frame.loc[noisy, "niw_norm"] = 3 * frame.loc[noisy, "step"].map(loss).interpolate() ** 0.4
    row = similarity(frame).iloc[0]
    assert row["correlation"] == pytest.approx(1) and row["exponent"] == pytest.approx(0.4)


def test_similarity_needs_the_unperturbed_run(blobs):
    frame = train([BASE.replace(sigma=0.0, steps=5), BASE.replace(seed=1, steps=5)], data=blobs).frame()
    with pytest.raises(ValueError, match=r"frame has no unperturbed run, sigma=0, of seed \[1\]"):
        similarity(frame)


def test_clock_reads_loss_curvature_and_rate(blobs):
    """Loss, rate and bound of the snapshots are those that training recorded."""
    runs = train(BASE.replace(sigma=0.5, law="rademacher", curvature_pairs=8), data=blobs, snapshots=[0, 100])
    clock = curvature_clock(runs, [0], [0, 100], blobs)
    assert clock["step"].tolist() == [0, 100]
    row = int(np.searchsorted(runs.steps, 0))
    assert clock["loss"].iloc[0] == pytest.approx(runs.curves["train_loss"][row, 0], rel=1e-9)
    assert clock["rate"].iloc[0] == pytest.approx(runs.kappa_avg[0], rel=1e-9)
    assert (clock["excess"] <= 1e-12).all()


def test_loglog_slope_and_interval():
    slope = loglog_slope(np.array([1, 2, 4, 8, np.nan]), np.array([5, 5 / 4, 5 / 16, 5 / 64, 1]))
    assert slope.value == pytest.approx(-2) and slope.stderr < 1e-9
    assert np.isnan(loglog_slope([1, 2], [1, 2]).value)
    interval = mean_interval(np.array([1.0, 2.0, 3.0, np.nan]))
    assert interval.mean == 2 and interval.half == pytest.approx(4.302653 / np.sqrt(3)) and interval.count == 3
    assert np.isnan(mean_interval([1.0]).half) and np.isnan(mean_interval([]).mean)
    assert isinstance(pd.Series([1.0, 2.0]).agg(mean_interval).half, float)

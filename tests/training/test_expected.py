"""Catches: an expected loss of other samples, noise or signs, an error bar that ignores pairing, a twin that has noise
or other batches, a spike of plain SGD that is called a catapult."""

import numpy as np
import pytest
import torch
from torch import nn

import nin
from nin import RunConfig, train
from nin.model.dataset import Dataset
from nin.model.noise import draw_noise
from nin.phases import classify, summarise
from nin.training import expected
from nin.training.ensemble import Ensemble
from nin.training.twins import twins

BASE = RunConfig(widths=(8, 8), steps=12, batch_size=16, lr=0.1, dtype="float64", eval_points=2, curvature_pairs=1)


def by_hand(noisy, config, data, loss):
    """The loss of each pair, with autograd-free torch code that shares nothing with the recorder but the draws."""
    index = [k % len(data.x_train) for k in range(256)]
    x, y = data.x_train[index].double(), data.y_train[index]
    eps = config.sigma * draw_noise(256, config.nodes, law=config.law, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return sum(loss(noisy(x, sign * eps), y) for sign in (1, -1)) / 2


@pytest.mark.parametrize("own", [None, lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))])
@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_expected_loss_is_the_mean_over_fixed_pairs(blobs, law, own):
    config = BASE.replace(sigma=2.0, law=law, layer=0 if own is None else "0")
    runs = train([config, config.replace(seed=1)], data=blobs, network=own, snapshots=(0, 12))
    loss = nn.CrossEntropyLoss(reduction="none")
    for run in range(2):
        start, end = (by_hand(runs.model(run, step), config, blobs, loss) for step in (0, 12))
        table = runs.table(run).set_index("step")
        assert table["expected_loss"][0] == pytest.approx(start.mean().item(), rel=1e-12)
        assert table["expected_loss"][12] == pytest.approx(end.mean().item(), rel=1e-12)
        ratio = end.mean() / start.mean()
        paired = (end - ratio * start).std() / start.mean() / 16
        assert table["ratio_stderr"][12] == pytest.approx(paired.item(), rel=1e-9)


def test_stated_error_is_that_of_other_samples_and_noise():
    """The scatter of the ratio over 60 sets of samples and draws, of one run."""
    config = BASE.replace(sigma=3.0, widths=(16,))
    data = nin.load_data("digits")
    runs = train(config, data=data, snapshots=(0, 12))
    start, end = (Ensemble([runs.model(0, step)]) for step in (0, 12))
    ratios, stated, one = [], [], torch.zeros(1, dtype=int)
    random = torch.Generator().manual_seed(1)
    for seed in range(60):
        order = torch.randperm(len(data.x_train), generator=random)
        shuffled = Dataset(data.x_train[order], data.y_train[order], data.x_test, data.y_test, 10, "shuffled")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(expected, "SEED", seed)
            measure = expected.ExpectedLoss([config], shuffled.to(torch.float64)).measure
        (before,), _ = measure(start, one, first=True)
        (after,), (error,) = measure(end, one, first=False)
        ratios.append(after / before)
        stated.append(error)
    assert np.std(ratios) == pytest.approx(np.mean(stated), rel=0.3)


def test_the_error_of_a_loss_that_explodes_does_not_overflow(blobs):
    """In float64, at steps whose losses have no finite square."""
    frame = train(BASE.replace(sigma=1e30, steps=30), data=blobs).frame().dropna(subset=["ratio_stderr"])
    exploded = frame[(frame["expected_loss"] > 1e160) & (frame["expected_loss"] < 1e300)]
    assert len(exploded) and (exploded["ratio_stderr"] < exploded["expected_loss"]).all()


def test_the_samples_span_a_sorted_training_set(blobs):
    order = blobs.y_train.repeat(8).argsort()
    x, y = blobs.x_train.repeat(8, 1)[order], blobs.y_train.repeat(8)[order]
    many = Dataset(x, y, blobs.x_test, blobs.y_test, 4, "sorted")
    shares = torch.bincount(expected.ExpectedLoss([BASE], many)._y) / 256
    assert shares == pytest.approx(torch.full((4,), 0.25), abs=0.01)


def test_a_twin_is_the_same_training_without_noise(blobs):
    """plain_spike against a run with no node at all, and shared by runs of one seed and lr."""
    configs = [BASE.replace(sigma=s, seed=seed, lr=lr) for s in (0.5, 20.0) for seed in (0, 1) for lr in (0.1, 4.0)]
    runs = train(configs, data=blobs)
    without = train([c.replace(nodes=0) for c in configs], data=blobs)
    for run in range(len(configs)):
        loss = without.table(run)["expected_loss"].dropna().to_numpy()
        assert runs.plain_spike[run] == pytest.approx(loss[1:].max() / loss[0], rel=1e-12)
    assert (runs.plain_spike == without.plain_spike).all()
    added, of = twins(configs)
    assert len(added) == 4 and all(c.sigma == 0 for c in added) and of == [8, 9, 10, 11] * 2
    assert twins([c.replace(sigma=0.0) for c in configs[:4]]) == ([], [0, 1, 2, 3])


def test_twins_leave_no_trace_in_the_results(blobs):
    """Networks, tables and the final state are those of the runs alone."""
    seen = []
    runs = train(
        BASE.replace(sigma=1.0, steps=60), data=blobs, snapshots=(3, 55), observe=lambda *a: seen.append(a[:2])
    )
    assert seen == [(0, 3), (0, 55)] and set(runs.networks) == {(0, 60)}
    assert len(runs.frame()["run"].unique()) == 1 and runs.diverged_at.shape == runs.plain_spike.shape == (1,)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "lr"), [(1, 0.01), (1, 0.001), (4, 0.001), (16, 0.001), (64, 0.01)])
def test_calm_runs_are_never_catapults(batch, lr, blobs):
    """sigma = .1, where nothing can happen; with the highest mini-batch as the rival, most of these would be."""
    base = BASE.replace(widths=(16, 16), sigma=0.1, lr=lr, batch_size=batch, steps=50, dtype="float32")
    frame = train([base.replace(seed=seed) for seed in range(100)], data=blobs).frame()
    found = summarise(frame)["phase"]
    assert (found == "decoupled").sum() >= 99
    bare = frame[["run", "step", "noisy_loss", "niw_norm"]]
    assert sum(classify(rows) != "decoupled" for _, rows in bare.groupby("run")) <= 2
    if batch <= 16:
        assert sum(r["noisy_loss"].max() > 1.05 * r["noisy_loss"].iloc[0] for _, r in bare.groupby("run")) > 30


@pytest.mark.slow
def test_the_linear_net_has_the_phases_of_theory():
    base = RunConfig(
        dataset="linear_teacher", n_train=256, network="linear", widths=(512,), loss="mse", lr=0.02, steps=60,
        batch_size=128, curvature_pairs=1, eval_points=2,
    )  # fmt: skip
    for kappas, caught in (((0.1, 0.5, 1.0), 0), ((2.5, 3.0, 5.0), 1)):
        configs = [base.replace(sigma=(k / 0.04) ** 0.5, seed=seed) for k in kappas for seed in range(8)]
        runs = train(configs, data=None)
        phases = [classify(runs.table(run), niw="noise_output") for run in range(len(configs))]
        assert np.mean([phase in ("catapult", "divergent") for phase in phases]) == caught

"""Catches: a similarity or a null that is not that of the curves, a verdict against its interval, a curvature not of
the loss, a rate of the wrong sign, an intervention that does not change what it should, an end before all is fitted."""

import numpy as np
import pandas as pd
import pytest
import torch

from nin import RunConfig, train
from nin.phases import fit_decay
from studies.nin_vs_loss import interventions, nulls
from studies.nin_vs_loss.fitted import until_fitted
from studies.nin_vs_loss.measure import (
    curvature_clock,
    decay_or_rate,
    local_rate,
    logit_curvature,
    similarity,
    softmax_curvature,
    why_not_exponential,
)
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


def test_bound_of_the_logits_holds_for_twice_the_loss_and_not_for_the_loss(blobs):
    runs = train(BASE.replace(sigma=1.0, steps=200, lr=0.2), data=blobs)
    bound = logit_curvature([runs.model(0)], blobs.x_train.double(), blobs.y_train)
    assert bound["excess"] <= 1e-12 and bound["half"] > 0


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


STEPS = np.unique(np.geomspace(1, 400, 40).round())


def curves(niw, seeds=3, noise=0.0):
    """Runs whose ln|W_NI| is niw(ln loss, t); the loss of each seed has its own steps in the logarithm."""
    rows = []
    for seed in range(seeds):
        draws = np.random.default_rng(seed)
        loss = -0.1 * np.sqrt(STEPS) + 0.3 * np.cumsum(draws.normal(size=len(STEPS)))
        W = niw(loss, STEPS) + noise * draws.normal(size=len(STEPS))
        rows.append(pd.DataFrame({"case": "a", "seed": seed, "step": STEPS, "niw_norm": np.exp(W),
                                  "loss": np.exp(loss)}))  # fmt: skip
    return pd.concat(rows)


def test_a_node_that_follows_the_loss_beats_all_nulls_and_a_clock_does_not():
    follows = nulls.similarities(curves(lambda loss, t: 0.3 * loss), by=["case"])
    assert follows["loss"].to_numpy() == pytest.approx(1) and follows["partial"].to_numpy() == pytest.approx(1)
    clock = nulls.similarities(curves(lambda loss, t: -0.2 * np.sqrt(t), noise=1e-3), by=["case"])
    said = nulls.verdicts(clock, by=["case"]).set_index("null")
    assert clock["-sqrt t"].min() > 0.999 and said.loc["-sqrt t", "verdict"] != "beats"
    assert said.loc["partial, other", "verdict"] == "ties with"
    gain = follows["loss"] - follows["other seed"]
    row = nulls.verdicts(follows, by=["case"]).set_index("null").loc["other seed"]
    assert row["mean"] == pytest.approx(gain.mean()) and row["half"] == pytest.approx(mean_interval(gain).half)
    assert row["verdict"] == ("beats" if gain.mean() > mean_interval(gain).half else "ties with")


def test_partial_correlation_is_that_of_the_precision_matrix():
    """Two routes: residuals of a regression, and the inverse of the correlation matrix."""
    table = curves(lambda loss, t: 0.3 * loss - 0.1 * np.log(t), noise=0.2)
    found = nulls.similarities(table, by=["case"])["partial"]
    for seed, run in table.groupby("seed"):
        t = run["step"]
        parts = [np.log(run["niw_norm"]), np.log(run["loss"]), np.sqrt(t), np.log1p(t)]
        P = np.linalg.inv(np.corrcoef(parts))
        assert found[seed] == pytest.approx(-P[0, 1] / np.sqrt(P[0, 0] * P[1, 1]), rel=1e-9)


def test_a_shuffled_loss_has_the_same_increments():
    loss = np.log(np.linspace(3, 1, 30)) ** 3
    mixed = nulls.shuffled(loss, np.random.default_rng(0))
    assert mixed[0] == loss[0] and mixed[-1] == pytest.approx(loss[-1]) and not np.allclose(mixed, loss)
    assert np.sort(np.diff(mixed)) == pytest.approx(np.sort(np.diff(loss)))
    with pytest.raises(ValueError, match="curves has one seed"):
        nulls.similarities(curves(lambda loss, t: loss, seeds=1), by=["case"])


def test_the_loss_of_the_nulls_is_that_of_the_unperturbed_run(blobs):
    frame = train([BASE.replace(sigma=s, steps=50) for s in (0.0, 2.0)], data=blobs).frame()
    table = nulls.against_loss(frame)
    plain = frame[frame["sigma"] == 0].set_index("step")["train_loss"].dropna()
    assert set(table["sigma"]) == {2.0} and table["loss"].tolist() == plain[table["step"]].tolist()
    with pytest.raises(ValueError, match=r"frame has no unperturbed run, sigma=0, of seed \[0\]"):
        nulls.against_loss(frame[frame["sigma"] > 0])


def test_one_exponential_is_accepted_and_two_are_not():
    t, draws = np.arange(0, 400, 4), np.random.default_rng(0)
    scatter = np.exp(0.01 * draws.normal(size=len(t)))
    assert why_not_exponential(fit_decay(t, np.exp(-t / 80) * scatter)) == ""
    two = 0.8 * np.exp(-t / 10) + 0.2 * np.exp(-t / 300)
    assert why_not_exponential(fit_decay(t, two * scatter)) == "several rates"
    assert why_not_exponential(fit_decay(t, scatter)) == "no decay"
    assert local_rate(t, np.exp(-t / 80), at=0.75) == pytest.approx(1 / 80)
    assert np.isnan(local_rate([0, 1], [1, 1], at=0.5))
    frame = pd.DataFrame({"resample": "epoch", "seed": 0, "step": t, "niw_norm": np.exp(-t / 80) * scatter,
                          "train_loss": two * scatter, "test_loss": scatter})  # fmt: skip
    table = decay_or_rate(frame).set_index("curve")
    assert table["fitted"].to_dict() == {"niw_norm": 1, "test_loss": 0, "train_loss": 0}
    assert table.loc["niw_norm", "tau"] == pytest.approx(80, rel=0.05) and np.isnan(table.loc["train_loss", "tau"])


@pytest.mark.slow
def test_training_ends_where_all_samples_are_right(blobs):
    """The step is that of `nin.train`: all right there, not all an epoch before."""
    base = BASE.replace(steps=600, lr=0.2)
    found = until_fitted(base, blobs, seeds=2)
    assert found["step"].between(2, 599).all() and (found["step"] % 2 == 0).all()
    for row in found.itertuples():
        config = base.replace(sigma=0.0, seed=row.seed, steps=int(row.step), eval_samples=64)
        ends = {s: train(config.replace(steps=s), data=blobs).frame()["train_accuracy"].iloc[-1]
                for s in (config.steps, config.steps - 2)}  # fmt: skip
        assert ends[config.steps] == 1 and ends[config.steps - 2] < 1
    assert until_fitted(base.replace(steps=2), blobs, seeds=2)["step"].isna().all()
    with pytest.raises(ValueError, match="seeds=1 must be at least 2"):
        until_fitted(base, blobs, seeds=1)


def test_label_noise_changes_that_fraction_of_labels(blobs):
    noisy = interventions.changed(blobs, interventions.Case(name="a", label_noise=0.25))
    assert (noisy.y_train != blobs.y_train).sum() == 16 and set(noisy.y_train.tolist()) == {0, 1, 2, 3}
    few = interventions.changed(blobs, interventions.Case(name="b", samples=20))
    assert torch.equal(few.x_train, blobs.x_train[:20]) and torch.equal(few.y_train, blobs.y_train[:20])


@pytest.mark.slow
def test_windows_are_those_of_training_until_the_change(blobs):
    """Unchanged: |W_NI| and losses are those that `nin.train` records; then a switch raises the loss at its step."""
    base = BASE.replace(sigma=2.0, steps=40, record_every=1, eval_samples=64)
    unchanged, slower, switch = (
        interventions.run(case, base, blobs, seeds=2, edges=[0, 10, 20, 30, 40], samples=64)
        for case in (interventions.Case(name="unchanged"), interventions.Case(name="slower", at=20, slower=4.0),
                     interventions.Case(name="switch", at=20, new_task=True))
    )  # fmt: skip
    runs = train([base.replace(sigma=s, seed=k) for s in (2.0, 0.0) for k in range(2)], data=blobs, snapshots=[15])
    norms = pd.DataFrame(runs.curves["niw_norm"], index=runs.steps)
    row = unchanged[(unchanged["step"] == 15) & (unchanged["seed"] == 1)].iloc[0]
    assert row["niw_norm"] == pytest.approx(norms.loc[15, 1]) and row["start"] == 10 and row["end"] == 20
    assert row["fall"] == pytest.approx(np.log(norms.loc[10, 1] / norms.loc[20, 1]))
    with torch.no_grad():
        outputs = [runs.model(run, 15).network(blobs.x_train.double()) for run in (1, 3)]
    expected = [float(torch.nn.functional.cross_entropy(f, blobs.y_train)) for f in outputs]
    assert row[["loss", "plain"]].tolist() == pytest.approx(expected)
    assert slower["step"].tolist() == [25, 25, 35, 35] and set(slower["eta"]) == {base.lr / 4}
    assert (slower["fall"].abs() < unchanged[unchanged["step"] > 20]["fall"].abs().to_numpy()).all()
    assert (switch["loss"].to_numpy() > unchanged[unchanged["step"] > 20]["loss"].to_numpy() + 0.2).all()
    with pytest.raises(ValueError, match=r"edges=\[0, 50\] must increase and end at 40"):
        interventions.run(interventions.Case(name="a"), base, blobs, seeds=2, edges=[0, 50])


def test_rates_solve_the_law_for_the_curvature():
    kappa, kappa_2, square, floor = 0.01, 0.02, 4.0, 0.004
    after = (1 - 2 * kappa + kappa_2**2) * square + floor
    table = pd.DataFrame({"step": [1], "start": [1], "end": [2], "eta": 0.1, "sigma": 2.0, "niw_norm": 2.0,
                          "fall": -0.5 * np.log(after / square), "kappa": kappa, "kappa_2": kappa_2, "floor": floor,
                          "jitter": 1e-6, "stderr": 0.0})  # fmt: skip
    row = interventions.rates(table).iloc[0]
    assert row["curvature"] == pytest.approx(kappa / 0.4) and row["rate"] == pytest.approx(kappa / 0.4, rel=0.02)
    assert row["bare"] < 0.97 * row["rate"] and row["error"] == pytest.approx(0.5e-3 / 0.4)
    assert len(interventions.resolved(interventions.rates(table))) == 1
    assert interventions.resolved(interventions.rates(table.assign(jitter=1.0))).empty


def test_collapse_tells_one_law_from_several():
    draws = np.random.default_rng(0)
    table = pd.DataFrame({"seed": 0, "case": np.repeat(["a", "b"], 50), "curvature": draws.lognormal(size=100)})
    table = table.assign(rate=table["curvature"], time=draws.lognormal(size=100), plain=1.0 + draws.random(100))
    table = table.assign(loss=table["rate"] * np.where(table["case"] == "a", 1, 5.0), trace=3 * table["rate"])
    found = interventions.collapse(table).set_index("predictor")
    assert found.loc["curvature", ["theory", "scatter", "offsets"]].tolist() == pytest.approx([0, 0, 1], abs=1e-9)
    assert found.loc["trace", "theory"] == pytest.approx(np.log(3)) and found.loc["trace", "scatter"] < 1e-9
    assert found.loc["loss", "offsets"] == pytest.approx(5) and found.loc["loss", "scatter"] > 0.5
    assert found.loc["time", "scatter"] == pytest.approx(table["rate"].map(np.log).std(), rel=0.1)

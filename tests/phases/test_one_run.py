"""Catches: a phase decided by the wrong number, NaN rows read as divergence."""

import numpy as np
import pandas as pd
import pytest

from nin import RunConfig, train
from nin.phases import classify, criteria, summarise

STEPS = np.concatenate([np.arange(51), np.arange(60, 1001, 10)])


def run(loss, niw):
    return pd.DataFrame({"step": STEPS, "noisy_loss": loss, "niw_norm": niw})


FALLING = np.exp(-STEPS / 300)
BUMP = np.exp(-((STEPS - 4) ** 2) / 8)


@pytest.mark.parametrize(
    ("phase", "loss", "niw"),
    [
        ("decoupled", FALLING, 1 - 0.05 * STEPS / 1000),
        ("decay", FALLING, np.exp(-STEPS / 500)),
        ("decay", FALLING * (1 + 0.04 * BUMP), np.exp(-STEPS / 500)),
        ("catapult", FALLING * (1 + 3 * BUMP), np.exp(-STEPS / 500) * (1 + BUMP)),
        ("catapult", FALLING * (1 + 3 * BUMP), np.ones(len(STEPS)) * (1 + BUMP)),
        ("divergent", np.where(STEPS < 20, np.exp(np.minimum(STEPS, 20)), np.inf), np.exp(STEPS / 9.0)),
        ("divergent", np.where(STEPS < 20, np.exp(np.minimum(STEPS, 20)), np.nan), np.ones(len(STEPS))),
        ("divergent", np.where(STEPS < 9, 1 + STEPS, np.log(10)), np.where(STEPS < 9, 1 + STEPS, 9)),
    ],
)
def test_phases_by_the_written_criteria(phase, loss, niw):
    assert classify(run(loss, niw)) == phase


def test_steps_that_were_not_measured_do_not_count():
    frame = run(FALLING, np.exp(-STEPS / 500))
    frame.loc[frame["step"] == 30, ["noisy_loss", "niw_norm"]] = np.nan
    assert classify(frame) == "decay"


def test_real_runs_pass_through_all_phases(blobs):
    """From no noise to far too much; and every label follows from the numbers that are handed out."""
    base = RunConfig(widths=(32, 32), steps=400, batch_size=32, lr=0.05, dtype="float32")
    frame = train([base.replace(sigma=s) for s in (0.01, 8.0, 60.0, 1e4)], data=blobs).frame()
    labels = [classify(rows) for _, rows in frame.groupby("run")]
    assert labels == ["decoupled", "decay", "catapult", "divergent"]


def test_linear_net_is_classified_by_its_noise_output():
    frame = run(FALLING, np.ones(len(STEPS))).assign(noise_output=-np.exp(-STEPS / 100))
    assert classify(frame) == "decoupled"
    assert classify(frame, niw="noise_output") == "decay"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"step": [0]}), "frame has no column noisy_loss, niw_norm"),
        (run(FALLING, FALLING)[:0], "frame is empty"),
        (pd.concat([run(FALLING, FALLING)] * 2), "frame holds several runs"),
        (run(np.full(len(STEPS), np.nan), FALLING), "frame has no row with both"),
        (run(FALLING - 0.5, FALLING), "noisy_loss=.* is negative"),
    ],
)
def test_bad_frames_are_named(frame, message):
    with pytest.raises(ValueError, match=message):
        criteria(frame)


def test_summary_has_one_row_a_run(blobs):
    base = RunConfig(widths=(16,), steps=60, batch_size=32, loss="mse", activation="softplus")
    table = summarise(train([base.replace(sigma=s) for s in (0.1, 3.0, 1e9)], data=blobs).frame())
    assert table["run"].tolist() == [0, 1, 2]
    assert table["phase"].iloc[2] == "divergent" and np.isnan(table["tau_train"].iloc[2])
    assert (table["tau_train"].iloc[:2] > 0).all()


def catapult_every(every):
    steps = np.arange(0, 1001)
    bump = np.exp(-((steps - 5) ** 2) / 8)
    loss, niw = np.exp(-steps / 300) * (1 + 3 * bump), np.exp(-steps / 500) * (1 + bump)
    whole = pd.DataFrame({"step": steps, "noisy_loss": loss, "niw_norm": niw})
    return whole[whole["step"] % every == 0]


def test_rows_too_far_apart_leave_a_doubt():
    """The same catapult with a row for every 1, 2, 10 and 50 steps."""
    found = {every: criteria(catapult_every(every)) for every in (1, 2, 10, 50)}
    assert [found[every].phase for every in found] == ["catapult", "catapult", "decay", "decay"]
    assert [found[every].doubt for every in (1, 2)] == ["", ""] and found[1].certainty > 0.99
    for every in (10, 50):
        assert found[every].doubt == f"nothing was measured between steps 0 and {every}, where a spike may lie"
        assert np.isnan(found[every].certainty)
    late = criteria(catapult_every(1).iloc[100:])
    assert late.doubt == "the record begins at step 100, and a spike before it would not be seen"
    assert criteria(run(FALLING, np.exp(-STEPS / 500))).doubt == ""

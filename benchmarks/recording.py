"""What does it cost to record, and what is saved by dropping members that diverged?"""

from unittest.mock import patch

import numpy as np

import nin
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.recording import Recorder

DEFAULT = nin.RunConfig()
MEMBERS = 16


def run() -> str:
    """Two tables."""
    return f"{recording()}\n\n{dropping()}"


def recording() -> str:
    configs = [DEFAULT.replace(sigma=0.1 * (k + 1)) for k in range(MEMBERS)]
    data = nin.load_data("digits")

    def everything() -> float:
        return seconds(lambda: nin.train(configs, data=data))

    def without_curves() -> float:
        with patch.object(Recorder, "record", lambda *_: None):
            return everything()

    def without_measurements() -> float:
        start = seconds(lambda: nin.train([config.replace(steps=0) for config in configs], data=data))
        return without_curves() - start

    taken = in_turn({"all": everything, "no curves": without_curves, "bare": without_measurements}, 5)
    rows = [
        ("curves: noisy loss, NIW, clean losses", spread(100 * (taken["all"] / taken["no curves"] - 1), 1), "<= 10"),
        ("and the curvatures at the start", spread(100 * (taken["all"] / taken["bare"] - 1), 1), ""),
    ]
    return (
        f"Recording at the default schedule (nin.RunConfig(), digits, {DEFAULT.steps} steps, {MEMBERS} members), in\n"
        "per cent of the time without: median of five rounds (smallest-largest).\n\n"
        + table(("recorded", "costs (%)", "asked"), rows)
    )


def dropping() -> str:
    base = DEFAULT.replace(steps=600, loss="mse", activation="linear", lr=0.002)
    calm = [base.replace(sigma=0.01 * (k + 1)) for k in range(24)]
    half = [config.replace(sigma=200.0 + k) if k % 2 else config for k, config in enumerate(calm)]
    data = nin.load_data("digits")
    last = int(np.nanmax(nin.train(half, data=data).diverged_at))
    taken = in_turn(
        {"calm": lambda: seconds(lambda: nin.train(calm, data=data)),
         "half": lambda: seconds(lambda: nin.train(half, data=data))}, 5
    )  # fmt: skip
    rows = [("half of 24 members diverge", last, spread(taken["half"] / taken["calm"]), "<= 0.65")]
    return (
        f"Dropping divergent members: width 128, batch 128, {base.steps} steps, against the same sweep without "
        "divergence.\n\n" + table(("sweep", "last divergence at step", "time", "asked"), rows)
    )

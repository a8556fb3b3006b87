"""What does recording cost, and how much time is saved by dropping members that diverged?"""

import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np

import nin
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.training.recorder import Recorder
from nin.training.start import kappa_avg, members

DEFAULT = nin.RunConfig()
MEMBERS, ROUNDS = 16, 5


def run() -> str:
    """Two tables."""
    return f"{recording()}\n\n{dropping()}"


def recording() -> str:
    configs = [DEFAULT.replace(sigma=0.1 * (k + 1)) for k in range(MEMBERS)]
    shares = np.array([one_training(configs) for _ in range(ROUNDS)])
    rows = [
        ("curves: noisy and expected loss, NIW, clean losses", spread(shares[:, 0], 1), "<= 15"),
        ("curvatures at the start: <H> and kappa_avg, once a group and seed", spread(shares[:, 1], 1), ""),
    ]
    return (
        f"Recording at the default schedule (nin.RunConfig(), digits, {DEFAULT.steps} steps, {MEMBERS} members), in\n"
        "per cent of the time of the steps: median of five trainings (smallest-largest).\n\n"
        + table(("recorded", "costs (%)", "goal"), rows)
    )


def one_training(configs: list[nin.RunConfig]) -> tuple[float, float]:
    """Time spent on curves, and on the start, in per cent of the time of the bare steps."""
    spent = {"curves": 0.0, "start": 0.0}

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments: object, **keywords: object) -> object:
            start = time.perf_counter()
            result = function(*arguments, **keywords)
            spent[name] += time.perf_counter() - start
            return result

        return call

    data = nin.load_data("digits")
    with (
        patch.object(Recorder, "record", timed("curves", Recorder.record)),
        patch("nin.training.loop.members", timed("start", members)),
        patch("nin.training.loop.kappa_avg", timed("start", kappa_avg)),
    ):
        total = seconds(lambda: nin.train(configs, data=data))
    steps = total - spent["curves"] - spent["start"]
    return 100 * spent["curves"] / steps, 100 * spent["start"] / steps


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
        "divergence.\n\n" + table(("sweep", "last divergence at step", "time", "goal"), rows)
    )

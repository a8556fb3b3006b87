"""What does recording cost, and how much time is saved by dropping members that diverged?"""

import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import nin
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.training.recorder import Recorder
from nin.training.start import kappa_avg, members

DEFAULT = nin.RunConfig()
MEMBERS, ROUNDS = 16, 5
STEPS, PAIRS = 1500, 3
OWN = {
    "64-128-128-10": (
        lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)), "0",
    ),
    "64-512-512-10": (
        lambda: nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)), "0",
    ),
    "two convolutions": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 10),
        ), "6",
    ),
}  # fmt: skip


def run() -> str:
    """Three tables."""
    return f"{recording()}\n\n{own_loop()}\n\n{dropping()}"


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


def own_loop() -> str:
    rows = []
    for name, (model, layer) in OWN.items():
        kinds = {"with": True, "without": False}
        loops = {kind: partial(one_loop, model, layer, record=kept) for kind, kept in kinds.items()}
        taken = in_turn(loops, PAIRS)
        rows.append((name, spread(100 * (taken["with"] / taken["without"] - 1), 1), "<= 5"))
    return (
        f"nin.Record in a loop over the digits, {STEPS} steps of 128 samples: CPU time above that of the loop alone,\n"
        "median of three pairs (smallest-largest).\n\n" + table(("network", "costs (%)", "goal"), rows)
    )


def one_loop(model: Callable[[], nn.Module], layer: str, *, record: bool) -> float:
    """CPU seconds of a plain training loop, with or without a record."""
    data = nin.load_data("digits")
    noisy = nin.inject(model(), layer, sigma=8.0)
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.05)
    begin = time.process_time()
    keep = nin.Record(noisy, optimizer, data.x_train, data.y_train, loss=F.cross_entropy) if record else None
    for _ in range(STEPS):
        batch = torch.randint(len(data.x_train), (128,))
        loss = F.cross_entropy(noisy(data.x_train[batch]), data.y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        if keep is not None:
            keep(loss)
        optimizer.step()
    return time.process_time() - begin


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

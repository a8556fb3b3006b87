"""How often is a calm run called a catapult, and a catapult missed?"""

import itertools
from unittest import mock

import numpy as np

import nin
from benchmarks.report import table
from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.phases import SPIKE, classify, criteria
from nin.probes.curvature import critical_rate
from nin.training import expected
from nin.training.start import build, with_node

CALM = nin.RunConfig(widths=(32, 32, 32), sigma=0.1, steps=50, eval_points=0, curvature_pairs=1, eval_samples=256)
BATCHES, RATES, SEEDS = tuple(2**k for k in range(10)), (1e-4, 1e-3, 1e-2), 100
CAUGHT = CALM.replace(widths=(64, 64, 64))
KAPPAS, SIGMAS, CAUGHT_SEEDS = (3.0, 4.0, 6.0), (20.0, 60.0), 20
TRUTH = 4096  # samples, repeated with other noise: sixteen times as many as the criterion sees
LINEAR = nin.RunConfig(
    dataset="linear_teacher", n_train=1024, network="linear", widths=(512,), loss="mse", lr=0.02, batch_size=128,
    steps=50, resample="step", eval_points=0, curvature_pairs=1,
)  # fmt: skip
SPIKED = ("catapult", "divergent")


def run() -> str:
    """Three tables."""
    return f"{calm()}\n\n{caught()}\n\n{linear()}"


def calm() -> str:
    """Runs in which nothing can happen, by batch size, over all learning rates."""
    data = nin.load_data("digits")
    rows = []
    for batch in BATCHES:
        labels = {"expected": [], "batches": [], "highest": []}
        for lr in RATES:
            runs = nin.train([CALM.replace(batch_size=batch, lr=lr, seed=seed) for seed in range(SEEDS)], data=data)
            for run in range(SEEDS):
                frame = runs.table(run)
                own = frame[["step", "noisy_loss", "niw_norm"]]
                labels["expected"].append(classify(frame))
                labels["batches"].append(classify(own))
                high = own["noisy_loss"].max() > SPIKE * own["noisy_loss"].iloc[0]
                labels["highest"].append("catapult" if high else "decoupled")
        wrong = {name: 100 * np.mean([label in SPIKED for label in found]) for name, found in labels.items()}
        rows.append((batch, len(labels["expected"]), *(f"{wrong[name]:.1f}" for name in labels)))
    head = ("batch", "runs", "expected loss (%)", "batch losses alone (%)", "rival: highest batch (%)")
    return (
        f"Calm runs called catapult or divergent: digits, width 32 x 3, sigma = .1, lr = {RATES}, {SEEDS} seeds each.\n"
        "Goal: < 1 %.\n\n" + table(head, rows)
    )


def caught() -> str:
    """Runs beyond the onset: each seed at lr = kappa_1 eta_1 / 2 of its own network."""
    data = nin.load_data("digits")
    rows, total = [], np.zeros(3, int)
    for batch, sigma in itertools.product((32, 128, 512), SIGMAS):
        configs = []
        for seed in range(CAUGHT_SEEDS):
            config = CAUGHT.replace(batch_size=batch, sigma=sigma, seed=seed, resample="step")
            found = critical_rate(
                with_node(config, build(config, data), data), data.x_train, data.y_train,
                loss=LOSSES[config.loss], batch_size=batch, generator=config.generator("curvature"),
                trials=16, judges=128,
            )  # fmt: skip
            configs += [config.replace(lr=kappa * found.rate / 2) for kappa in KAPPAS]
        runs, spiked = nin.train(configs, data=data), truly_spiked(configs, data)
        tables = [runs.table(run) for run in range(len(configs))]
        found = np.array([[classify(t) in SPIKED, classify(t[["step", "noisy_loss", "niw_norm"]]) in SPIKED]
                          for t in tables])  # fmt: skip
        missed = (spiked[:, None] & ~found).reshape(CAUGHT_SEEDS, len(KAPPAS), 2).sum(0)  # (kappas, 2)
        true = spiked.reshape(CAUGHT_SEEDS, len(KAPPAS)).sum(0)
        rows.append((batch, f"{sigma:g}", *(f"{a}, {b} of {n}" for (a, b), n in zip(missed, true, strict=True))))
        total += np.r_[missed.sum(0), true.sum()]
    head = ("batch", "sigma", *(f"kappa_1 = {k:g}" for k in KAPPAS))
    return (
        f"Catapults missed, from expected and from batch losses, of the runs whose loss on {TRUTH} samples spikes, of\n"
        f"{CAUGHT_SEEDS} seeds: width 64 x 3, noise re-drawn each step. Together {100 * total[0] / total[2]:.1f} and "
        f"{100 * total[1] / total[2]:.1f} % of {total[2]}. Goal: < 5 %.\n\n" + table(head, rows)
    )


def truly_spiked(configs: list[nin.RunConfig], data: Dataset) -> np.ndarray:
    """Whether the expected loss of each run spikes, on TRUTH samples with noise of their own."""
    with mock.patch.object(expected, "SAMPLES", TRUTH):
        runs = nin.train(configs, data=data)
    return np.array([criteria(runs.table(run)).spike > SPIKE for run in range(len(configs))])


def linear() -> str:
    """The wide linear net, whose phases are known exactly."""
    rows = []
    for kappas, what in (((0.1, 0.5, 1.0), "called a catapult"), ((2.5, 3.0, 5.0), "found")):
        configs = [
            LINEAR.replace(sigma=float((kappa / 0.04) ** 0.5), seed=seed) for kappa in kappas for seed in range(40)
        ]
        runs = nin.train(configs)
        labels = [classify(runs.table(run), niw="noise_output") for run in range(len(configs))]
        rows.append(
            (", ".join(f"{k:g}" for k in kappas), f"{sum(label in SPIKED for label in labels)} of {len(labels)}", what)
        )
    return "Linear net, N = 512, |B| = 128, kappa at the nominal V + W = 2.\n\n" + table(("kappa", "runs", ""), rows)

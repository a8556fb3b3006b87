"""How well does a thermometer read <H>, and what does it cost compared with a training step and with Lanczos?"""

from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.nn import functional as F

import nin
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds
from nin.probes.curvature import Thermometer, local_hessian
from nin.probes.curvature.hessian import LocalHessian
from nin.training.start import build
from studies.curvature_probe.follow import errors, follow

EVERY, SAMPLES, ROUNDS = 8, 256, 7
SEEDS = range(5, 8)  # the constants of the thermometer were chosen on others
SUBSETS = (128, 256, 512, 1024)
CASES = (
    ("digits", "tanh", {"dataset": "digits", "eval_samples": 1437}),
    ("digits", "softplus", {"dataset": "digits", "eval_samples": 1437}),
    ("Fashion-MNIST", "tanh", {"dataset": "fashion_mnist", "n_train": 2048, "eval_samples": 2048}),
    ("Fashion-MNIST", "softplus", {"dataset": "fashion_mnist", "n_train": 2048, "eval_samples": 2048}),
)


def run() -> str:
    """Two tables: errors of the readings and their error bars; cost of a step, and of Lanczos of equal accuracy."""
    accuracy, cost = [], []
    for name, activation, fields in CASES:
        base = nin.RunConfig(activation=activation, nodes=0, lr=0.1, steps=1200, **fields)
        try:
            data = nin.load_data(base.dataset, n_train=base.n_train)
        except OSError:
            continue  # no internet connection, and no copy in NIN_DATA
        runs = [follow(base.replace(seed=seed), data=data, exact_at=range(100, 1201, 100)) for seed in SEEDS]
        found = pd.concat([errors(run.spectrum) for run in runs])
        top, score = found[found["rank"] == 1]["error"], (found["value"] - found["exact"]).abs() / found["stderr"]
        accuracy.append(
            (
                f"{name}, {activation}",
                f"{100 * top.abs().median():.1f} %",
                f"{100 * found['error'].abs().median():.1f} %",
                f"{100 * top.median():+.1f} %",
                f"{(score < 1).mean():.2f}, {(score < 2).mean():.2f}",
            )
        )
        cost.append((f"{name}, {activation}", *_cost(base, data, runs[0].network, top.abs().median())))
    head = (
        f"64- or 784-128-128-128-10, lr 0.1, batch 128, {SAMPLES} samples every {EVERY} steps, steps 100 to 1200, "
        "seeds 5 to 7, against <H> on all training samples (2,048 of Fashion-MNIST). Medians of relative errors.\n\n"
    )
    titles = ("data, activation", "top 1 (goal 5 %)", "top 5 (10 %)", "bias of top 1", "within 1, 2 stderr")
    costs = ("data, activation", "with / plain step (goal 1.35)", "Lanczos / reading (10)", "Lanczos on", "its error")
    return head + table(titles, accuracy) + "\n\n" + table(costs, cost)


def _cost(base: nin.RunConfig, data: nin.Dataset, network: torch.nn.Module, error: float) -> tuple[str, ...]:
    x, y, loss = data.x_train.float(), data.y_train, F.cross_entropy
    layer = "layers.0"
    plain, probed = build(base, data), build(base, data)
    thermometer = Thermometer(probed, layer)

    def steps(model: torch.nn.Module, reading: bool) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(20 * EVERY):
            if reading and step % EVERY == 0:
                rows = torch.randint(len(x), (SAMPLES,))
                thermometer.read(x[rows], y[rows], loss=loss)
            rows = torch.randint(len(x), (base.batch_size,))
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()

    exact = torch.linalg.eigvalsh(local_hessian(network, layer, x, y, loss=loss)).max().item()
    size = next(
        (n for n in SUBSETS if np.median([_miss(network, x, y, n, exact, s) for s in range(20)]) <= error), None
    )
    size = SUBSETS[-1] if size is None else size
    missed = np.median([_miss(network, x, y, size, exact, seed) for seed in range(20)])
    fresh = Thermometer(network, layer)
    taken = in_turn(
        {
            "plain": partial(seconds, partial(steps, plain, False)),
            "probed": partial(seconds, partial(steps, probed, True)),
            "reading": partial(seconds, partial(fresh.read, x[:SAMPLES], y[:SAMPLES], loss=loss)),
            "lanczos": partial(seconds, partial(_lanczos, network, x[:size], y[:size])),
        },
        ROUNDS,
    )
    overhead, against = taken["probed"] / taken["plain"], taken["lanczos"] / taken["reading"]
    return f"{np.median(overhead):.2f}", f"{np.median(against):.0f}", f"{size} samples", f"{100 * missed:.1f} %"


def _miss(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, size: int, exact: float, seed: int) -> float:
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:size]
    return abs(_lanczos(network, x[rows], y[rows]) / exact - 1)


def _lanczos(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """The largest eigenvalue of <H> by scipy's eigsh to 1 %, computing five, as a thermometer does."""
    curvature = LocalHessian(network, "layers.0", x, y, loss=F.cross_entropy)

    def multiply(v: np.ndarray) -> np.ndarray:
        return curvature.product(torch.from_numpy(v.reshape(-1)).float()).double().numpy()

    operator = LinearOperator((curvature.d, curvature.d), matvec=multiply, dtype=np.float64)
    return float(eigsh(operator, k=5, which="LA", tol=1e-2, return_eigenvectors=False).max())

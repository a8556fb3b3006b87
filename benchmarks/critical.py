"""What do a critical rate and a prediction of the phase cost, in training steps, and how sure are they?"""

import time
from functools import partial

import numpy as np
import torch

import nin
from benchmarks.report import table
from benchmarks.timing import in_turn, spread
from nin.model.losses import cross_entropy
from nin.model.networks import MLP
from nin.probes.curvature import critical_rate

WIDTHS, SIGMA, LR, BATCH = (128, 512), (0.3, 10.0, 100.0), 0.05, 128
ROUNDS, STEPS = 7, 10


def run() -> str:
    """Cost over that of a step of SGD on the same network, and eta_1 with its error over as many generators."""
    rows = [_row(width, sigma) for width in WIDTHS for sigma in SIGMA]
    return (
        f"Digits, MLP of three hidden layers, ReLU, cross-entropy, lr {LR}, batch {BATCH}, one thread; processor time, "
        f"medians of {ROUNDS} rounds in turn with training steps. The same rounds give eta_1 with its scatter, and the "
        "standard error that it states.\n\n"
        + table(("width", "sigma", "eta_1", "scatter", "stderr", "steps: eta_1", "steps: predict"), rows)
    )


def _row(width: int, sigma: float) -> tuple[object, ...]:
    data = nin.load_data("digits")
    weights = torch.Generator().manual_seed(0)
    noisy = nin.inject(MLP(64, (width,) * 3, 10, generator=weights), "layers.0", sigma=sigma, generator=weights)
    generator, found = torch.Generator().manual_seed(1), []
    given = {"loss": cross_entropy, "batch_size": BATCH, "generator": generator}
    ask = {
        "step": lambda: _train(noisy, data),
        "rate": lambda: found.append(critical_rate(noisy, data.x_train, data.y_train, **given)),
        "predict": lambda: nin.predict(noisy, data.x_train, data.y_train, **given, lr=LR, steps=1500),
    }
    taken = in_turn({name: partial(_seconds, work) for name, work in ask.items()}, ROUNDS)
    step, rates = taken["step"] / STEPS, np.array([one.rate for one in found])
    error = np.median([one.stderr / one.rate for one in found])
    scatter = np.log(rates).std(ddof=1)
    costs = [spread(taken[name] / np.median(step), 1) for name in ("rate", "predict")]
    return (width, f"{sigma:g}", f"{np.median(rates):.3g}", f"{scatter:.2f}", f"{error:.2f}", *costs)


def _seconds(work) -> float:
    """Processor time on one thread."""
    torch.set_num_threads(1)
    start = time.process_time()
    work()
    return time.process_time() - start


def _train(noisy: nin.NoisyNetwork, data: nin.Dataset) -> None:
    """Training steps that leave the network almost where it is."""
    optimizer = torch.optim.SGD(noisy.parameters(), lr=1e-12)
    for _ in range(STEPS):
        index = torch.randint(len(data.x_train), (BATCH,))
        optimizer.zero_grad()
        cross_entropy(noisy(data.x_train[index]), data.y_train[index]).mean().backward()
        optimizer.step()

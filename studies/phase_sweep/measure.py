"""Measurements of notebook 02: predicted borders, the phase diagram, one mode of a frozen network, optimisers."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.nodes import NoisyNetwork
from nin.phases import criteria, summarise, vote
from nin.probes import prediction
from nin.probes.curvature import local_hessian, noise_averaged, top_mode
from nin.probes.prediction import KEPT
from nin.support.progress import ProgressBar
from nin.training.config import RunConfig
from nin.training.loop import train
from nin.training.start import build, with_node
from studies.statistics import Numbers

TOGETHER = 256  # runs of a diagram that train as one ensemble
KAPPA = {"catapult": 2.0, "divergent": 4.0}  # upper ends of decay and catapult in the wide linear net
LONGEST = 2000  # steps of a frozen network
Loss = Callable[[Tensor, Tensor], Tensor]
PLAIN = ("stable", "spikes", "diverges")


def at_the_start(config: RunConfig, data: Dataset) -> NoisyNetwork:
    """The network of a run with its node, before the first step."""
    return with_node(config, build(config, data), data)


def critical_rates(
    base: RunConfig, data: Dataset, *, sigmas: Numbers, seeds: int, trials: int = 8, judges: int = 64
) -> pd.DataFrame:
    """eta_1 of each network at each noise scale, before any training: seed, sigma, rate, stderr, decay, end.

    decay  -d ln|W_NI| / d eta at the start
    end    the learning rate from which runs diverge (`nin.probes.prediction.DIVERGENCE`)
    trials, judges   batches, and samples that judge each of them (`nin.probes.curvature.critical_rate`)
    """
    rows = []
    for seed in range(seeds):
        config = base.replace(seed=seed, sigma=1.0)
        noisy = at_the_start(config, data)
        found = prediction.rates(
            noisy, data.x_train, data.y_train, sigmas=list(map(float, sigmas)), loss=LOSSES[base.loss],
            batch_size=base.batch_size, generator=config.generator("curvature"), trials=trials, judges=judges,
        )  # fmt: skip
        rows += [
            (seed, float(sigma), one.rate, one.stderr, one.decay, end)
            for sigma, (one, end) in zip(sigmas, found, strict=True)
        ]
    return pd.DataFrame(rows, columns=["seed", "sigma", "rate", "stderr", "decay", "end"])


def borders(rates: pd.DataFrame, *, steps: int) -> pd.DataFrame:
    """The learning rate at which each phase begins, by noise scale: sigma, decay, catapult, divergent.

    Geometric means over seeds of -ln 0.9 / (steps decay), of eta_1, and of the rate of divergence.
    A run is decoupled below `decay`.
    """
    logs = pd.DataFrame(
        {
            "sigma": rates["sigma"],
            "decay": np.log(-np.log(KEPT) / (steps * rates["decay"].clip(lower=1e-12))),
            "catapult": np.log(rates["rate"]),
            "divergent": np.log(rates["end"]),
        }
    )
    return np.exp(logs.groupby("sigma").mean()).reset_index()


def diagram(
    base: RunConfig,
    data: Dataset,
    *,
    sigmas: Numbers,
    etas: Numbers,
    seeds: int,
    progress: bool = False,
) -> pd.DataFrame:
    """The measured phase at each point of a grid: lr, sigma, phase (of most seeds), agree, plain.

    agree  fraction of seeds with that phase;  plain: what plain SGD does by itself in most seeds
    """
    grid = [
        base.replace(lr=float(lr), seed=seed, sigma=float(s)) for lr in etas for seed in range(seeds) for s in sigmas
    ]
    parts = [grid[start : start + TOGETHER] for start in range(0, len(grid), TOGETHER)]
    bar = ProgressBar(parts, total=len(parts), progress=progress, desc=f"{len(grid)} runs", unit="part")
    runs = pd.concat([summarise(train(part, data=data).frame(), decays=False) for part in bar])
    rows = [
        (lr, sigma, phase := vote(cell["phase"]), (cell["phase"] == phase).mean(), _most(cell["plain"]))
        for (lr, sigma), cell in runs.groupby(["lr", "sigma"])
    ]
    return pd.DataFrame(rows, columns=["lr", "sigma", "phase", "agree", "plain"])


def expected_phase(lines: pd.DataFrame, grid: pd.DataFrame) -> pd.Series:
    """The phase that borders (as from `borders`) predict for each row (lr, sigma) of a grid, by interpolation."""
    logs = np.log(grid["sigma"])

    def above(phase: str) -> pd.Series:
        return np.log(grid["lr"]) >= np.interp(logs, np.log(lines["sigma"]), np.log(lines[phase]))

    kept = np.where(above("decay"), "decay", "decoupled")
    return pd.Series(np.select([above("divergent"), above("catapult")], ["divergent", "catapult"], kept), grid.index)


def spikes(base: RunConfig, data: Dataset, rates: pd.DataFrame, *, lambda_H: Numbers, kappas: Numbers) -> pd.DataFrame:
    """Fraction of seeds whose noisy loss spikes, by the value (index) of kappa_1, kappa_H and kappa_avg (columns).

    rates    as from `critical_rates`, for all seeds: a seed's sigma is that with 2 lr / eta_1(sigma) = kappa, or with
             lr decay(sigma) = kappa; the nearest of its noise scales if none has it
    lambda_H of each seed: its other sigma is sqrt(kappa / (lr lambda_H))
    """
    configs = []
    for kappa, (seed, rows) in itertools.product(kappas, rates.groupby("seed")):
        by_step, by_average = (
            np.exp(np.interp(np.log(kappa), np.log(np.maximum.accumulate(rising)), np.log(rows["sigma"])))
            for rising in (2 * base.lr / rows["rate"].to_numpy(), base.lr * rows["decay"].to_numpy())
        )
        by_hessian = np.sqrt(kappa / (base.lr * lambda_H[seed]))
        scales = by_step, by_hessian, by_average
        configs += [base.replace(seed=int(seed), sigma=float(sigma)) for sigma in scales]
    runs = train(configs, data=data)
    spiked = [criteria(runs.table(run)).spiked for run in range(len(configs))]
    index = pd.Index(kappas, name="kappa")
    return pd.DataFrame(np.reshape(spiked, (len(kappas), -1, 3)).mean(1), index, ["kappa_1", "kappa_H", "kappa_avg"])


def kappa_borders(sigmas: Numbers, *, lambda_H: float, steps: int) -> pd.DataFrame:
    """The borders of the rival, kappa_H = 2 and 4, in the form of `borders`; decay from kappa_H steps = -ln 0.9."""
    per_eta = np.asarray(sigmas) ** 2 * lambda_H
    limits = {"decay": -np.log(KEPT) / steps, **KAPPA}
    return pd.DataFrame({"sigma": sigmas} | {phase: limit / per_eta for phase, limit in limits.items()})


def one_mode(
    base: RunConfig,
    data: Dataset,
    *,
    activations: Sequence[str],
    sigmas: Numbers,
    seeds: int,
    eta: float = 0.5,
    amplitude: float = 0.05,
    samples: int = 256,
) -> pd.DataFrame:
    """The decay of W_NI along the top mode v of <H> while all other weights are frozen: activation, seed, sigma, tau,
    theory, of_hessian, of_mean.

    W_NI starts at amplitude v and follows plain SGD on `samples` training samples with re-drawn noise +-eps; tau is
    fitted until v.W_NI has fallen by e. theory = 1 / |ln(1 - eta sigma^2 lambda)| (NIN equation (9)) with lambda the
    noise-averaged curvature along v; of_hessian: the same with lambda_max of autograd's <H>, without the kinks of ReLU;
    of_mean: the same with the mean eigenvalue tr<H> / d, that of a random direction.

    eta, amplitude   our choice: eta sigma^2 lambda stays below 1, sigma amplitude below the scale of the activations
    """
    rows = []
    for activation, seed in itertools.product(activations, range(seeds)):
        config = base.replace(seed=seed, sigma=1.0, activation=activation)
        node = at_the_start(config, data).eval()
        x, y, loss = data.x_train[:samples], data.y_train[:samples], LOSSES[base.loss]
        mode, random = top_mode(node.network, node.layer, x, y, loss=loss), config.generator("curvature")
        mean = local_hessian(node.network, node.layer, x, y, loss=loss).diagonal().mean().item()
        averaged = partial(noise_averaged, node.network, node.layer, x, y, loss=loss, direction=mode.vector, pairs=48)
        for sigma in map(float, sigmas):
            lam, _ = averaged(amplitude=sigma * amplitude, generator=random)
            predicted = [-1 / np.log1p(-eta * sigma**2 * value) for value in (lam, mode.lam, mean)]
            node.niw.data = amplitude * mode.vector.view_as(node.niw)
            size = _sizes(node, mode.vector, x, y, loss, eta, sigma, random)
            tau = -1 / np.polyfit(np.arange(len(size)), np.log(size), 1)[0]
            rows.append((activation, seed, sigma, tau, *predicted))
    return pd.DataFrame(rows, columns=["activation", "seed", "sigma", "tau", "theory", "of_hessian", "of_mean"])


def _sizes(
    node: NoisyNetwork,
    vector: Tensor,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    eta: float,
    sigma: float,
    random: torch.Generator,
) -> list[float]:
    """v.W_NI before each step of SGD on W_NI alone, until it has fallen by e."""
    size = [float(vector @ node.niw.detach().flatten())]
    while size[-1] > size[0] / np.e and len(size) < LONGEST:
        eps = sigma * torch.randn(len(x), 1, generator=random)
        total = (loss(node(x, eps), y).mean() + loss(node(x, -eps), y).mean()) / 2
        (gradient,) = torch.autograd.grad(total, node.niw)
        node.niw.data -= eta * gradient
        size.append(float(vector @ node.niw.detach().flatten()))
    return size if size[-1] > 0 else size[:-1]


def optimisers(
    base: RunConfig, data: Dataset, *, changes: dict[str, dict], sigmas: Numbers, seeds: int
) -> pd.DataFrame:
    """The phases of several optimisers: optimiser, sigma, and the columns of `summarise`."""
    tables = []
    for name, change in changes.items():
        configs = [base.replace(**change, sigma=float(s), seed=seed) for seed in range(seeds) for s in sigmas]
        table = summarise(train(configs, data=data).frame(), decays=False)
        tables.append(table.assign(optimiser=name))
    return pd.concat(tables, ignore_index=True)


def _most(plain: pd.Series) -> str:
    """What plain SGD does in most seeds; a tie goes to the worse."""
    counts = plain.value_counts()
    return max(counts.index, key=lambda what: (counts[what], PLAIN.index(what) if what in PLAIN else -1))

"""The largest eigenvalues of <H> along a run, exact and by a thermometer, and the history of W_NI."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from nin.model.data import load_data
from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.nodes import NoisyNetwork
from nin.phases import SPIKE_WINDOW
from nin.probes.curvature import local_hessian, sharpness
from nin.probes.curvature.averaged import noise_averaged
from nin.probes.curvature.thermometer import Thermometer
from nin.support.arguments import check_count
from nin.support.progress import ProgressBar
from nin.training.batches import batches
from nin.training.config import DTYPES, RunConfig
from nin.training.ensemble import Ensemble
from nin.training.expected import ExpectedLoss, expected_steps
from nin.training.start import layer_names, members


@dataclass(frozen=True)
class Spectra:
    """What `follow` recorded.

    spectrum  one row per step, method ("exact", "thermometer") and rank (1: the largest): value, stderr (0 if exact)
    losses    one row per step: noisy_loss, niw_norm; up to step 50, expected_loss and ratio_stderr as in `nin.train`,
              which `nin.phases.criteria` reads; at the steps of exact_at, the clean train_loss; at those of sharp_at,
              sharpness, the largest eigenvalue of the Hessian in all parameters without noise, and noisy_sharpness,
              the same with the noise injection weights, for one draw of the noise
    niw       W_NI before each update (steps + 1, nodes, d); empty without a node
    network   the trained network
    """

    config: RunConfig
    spectrum: pd.DataFrame
    losses: pd.DataFrame
    niw: Float[Tensor, "steps nodes d"]
    network: nn.Module


def follow(
    config: RunConfig,
    *,
    data: Dataset | None = None,
    network: Callable[[], nn.Module] | None = None,
    exact_at: Iterable[int] = (),
    sharp_at: Iterable[int] = (),
    ranks: int = 5,
    every: int | None = 8,
    samples: int = 256,
    progress: bool = False,
    **thermometer: float,
) -> Spectra:
    """Train one run in a plain loop and measure the largest eigenvalues of <H> at its node's layer along the way.

    config    the run; nodes=0 follows the network without a node
    data, network    user-defined, as in `nin.train`
    exact_at  steps at which <H> (`local_hessian`) and the clean loss are computed, on all eval_samples
    sharp_at  steps at which the sharpness is computed
    ranks     number of eigenvalues kept, the largest first
    every     steps between readings of the thermometer, which is warmed up before step 0; None: no thermometer
    samples   samples per reading, from shuffled passes through the data that are independent of the training batches
    thermometer    further arguments of `Thermometer`

    Weights, batches and noise are those of `nin.train`, bit for bit the same with and without a thermometer. A run
    ends at the first loss that is not finite.
    Raises ValueError as `nin.train` does, and for ranks, every or samples < 1.
    """
    check_count("ranks", ranks)
    check_count("samples", samples)
    if every is not None:
        check_count("every", every)
    data = load_data(config.dataset, n_train=config.n_train) if data is None else data
    (model,), _ = members([config], data, network)
    data = data.to(DTYPES[config.dtype], "cpu")
    plain = model.network if isinstance(model, NoisyNetwork) else model
    layer, loss, x, y = layer_names(config, plain)[0], LOSSES[config.loss], data.x_train, data.y_train
    kind, options = {
        "sgd": (torch.optim.SGD, {"momentum": config.momentum}),
        "adam": (torch.optim.Adam, {}),
    }[config.optimizer]
    optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, **options)
    meter = None if every is None else Thermometer(plain, layer, seed=config.seed, **thermometer)
    passes = _passes(len(x), min(samples, len(x)), config.generator("thermometer"))
    exact_at, sharp_at = ({int(step) for step in steps} for steps in (exact_at, sharp_at))
    fixed = slice(config.eval_samples)
    kept = model.draw(len(x[fixed])) if isinstance(model, NoisyNetwork) else None
    history = (config.steps + 1, *model.niw.flatten(1).shape) if kept is not None else (0, 0, 0)
    expected, judged_at = ExpectedLoss([config], data), expected_steps(SPIKE_WINDOW)
    spectrum, losses, niw = [], [], x.new_empty(history)  # allocated at once: a copy per step would fragment the heap
    bar = ProgressBar(range(config.steps + 1), total=config.steps, progress=progress, desc="following", unit="step")
    for step, (index, eps) in zip(bar, batches(config, len(x)), strict=False):
        if meter is not None and step % every == 0:
            for rows in itertools.islice(passes, 1 if step else meter.memory):  # warm before the first step
                reading = meter.read(x[rows], y[rows], loss=loss)
            spectrum += _rows(step, "thermometer", reading.eigenvalues, reading.stderr, ranks)
        noise = () if eps is None else (config.sigma * eps.to(x),)
        value = loss(model(x[index], *noise), y[index]).mean()
        row = {"step": step, "noisy_loss": value.item()}
        if noise:
            niw[step] = model.niw.detach().flatten(1)
            row["niw_norm"] = niw[step].norm().item()
        if step in judged_at:
            (row["expected_loss"],), (row["ratio_stderr"],) = expected.measure(
                Ensemble([model]), torch.zeros(1, dtype=torch.long), first=step == 0
            )
        finite = math.isfinite(row["noisy_loss"])
        if step in exact_at and finite:
            exact = torch.linalg.eigvalsh(local_hessian(plain, layer, x[fixed], y[fixed], loss=loss).double()).flip(0)
            spectrum += _rows(step, "exact", exact, torch.zeros_like(exact), ranks)
            with torch.no_grad():
                row["train_loss"] = loss(plain(x[fixed]), y[fixed]).mean().item()
        if step in sharp_at and finite:
            row["sharpness"] = sharpness(plain, x[fixed], y[fixed], loss=loss).lam
            if noise:
                row["noisy_sharpness"] = sharpness(model, x[fixed], y[fixed], kept, loss=loss).lam
        losses.append(row)
        if step == config.steps or not finite:
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    columns = ["step", "noisy_loss", "niw_norm", "expected_loss", "ratio_stderr", "train_loss", "sharpness",
               "noisy_sharpness"]  # fmt: skip
    return Spectra(
        config=config,
        spectrum=pd.DataFrame(spectrum, columns=["step", "method", "rank", "value", "stderr"]),
        losses=pd.DataFrame(losses).reindex(columns=columns),
        niw=niw[: len(losses)],
        network=model,
    )


def errors(spectrum: pd.DataFrame) -> pd.DataFrame:
    """Each exact value with the latest reading of the same rank: exact, value, stderr, error = value / exact - 1."""
    exact, read = (
        spectrum[spectrum["method"] == method].drop(columns="method").sort_values("step")
        for method in ("exact", "thermometer")
    )
    exact = exact.drop(columns="stderr").rename(columns={"value": "exact"})
    both = pd.merge_asof(exact, read, on="step", by="rank").dropna(subset=["value"])
    return both.assign(error=both["value"] / both["exact"] - 1).reset_index(drop=True)


def at_rest(
    model: nn.Module,
    layer: str,
    x: Float[Tensor, " n *shape"],
    y: Shaped[Tensor, "n ..."],
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    amplitudes: Iterable[float],
    readings: int = 80,
    samples: int = 256,
    seed: int = 0,
) -> pd.DataFrame:
    """The largest eigenvalue of <H> of a network that does not train, read by thermometers of several amplitudes A.

    Columns: amplitude; read, stderr: the thermometer's largest eigenvalue after all readings; averaged,
    averaged_stderr: the noise-averaged curvature (`noise_averaged`) measured directly along its eigenvector; autograd:
    v.<H>v along the same vector from exact second derivatives, which miss the kinks of ReLU.
    """
    check_count("readings", readings)
    rows = []
    for amplitude in amplitudes:
        meter = Thermometer(model, layer, amplitude=amplitude, memory=readings // 2, seed=seed)
        passes = _passes(len(x), min(samples, len(x)), torch.Generator().manual_seed(seed))
        for rows_read in itertools.islice(passes, readings):
            reading = meter.read(x[rows_read], y[rows_read], loss=loss)
        v = reading.vectors[0].to(x)
        averaged = noise_averaged(model, layer, x, y, loss=loss, direction=v, amplitude=amplitude)
        exact = v @ local_hessian(model, layer, x, y, loss=loss) @ v
        rows.append((amplitude, reading.eigenvalues[0].item(), reading.stderr[0].item(), *averaged, exact.item()))
    return pd.DataFrame(rows, columns=["amplitude", "read", "stderr", "averaged", "averaged_stderr", "autograd"])


def _passes(count: int, size: int, generator: torch.Generator) -> Iterator[Int[Tensor, " size"]]:
    """Batches of indices from endless shuffled passes; the remainder of a pass begins the next batch."""
    left = torch.empty(0, dtype=torch.long)
    for _ in itertools.count():
        left = torch.cat([left, torch.randperm(count, generator=generator)])
        while len(left) >= size:
            yield left[:size]
            left = left[size:]


def _rows(step: int, method: str, values: Float[Tensor, " k"], stderr: Float[Tensor, " k"], ranks: int) -> list[tuple]:
    pairs = zip(values[:ranks].tolist(), stderr[:ranks].tolist(), strict=True)
    return [(step, method, rank, value, error) for rank, (value, error) in enumerate(pairs, start=1)]

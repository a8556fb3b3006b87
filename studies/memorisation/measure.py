"""Networks that are trained on partly wrong labels, with fixed, re-drawn or no noise, and what is read on the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.noise import draw_noise
from nin.probes.memorisation import MemorisationMeter
from nin.support.progress import ProgressBar
from nin.support.threads import threads, threads_for
from nin.training.config import RunConfig
from nin.training.ensemble import CHUNK, Ensemble
from nin.training.start import build, with_node
from studies.labels import flipped

HELD_OUT = 0.1  # of the training samples: the usual tenth
LABELS, SPLIT = 1, 2  # random streams of a seed that the library's configs do not have


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run on partly wrong labels.

    fraction  of the training labels that are wrong
    sigma     noise scale of the nodes; 0: none
    resample  "fixed": one draw for each sample; "epoch": re-drawn every epoch
    held_out  whether a tenth of the training samples, with its wrong labels, is kept for validation
    seed      of weights, batch order, noise, wrong labels and the held-out tenth
    """

    fraction: float
    sigma: float = 1.0
    resample: Literal["fixed", "epoch"] = "fixed"
    held_out: bool = False
    seed: int = 0


def steps_of(steps: int, points: int) -> list[int]:
    """Step 0, log-spaced steps from 10, and the last."""
    return sorted({0, steps, *np.geomspace(10, steps, points).round().astype(int).tolist()})


def follow(
    runs: Sequence[Run],
    base: RunConfig,
    data: Dataset,
    *,
    points: int = 32,
    network: Callable[[], nn.Module] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train all runs as one ensemble; a row for each run and recorded step: the fields of the run, and

    niw, rise, stderr, turned   as `nin.probes.memorisation.MeterReading`; niw relative to its start, NaN for sigma = 0
    node0, ...                  |W_m| of each node
    train_loss, test_loss       clean forward passes, without noise; train_loss over all training labels, wrong ones too
    test_accuracy, fitted       fraction of test samples that are classified, and of wrong labels that are reproduced
    valid_loss, valid_accuracy  of the held-out tenth, NaN without one

    base: widths, layer, nodes, niw_std, lr, batch_size and steps of all runs; its dataset, sigma and seed are not used.
    Raises ValueError if a run diverges.
    """
    team = _Team(runs, base, data, network)
    recorded, tables = set(steps_of(base.steps, points)), []
    largest = base.batch_size * max(p.numel() for p in team.ensemble.parameters.values())
    bar = {"total": base.steps, "progress": progress, "desc": f"{len(runs)} runs", "unit": "step"}
    with threads(threads_for(largest)):
        for step in ProgressBar(range(base.steps + 1), **bar):
            if step in recorded:
                tables.append(team.record(step))
            if step < base.steps:
                team.step()
    return pd.concat(tables, ignore_index=True)


class _Team:
    """The state of runs that train together."""

    def __init__(
        self, runs: Sequence[Run], base: RunConfig, data: Dataset, network: Callable[[], nn.Module] | None
    ) -> None:
        self.runs, self.base, self.data = runs, base, data
        configs = [base.replace(sigma=run.sigma, seed=run.seed) for run in runs]
        stack = [with_node(config, build(config, data, network), data, network) for config in configs]
        self.ensemble = Ensemble(stack)
        self.optimizer = torch.optim.SGD(list(self.ensemble.parameters.values()), lr=base.lr)
        labels = [_labels(run, data) for run in runs]
        self.y = torch.stack([y for y, _ in labels])  # (K, n)
        self.wrong = torch.stack([wrong for _, wrong in labels])
        self.held = torch.stack([_held_out(run, len(data.x_train)) for run in runs])
        keys = [(run.seed, run.held_out, run.resample) for run in runs]
        unique = list(dict.fromkeys(keys))
        first = [keys.index(key) for key in unique]
        self._streams = [_batches(configs[k], runs[k], (~self.held[k]).nonzero()[:, 0]) for k in first]
        self._stream_of = torch.tensor([unique.index(key) for key in keys])
        self._sigma = torch.tensor([run.sigma for run in runs])[:, None, None]
        self._meters = [MemorisationMeter() for _ in runs]

    def step(self) -> None:
        drawn = [next(stream) for stream in self._streams]
        index = torch.stack([index for index, _ in drawn])[self._stream_of]  # (K, batch)
        eps = torch.stack([eps for _, eps in drawn]).float()[self._stream_of]  # (K, batch, nodes)
        x, y = self.data.x_train[index], self.y.gather(1, index)
        self.ensemble.backward(x, y, self._sigma * eps, loss=self.base.loss)
        self.optimizer.step()

    def record(self, step: int) -> pd.DataFrame:
        loss, guess = self._look(self.data.x_train, self.y)
        held, fits = self.held, guess == self.y
        test_loss, test_guess = self._look(self.data.x_test, self.data.y_test.expand(len(self.runs), -1))
        columns = {
            "train_loss": _mean(loss, ~held),
            "test_loss": test_loss.mean(1),
            "test_accuracy": (test_guess == self.data.y_test).double().mean(1),
            "fitted": _mean(fits.double(), self.wrong & ~held),
            "valid_loss": _mean(loss, held),
            "valid_accuracy": _mean(fits.double(), held),
        }
        self._check(step, columns["train_loss"])
        table = pd.DataFrame([asdict(run) for run in self.runs])
        measured = {name: values.numpy() for name, values in columns.items()}
        return pd.concat([table.assign(step=step, **measured), pd.DataFrame(self._read(step))], axis=1)

    def _check(self, step: int, loss: Float[Tensor, " K"]) -> None:
        for run, value in zip(self.runs, loss.tolist(), strict=True):
            if not np.isfinite(value):
                raise ValueError(f"{run} diverged at step {step} or before; lower lr={self.base.lr} or sigma.")

    def _read(self, step: int) -> list[dict[str, float]]:
        """One row for each run: the meter's reading and the norms of its nodes."""
        norms = torch.linalg.vector_norm(self.ensemble.niw.detach().flatten(2).double(), dim=2).numpy()  # (K, nodes)
        rows = []
        for run, meter, values in zip(self.runs, self._meters, norms, strict=True):
            reading = meter.enter(step, values)
            niw = reading.norm / meter.readings[0].norm if run.sigma else np.nan
            row = {"niw": niw, "rise": reading.rise, "stderr": reading.stderr, "turned": reading.turned}
            rows.append(row | {f"node{m}": value for m, value in enumerate(values)})
        return rows

    def _look(
        self, x: Float[Tensor, "n ..."], y: Int[Tensor, "K n"]
    ) -> tuple[Float[Tensor, "K n"], Int[Tensor, "K n"]]:
        """Losses and guesses of all runs for all samples, without noise."""
        losses, guesses = [], []
        for part_x, part_y in zip(x.split(CHUNK), y.split(CHUNK, dim=1), strict=True):
            outputs = self.ensemble(part_x.expand(len(self.runs), *part_x.shape))  # (K, chunk, classes)
            losses.append(LOSSES[self.base.loss](outputs, part_y).double())
            guesses.append(outputs.argmax(-1))
        return torch.cat(losses, 1), torch.cat(guesses, 1)


def _labels(run: Run, data: Dataset) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    return flipped(data.y_train, run.fraction, classes=data.classes, generator=_generator(run, LABELS))


def _held_out(run: Run, samples: int) -> Bool[Tensor, " n"]:
    held = torch.zeros(samples, dtype=torch.bool)
    if run.held_out:
        held[torch.randperm(samples, generator=_generator(run, SPLIT))[: round(HELD_OUT * samples)]] = True
    return held


def _generator(run: Run, stream: int) -> torch.Generator:
    entropy = np.random.SeedSequence([run.seed, stream, 11]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(entropy))


def _batches(
    config: RunConfig, run: Run, pool: Int[Tensor, " pool"]
) -> Iterator[tuple[Int[Tensor, " batch"], Float[Tensor, "batch nodes"]]]:
    """Endless batches of samples of the pool, and their eps / sigma; each epoch leaves out a remainder."""
    order, noise = config.generator("order"), config.generator("noise")
    eps = None
    while True:
        if eps is None or run.resample == "epoch":
            eps = draw_noise(int(pool.max()) + 1, config.nodes, law=config.law, generator=noise)
        shuffled = pool[torch.randperm(len(pool), generator=order)]
        for start in range(0, len(pool) - config.batch_size + 1, config.batch_size):
            index = shuffled[start : start + config.batch_size]
            yield index, eps[index]


def _mean(values: Float[Tensor, "K n"], of: Bool[Tensor, "K n"]) -> Float[Tensor, " K"]:
    """Mean over the samples that count, NaN if none does."""
    return torch.where(of, values, 0).sum(1) / of.sum(1)

"""The expected noisy loss of an ensemble's members, on samples and noise that never change."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nin.model.dataset import Dataset
from nin.support.precision import matching, widened
from nin.training.batches import draw_for_layers
from nin.training.config import DTYPES, RunConfig
from nin.training.objective import Objective
from nin.training.updates import Stack

SAMPLES = 256  # each with +eps and -eps; calm runs then stay below a spike of 1.05 (`python -m benchmarks phases`)
SEED = 0  # of the noise, the same for all runs


def expected_steps(last: int) -> list[int]:
    """The steps up to `last` at which a spike is looked for: each one at first, then a fifth further each time.

    Of 308 spikes that all steps up to 50 show, these 21 miss five, two of them above 1.3: late steps of plain SGD.

    >>> expected_steps(50)
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 19, 22, 26, 31, 37, 44, 50]
    """
    steps = [0]
    while steps[-1] < last:
        steps.append(min(steps[-1] + max(1, steps[-1] // 5), last))
    return steps


def spread_evenly(samples: int, count: int) -> Int[Tensor, " samples"]:
    """Numbers of `samples` samples, spread evenly over `count`; each of them several times if there are fewer."""
    numbers = torch.arange(samples)
    return numbers * count // samples if count >= samples else numbers % count


def ratio_error(
    losses: Float[np.ndarray, "*K samples"], start: Float[np.ndarray, "*K samples"]
) -> Float[np.ndarray, "*K"]:
    """The standard error of mean losses / mean start, from the scatter of losses / mean - start / mean over samples."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean, begin = losses.mean(-1, keepdims=True), start.mean(-1, keepdims=True)
        scale = np.maximum(mean, np.finfo(float).tiny)  # so that squares of large losses do not overflow
        away = losses / scale - start / begin
        return np.asarray(away.std(-1, ddof=1) / np.sqrt(losses.shape[-1]) * (scale / begin)[..., 0])


class ExpectedLoss:
    """Measures E_(x,eps) loss, the noisy loss that a mini-batch samples, for runs still in an ensemble.

    The estimate is the mean over SAMPLES pairs of a training sample and a draw eps / sigma, taken with both signs, so
    that terms odd in eps cancel. Samples (spread evenly over the training set, repeated if there are fewer) and draws
    are the same for all runs and steps: a change of the estimate is a change of the network.
    """

    def __init__(self, configs: Sequence[RunConfig], data: Dataset, objective: Objective | None = None) -> None:
        self.configs, self.loss = configs, objective or Objective(configs[0].loss)
        count = len(data.x_train)
        index = spread_evenly(SAMPLES, count).to(data.x_train.device)
        self._x, self._y = data.x_train[index], data.y_train[index]
        self._draws = {
            config.law: draw_for_layers(config, SAMPLES, torch.Generator().manual_seed(SEED))
            for config in configs
            if config.nodes
        }
        self._start = np.full((len(configs), SAMPLES), np.nan)

    def measure(
        self, ensemble: Stack, alive: Int[Tensor, " K"], *, first: bool
    ) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        """The expected loss (K,) of the runs `alive`, and the standard error of its ratio to that of the first call.

        The error comes from the scatter over samples of loss / mean - (loss / mean at the start), sample by sample.
        """
        runs = alive.numpy()
        losses = self._losses(ensemble, [self.configs[run] for run in runs]).numpy(force=True)  # (K, samples)
        if first:
            self._start[runs] = losses
        start = self._start[runs]
        with np.errstate(over="ignore"):
            return losses.mean(1), ratio_error(losses, start)

    @torch.no_grad()
    def _losses(self, ensemble: Stack, configs: Sequence[RunConfig]) -> Float[Tensor, "K samples"]:
        """The loss of each pair, averaged over +eps and -eps, in float64."""
        sizes = ensemble.chunks(len(self._x))
        chunks = zip(self._x.split(sizes), self._y.split(sizes), strict=True)
        if not configs[0].nodes:
            return torch.cat([self._chunk(ensemble, x, y, None) for x, y in chunks], 1)
        like = torch.empty((), dtype=DTYPES[configs[0].dtype], device=self._x.device)  # x may be integers
        eps = matching(torch.stack([config.sigma * self._draws[config.law] for config in configs]), like)
        parts = [
            (self._chunk(ensemble, x, y, noise) + self._chunk(ensemble, x, y, -noise)) / 2
            for (x, y), noise in zip(chunks, eps.split(sizes, dim=1), strict=True)
        ]
        return torch.cat(parts, 1)

    def _chunk(
        self, ensemble: Stack, x: Tensor, y: Tensor, noise: Float[Tensor, "K chunk nodes"] | None
    ) -> Float[Tensor, "K chunk"]:
        outputs = ensemble(x.expand(len(ensemble), *x.shape), noise)  # (K, chunk, outputs)
        return widened(self.loss(outputs, y.expand(len(ensemble), *y.shape)))

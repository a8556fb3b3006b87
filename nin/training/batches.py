"""Which samples a run sees at each step, and with which noise: a function of its config alone."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from nin.model.dataset import Dataset
from nin.model.noise import draw_noise
from nin.support.precision import matching
from nin.support.randomness import own_randomness
from nin.training.config import DTYPES, RunConfig

AHEAD = 32  # steps whose samples are gathered at once: one call instead of many
AHEAD_BYTES = 2**22  # the most memory that these samples may take


def batches(
    config: RunConfig, samples: int
) -> Iterator[tuple[Int[Tensor, " batch"], Float[Tensor, "batch nodes"] | None]]:
    """Yield a run's endless batches: sample indices (batch,) and eps / sigma (batch, nodes), None if nodes=0.

    The noise of several layers stands side by side, (batch, layers x nodes).

    Every epoch is a new permutation cut into full batches; the remainder of samples / batch_size is left out.
    """
    order, noise = config.generator("order"), config.generator("noise")

    def draw(count: int) -> Float[Tensor, "count nodes"]:
        return draw_for_layers(config, count, noise)

    eps = draw(samples) if config.nodes and config.resample == "fixed" else None
    while True:
        permutation = torch.randperm(samples, generator=order)
        if config.nodes and config.resample == "epoch":
            eps = draw(samples)
        for start in range(0, samples - config.batch_size + 1, config.batch_size):
            index = permutation[start : start + config.batch_size]
            if config.nodes and config.resample == "step":
                yield index, draw(len(index))
            else:
                yield index, None if eps is None else eps[index]


def draw_for_layers(config: RunConfig, count: int, generator: torch.Generator) -> Float[Tensor, "count _"]:
    """eps / sigma of all layers that have nodes, side by side: (count, layers x nodes)."""
    draws = [draw_noise(count, config.nodes, law=config.law, generator=generator) for _ in config.layers]
    return draws[0] if len(draws) == 1 else torch.cat(draws, 1)


class StackedBatches:
    """The batches of K runs, drawn once for all runs that share seed, law and resampling, several steps ahead.

    augment  changes the samples of a batch (batch, ...), whose number it must keep; what it draws from the global
             generators of torch, NumPy and Python follows from the run's seed and the step
    """

    def __init__(
        self, configs: Sequence[RunConfig], data: Dataset, augment: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.configs, self.data, self.augment = configs, data, augment
        self._dtype = DTYPES[configs[0].dtype]
        keys = [(c.seed, c.law, c.resample) for c in configs]
        unique = list(dict.fromkeys(keys))
        self._streams = [batches(configs[keys.index(key)], len(data.x_train)) for key in unique]
        self._augmenting = [configs[keys.index(key)].generator("augmentation") for key in unique]
        self._stream_of = torch.tensor([unique.index(key) for key in keys])
        batch = data.x_train[0].nbytes * configs[0].batch_size * len(unique)
        self._ahead = min(max(AHEAD_BYTES // batch, 1), AHEAD)
        self._next = self._ahead
        self.keep(torch.arange(len(configs)))

    def keep(self, alive: Int[Tensor, " K"]) -> None:
        """From now on, yield only the batches of these runs, given by their indices among all runs."""
        self._members = len(alive)
        self._stream = self._stream_of[alive].to(self.data.x_train.device)  # (K,)
        sigma = torch.tensor([self.configs[run].sigma for run in alive], dtype=torch.float64)
        self._sigma = sigma[:, None, None]  # (K, 1, 1)

    def next(
        self,
    ) -> tuple[Shaped[Tensor, "K batch ..."], Shaped[Tensor, "K batch ..."], Float[Tensor, "K batch nodes"] | None]:
        """The next batch: x (K, batch, d), y (K, batch, ...), eps (K, batch, nodes) or None without a node."""
        if self._next == self._ahead:
            self._draw()
        step, self._next = self._next, self._next + 1
        x, y = self._spread(self._x[step], self._stream), self._spread(self._y[step], self._stream)
        if self._noise is None:
            return x, y, None
        like = torch.empty((), dtype=self._dtype, device=x.device)  # x may be integers
        return x, y, matching(self._sigma * self._spread(self._noise[step], self._stream.cpu()), like)

    def _draw(self) -> None:
        """Draw the next steps of all streams: (steps, streams, batch, ...)."""
        drawn = [[next(stream) for stream in self._streams] for _ in range(self._ahead)]
        index = torch.stack([torch.stack([index for index, _ in step]) for step in drawn])  # (steps, streams, batch)
        rows = index.flatten().to(self.data.x_train.device)
        self._x = self.data.x_train.index_select(0, rows).unflatten(0, index.shape)
        self._y = self.data.y_train.index_select(0, rows).unflatten(0, index.shape)
        if self.augment is not None:
            self._x = torch.stack([torch.stack(list(map(self._augmented, x, self._augmenting))) for x in self._x])
        without_node = drawn[0][0][1] is None
        self._noise = None if without_node else torch.stack([torch.stack([eps for _, eps in step]) for step in drawn])
        self._next = 0

    def _augmented(self, x: Shaped[Tensor, "batch ..."], generator: torch.Generator) -> Shaped[Tensor, "batch ..."]:
        with own_randomness(int(torch.randint(2**62, (), generator=generator))):
            found = self.augment(x.clone())
        if not isinstance(found, Tensor) or len(found) != len(x) or found.dtype != x.dtype:
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"augment returned {what} for samples of {x.dtype} {tuple(x.shape)}; it must return as many samples of "
                "the same type."
            )
        return found

    def _spread(self, values: Shaped[Tensor, "streams ..."], stream: Int[Tensor, " K"]) -> Shaped[Tensor, "K ..."]:
        """From one entry per stream to one per run: a view if all runs share one stream."""
        if len(values) == 1:
            return values.expand(self._members, *values.shape[1:])
        return values[stream]

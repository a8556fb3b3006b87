"""Which samples a run sees at each step, and with which noise: a function of its config alone."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nin.config import RunConfig
from nin.data import Dataset
from nin.nodes import draw_noise


def batches(config: RunConfig, samples: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield a run's endless batches: sample indices (batch,) and eps / sigma (batch, nodes), None if nodes=0.

    Every epoch is a new permutation cut into full batches; what remains of samples / batch_size is left out.
    """
    order, noise = config.generator("order"), config.generator("noise")

    def draw(count: int) -> Tensor:
        return draw_noise(count, config.nodes, law=config.law, generator=noise)

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


class StackedBatches:
    """The batches of K runs, drawn once for all runs that share seed, law and resampling."""

    def __init__(self, configs: Sequence[RunConfig], data: Dataset) -> None:
        self.data = data
        keys = [(c.seed, c.law, c.resample) for c in configs]
        unique = list(dict.fromkeys(keys))
        self._stream = torch.tensor([unique.index(key) for key in keys])  # (K,)
        self._streams = [batches(configs[keys.index(key)], len(data.x_train)) for key in unique]
        self._sigma = torch.tensor([c.sigma for c in configs], dtype=torch.float64)[:, None, None]

    def next(self, alive: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The next batch of the runs still alive: x (K, batch, d), y (K, batch, ...), eps (K, batch, nodes) or None."""
        index, noise = zip(*(next(stream) for stream in self._streams), strict=True)
        index = torch.stack(index).to(self.data.x_train.device)  # (streams, batch)
        x, y = self._spread(self.data.x_train[index], alive), self._spread(self.data.y_train[index], alive)
        if noise[0] is None:
            return x, y, None
        return x, y, (self._sigma[alive] * self._spread(torch.stack(noise), alive)).to(x)

    def _spread(self, values: Tensor, alive: Tensor) -> Tensor:
        """From one entry a stream to one a run: a view where all share a stream."""
        if len(values) == 1:
            return values.expand(len(alive), *values.shape[1:])
        return values[self._stream[alive].to(values.device)]

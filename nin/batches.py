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
        self.configs, self.data = configs, data
        keys = [(c.seed, c.law, c.resample) for c in configs]
        unique = list(dict.fromkeys(keys))
        self._streams = [batches(configs[keys.index(key)], len(data.x_train)) for key in unique]
        self._stream_of = torch.tensor([unique.index(key) for key in keys])
        self.keep(torch.arange(len(configs)))

    def keep(self, alive: Tensor) -> None:
        """From now on, yield the batches of these runs, by their indices among all."""
        self._members = len(alive)
        self._stream = self._stream_of[alive].to(self.data.x_train.device)  # (K,)
        sigma = torch.tensor([self.configs[run].sigma for run in alive], dtype=torch.float64)
        self._sigma = sigma[:, None, None]

    def next(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The next batch: x (K, batch, d), y (K, batch, ...), eps (K, batch, nodes) or None without a node."""
        drawn, noise = zip(*(next(stream) for stream in self._streams), strict=True)
        index = torch.cat(drawn).to(self.data.x_train.device)
        x, y = (self._spread(part.index_select(0, index)) for part in (self.data.x_train, self.data.y_train))
        if noise[0] is None:
            return x, y, None
        eps = self._spread(torch.cat(noise), self._stream.cpu())
        return x, y, (self._sigma * eps).to(x)

    def _spread(self, values: Tensor, stream: Tensor | None = None) -> Tensor:
        """From (streams * batch, ...) to (K, batch, ...): a view where all runs share one stream."""
        values = values.unflatten(0, (len(self._streams), -1))
        if len(self._streams) == 1:
            return values.expand(self._members, *values.shape[1:])
        return values[self._stream if stream is None else stream]

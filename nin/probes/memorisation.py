"""A memorisation meter: nodes of fixed noise, whose weights grow when a network fits labels sample by sample.

Noise that is drawn once for each sample is a feature that identifies the sample and says nothing about any other. As
long as a network learns what samples have in common, |W_NI| decays; when it fits single samples, the noise pays, and
|W_NI| turns upward. No held-out data are needed, but a sample must keep its noise through shuffling and augmentation:

    noisy = nin.inject(model, layer, sigma=1.0, nodes=4, generator=generator)
    noise, meter = FixedNoise(noisy, len(dataset)), MemorisationMeter()
    loader = DataLoader(Indexed(dataset), batch_size=32, shuffle=True)
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.05)
    for epoch in range(epochs):
        for index, x, y in loader:
            optimizer.zero_grad()
            cross_entropy(noisy(x, noise(index)), y).backward()
            optimizer.step()
        if meter.read(epoch, noisy).turned:
            break

Choose sigma as about an eighth of the norm of what enters the layer: a weaker node turns later. Notebook 11 measures
when it turns before, with, or after the test loss, and where it misleads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from nin.model.nodes import NoisyNetwork
from nin.model.passing import Noise
from nin.support.arguments import check_count, check_kind, check_number
from nin.support.precision import widened


class Indexed(torch.utils.data.Dataset):
    """A dataset whose items begin with their index: (index, x, y) instead of (x, y), whatever x is augmented to."""

    def __init__(self, dataset: torch.utils.data.Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple:
        item = self.dataset[index]
        return (index, *item) if isinstance(item, tuple | list) else (index, item)


class FixedNoise(nn.Module):
    """eps of each sample, drawn once: `noise(index)` is that of the samples of a batch, to pass to `noisy(x, ...)`.

    noisy    the network with nodes: gives sigma, number of nodes, law, layers, and the generator that draws
    samples  number of training samples

    noise(index)  (batch,) integers -> (batch, nodes), or a mapping by layer for several layers. The table is a buffer:
    it moves with `.to(device)` and is kept in `state_dict`, without which a run that is resumed would draw other noise.
    Raises ValueError for samples < 1, and for an index that is not an integer tensor of values in [0, samples).
    """

    def __init__(self, noisy: NoisyNetwork, samples: int) -> None:
        super().__init__()
        check_kind("noisy", noisy, NoisyNetwork, "a network with a node, from nin.inject")
        check_count("samples", samples)
        drawn = noisy.draw(samples)
        self.samples, self._layers = samples, tuple(drawn) if isinstance(drawn, Mapping) else ()
        for place, eps in enumerate(drawn.values() if self._layers else [drawn]):
            self.register_buffer(f"eps{place}", eps)  # (samples, nodes)

    def forward(self, index: Shaped[Tensor, " batch"]) -> Noise:
        whole = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
        if not whole or (index.numel() and not 0 <= int(index.min()) <= int(index.max()) < self.samples):
            raise ValueError(
                f"index={index!r} must be integers from 0 to {self.samples - 1}, the places of the batch's samples in "
                "the training set; wrap the dataset in Indexed to get them from a DataLoader."
            )
        found = [eps[index.to(eps.device)] for eps in self.buffers()]  # (batch, nodes) each
        return dict(zip(self._layers, found, strict=True)) if self._layers else found[0]


@dataclass(frozen=True)
class MeterReading:
    """|W_NI| at one step, and how far it is above the lowest reading up to then.

    norm    geometric mean of |W_m| over the nodes m
    lowest  step of the lowest norm so far
    rise    mean over nodes of ln |W_m| - ln |W_m(lowest)|
    stderr  standard error of the rise, from its scatter over nodes; NaN for a single node
    turned  whether rise > tolerance and rise > errors * stderr, now or at an earlier step
    """

    step: int
    norm: float
    lowest: int
    rise: float
    stderr: float
    turned: bool


class MemorisationMeter:
    """Reads |W_NI| along training and reports the turn: the first step at which it has risen above its lowest value.

    tolerance  smallest rise of ln |W_NI| that counts; .05: ours, above the rise on clean labels of the digits (at most
               .04) and of MNIST in notebook 11; Fashion-MNIST's clean labels rise by more
    errors     standard errors over the nodes that a rise must exceed; 2: ours. Four nodes or more give an error worth
               using; a single node has none, and then the tolerance alone decides
    The rise is meaningful for fixed noise only: re-drawn noise does a random walk around its floor.
    Raises ValueError for a negative tolerance or errors, for norms that are not positive and finite, for another number
    of nodes than before, and for a step that is not later than the last.
    """

    def __init__(self, *, tolerance: float = 0.05, errors: float = 2.0) -> None:
        check_number("tolerance", tolerance)
        check_number("errors", errors)
        self.tolerance, self.errors = tolerance, errors
        self.readings: list[MeterReading] = []
        self._lowest: tuple[int, np.ndarray] | None = None

    @property
    def turn(self) -> int | None:
        """The step of the first reading that has turned; None if none has."""
        return next((reading.step for reading in self.readings if reading.turned), None)

    def read(self, step: int, noisy: NoisyNetwork) -> MeterReading:
        """Read the present |W_m| of all nodes, in all layers that have some; the network is not changed."""
        return self.enter(step, node_norms(noisy))

    def enter(self, step: int, norms: Float[np.ndarray, " nodes"]) -> MeterReading:
        """Add norms that were measured elsewhere; steps must come in order, each with the same nodes."""
        norms = np.asarray(norms, dtype=float)
        if not np.isfinite(norms).all() or (norms <= 0).any():
            raise ValueError(f"norms={norms} at step {step} must be positive and finite; did the run diverge?")
        if self._lowest is not None and norms.shape != self._lowest[1].shape:
            raise ValueError(f"norms has shape {norms.shape}, and had {self._lowest[1].shape}; read the same nodes.")
        if self.readings and step <= self.readings[-1].step:
            raise ValueError(f"step={step} must be above {self.readings[-1].step}, the last one; use a new meter.")
        logs = np.log(norms)
        if self._lowest is None or logs.mean() < self._lowest[1].mean():
            self._lowest = step, logs
        lowest, start = self._lowest
        rises = logs - start
        rise, count = float(rises.mean()), len(rises)
        stderr = float(rises.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        above = rise > self.tolerance and not rise <= self.errors * stderr
        turned = above or bool(self.readings and self.readings[-1].turned)
        self.readings.append(MeterReading(step, float(np.exp(logs.mean())), lowest, rise, stderr, turned))
        return self.readings[-1]


def node_norms(noisy: NoisyNetwork) -> Float[np.ndarray, " nodes"]:
    """|W_m| of each node m, those of several layers one after the other."""
    weights = noisy.niw.values() if isinstance(noisy.niw, Mapping) else [noisy.niw]
    norms = [torch.linalg.vector_norm(widened(niw.detach().flatten(1)), dim=1).cpu() for niw in weights]
    return torch.cat(norms).numpy()

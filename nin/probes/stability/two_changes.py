"""How strongly the layers of a network respond to two changes of its input: D_k, G_k and R_k = D_k / G_k."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nin.model.evaluating import evaluating
from nin.model.views import Forward, moved
from nin.probes.watching import watched_layers, watching
from nin.support.arguments import check_choice, check_count
from nin.support.devices import find_device
from nin.support.precision import matching, widest

INPUT = "input"  # layer 0
COLUMNS = ["layer", "depth", "D", "D_stderr", "G", "G_stderr", "R", "R_stderr"]
GROUPS = 5  # groups of samples, whose medians give the error of a median
COORDINATES = 2048  # number whose medians are computed at once

Chunk = tuple[Tensor, Tensor, Tensor]  # x (count, ...); deformed, noisy (draws, count, ...)
Chunks = Callable[[], Iterable[Chunk]]  # the same chunks in each call


@dataclass(frozen=True, kw_only=True)
class Options:
    """How sensitivities are measured, whatever the two changes are; `sensitivities` explains each option."""

    layers: Sequence[str] | None
    estimator: str
    channel_mean: bool
    batch_norm: str
    chunk: int
    device: torch.device | str | None

    def __post_init__(self) -> None:
        check_choice("estimator", self.estimator, ("mean", "median"))
        check_choice("batch_norm", self.batch_norm, ("auto", "running", "batch"))
        check_count("chunk", self.chunk)


def compare(
    model: nn.Module,
    x: Shaped[Tensor, "samples ..."],
    deformed: Shaped[Tensor, "draws samples ..."],
    noisy: Shaped[Tensor, "noises samples ..."],
    *,
    layers: Sequence[str] | None = None,
    estimator: Literal["mean", "median"] | str = "mean",
    channel_mean: bool = False,
    batch_norm: Literal["auto", "running", "batch"] | str = "auto",
    chunk: int = 64,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
) -> pd.DataFrame:
    """Sensitivities of a network's layers to any two changes x' = deformed and x'' = noisy of samples of any shape.

        D_k = < |f_k(x') - f_k(x)|^2 > / < |f_k(x) - f_k(z)|^2 >,   G_k the same with x''       (arXiv 2210.01506)

    Arguments, table and errors are those of `nin.probes.stability.sensitivities`, which draws x' and x'' itself.
    """
    model = moved(model, forward, x)
    for name, changed in (("deformed", deformed), ("noisy", noisy)):
        if changed.shape[1:] != x.shape or changed.shape != deformed.shape or len(changed) < 1:
            raise ValueError(
                f"{name} of shape {tuple(changed.shape)} must be (draws, {', '.join(map(str, x.shape))}): every sample "
                "of x, changed as many times in deformed as in noisy."
            )
    options = Options(
        layers=layers, estimator=estimator, channel_mean=channel_mean, batch_norm=batch_norm, chunk=chunk, device=device
    )

    def chunks() -> Iterable[Chunk]:
        return zip(x.split(chunk), deformed.split(chunk, 1), noisy.split(chunk, 1), strict=True)

    return measure(model, x, chunks, len(deformed), options)


def measure(model: nn.Module, x: Tensor, chunks: Chunks, draws: int, options: Options) -> pd.DataFrame:
    """The table of `compare` from the chunks of x with that many draws, one chunk in memory at a time."""
    if len(x) < 2:
        raise ValueError(f"x of {len(x)} samples: the distance between samples needs at least 2; use a few hundred.")
    model = _settled(model, x, options)
    reader = _Reader(model, draws, options, _device(model, x))
    if options.estimator == "median":
        found = {name: _median(reader.outputs_of(name, chunks)) for name in reader.names(x[:2])}
    else:
        found = {name: _mean(*values) for name, values in reader.squares(x.split(options.chunk), chunks).items()}
    rows = [(name, depth, *values) for depth, (name, values) in enumerate(found.items())]
    return pd.DataFrame(rows, columns=COLUMNS)


class _Reader:
    """Runs a model batch by batch and reads f_k, (samples, features), of the input and of each layer."""

    def __init__(self, model: nn.Module, draws: int, options: Options, device: torch.device) -> None:
        self.model, self.draws, self.device = model, draws, device
        self.layers, self.channel_mean = options.layers, options.channel_mean
        self.called: set[str] = set()  # the layers of the first batch, and so of all
        if INPUT in watched_layers(model, self.layers):
            raise ValueError(
                f"model has a layer named {INPUT!r}, the name of the network's input in the table: rename it, or pass "
                "other layers."
            )

    def read(self, batches: Iterable[Tensor], of: Callable[[str, Tensor], Any]) -> Iterator[dict[str, Any]]:
        """For each batch {layer: of(layer, f_k)}, the input first.

        `of` is called while the batch passes through the network, so that only one f_k is in memory at a time.
        Raises ValueError for a layer that some batches call and others do not.
        """

        called: set[str] = set()

        def see(name: str, values: Tensor) -> Any:
            f = self._flat(name, values)
            if f is None:
                return None
            called.add(name)
            return of(name, f)

        with watching(self.model, self.layers, see) as run:
            for batch in batches:
                called.clear()
                batch = batch.to(self.device)
                read = {INPUT: see(INPUT, batch)} | run(batch)
                self.called = self.called or set(called)
                if some := sorted(self.called ^ called):
                    raise ValueError(
                        f"layer {some[0]!r} is called for some batches of samples and not for others, so that there "
                        "are no averages over all: name other layers."
                    )
                yield {name: value for name, value in read.items() if value is not None}

    def names(self, x: Tensor) -> list[str]:
        """The layers that are read, in the order of their calls."""
        (read,) = self.read([x], lambda name, f: True)
        return list(read)

    def squares(self, clean: Sequence[Tensor], chunks: Chunks) -> dict[str, list[NDArray]]:
        """|f(x') - f(x)|^2 and |f(x'') - f(x)|^2 (draws, samples), and |f(x) - <f>|^2 (1, samples), by layer."""
        sums: dict[str, Tensor] = {}
        for part in self.read(clean, lambda name, f: f.sum(0, dtype=widest(f))):
            for name, value in part.items():
                sums[name] = sums[name].add_(value) if name in sums else value
        samples, start = sum(map(len, clean)), 0
        means = {name: value / samples for name, value in sums.items()}
        # Made before the passes: what a pass leaves behind would lie between the outputs that it frees, as holes.
        kept = {name: [np.empty((rows, samples)) for rows in (self.draws, self.draws, 1)] for name in means}

        def distances(name: str, f: Tensor) -> bool:
            f, deformed, noisy = self._parts(f)
            changes = deformed - f, noisy - f, (f - matching(means[name], f))[None]
            for whole, change in zip(kept[name], changes, strict=True):
                whole[:, start : start + len(f)] = change.square().sum(-1, dtype=widest(change)).cpu()
            return True

        for x, _ in zip(clean, self.read(map(_together, chunks()), distances), strict=True):
            start += len(x)
        return kept

    def outputs_of(self, layer: str, chunks: Chunks) -> tuple[Tensor, Tensor, Tensor]:
        """f(x) (samples, d), f(x') and f(x'') (draws, samples, d) of one layer."""

        def keep(name: str, f: Tensor) -> list[Tensor] | None:
            return [part.cpu() for part in self._parts(f.clone())] if name == layer else None

        read = [part[layer] for part in self.read(map(_together, chunks()), keep)]
        f, deformed, noisy = zip(*read, strict=True)
        return torch.cat(f), torch.cat(deformed, 1), torch.cat(noisy, 1)

    def _flat(self, name: str, values: Tensor) -> Tensor | None:
        """Outputs as (samples, features), at least float32; None for a layer that channel_mean=True skips."""
        if self.channel_mean and values.dim() < 3:
            if self.layers is None and name != INPUT:
                return None
            raise ValueError(
                f"layer {name!r} gives {tuple(values.shape)} and has no spatial extent; channel_mean=True needs "
                "(samples, channels, pixels, ...). Name other layers, or use channel_mean=False."
            )
        values = values.mean(1) if self.channel_mean else values
        return (values if values.dtype == torch.float64 else values.float()).flatten(1)

    def _parts(self, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f(x) (count, d), f(x') and f(x'') (draws, count, d) of a batch made by `_together`."""
        copies = f.unflatten(0, (1 + 2 * self.draws, -1))
        return copies[0], copies[1 : 1 + self.draws], copies[1 + self.draws :]


def _together(chunk: Chunk) -> Tensor:
    """A chunk as one batch: x, then its draws of x', then those of x''."""
    x, deformed, noisy = chunk
    return torch.cat([x, deformed.flatten(0, 1), noisy.flatten(0, 1)])


def _mean(deformed: NDArray, noisy: NDArray, scatter: NDArray) -> tuple[float, ...]:
    """D, G, R with their errors from squared distances (draws, samples); the pair mean is 2 (<|f|^2> - |<f>|^2)."""
    d, g, pair = deformed.mean(0), noisy.mean(0), 2 * scatter[0]
    return tuple(value for ratio in (_ratio(d, pair), _ratio(g, pair), _ratio(d, g)) for value in ratio)


def _ratio(above: NDArray, below: NDArray) -> tuple[float, float]:
    """<above> / <below> and its standard error over the samples, to first order."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above.mean() / below.mean()
        return ratio, (above - ratio * below).std(ddof=1) / np.sqrt(len(above)) / below.mean()


def _median(outputs: tuple[Tensor, Tensor, Tensor]) -> tuple[float, ...]:
    """D, G, R with medians over samples, coordinate by coordinate, and errors from groups of samples."""
    f, deformed, noisy = outputs
    whole = _medians(f, deformed, noisy)
    groups = min(GROUPS, len(f) // 2)
    parts = [_medians(f[k::groups], deformed[:, k::groups], noisy[:, k::groups]) for k in range(groups)]
    stderr = np.std(parts, axis=0, ddof=1) / np.sqrt(groups) if groups > 1 else np.full(3, np.nan)
    return tuple(float(value) for pair in zip(whole, stderr, strict=True) for value in pair)


def _medians(f: Tensor, deformed: Tensor, noisy: Tensor) -> NDArray:
    """D, G, R from sums over coordinates of median squared differences; each sample is paired with `draws` others."""
    shifts = range(1, min(len(deformed), len(f) - 1) + 1)
    sums = np.zeros(3)
    for start in range(0, f.shape[1], COORDINATES):
        part = f[:, start : start + COORDINATES]
        both = (values[..., start : start + COORDINATES] for values in (deformed, noisy))
        others = torch.stack([part.roll(shift, 0) for shift in shifts])  # (shifts, samples, coordinates)
        for place, values in enumerate((*both, others)):
            median = (values - part).square().flatten(0, 1).median(0).values
            sums[place] += median.sum(dtype=widest(median)).item()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([sums[0] / sums[2], sums[1] / sums[2], sums[0] / sums[1]])


def _device(model: nn.Module, x: Tensor) -> torch.device:
    return next(itertools.chain(model.parameters(), model.buffers()), x).device


def _settled(model: nn.Module, x: Tensor, options: Options) -> nn.Module:
    """The model itself, or a copy if it must move to another device or its batch norms need the statistics of x."""
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    untrained = [name for name in norms if model.get_submodule(name).num_batches_tracked == 0]
    renewed = {"auto": untrained, "running": [], "batch": norms}[options.batch_norm]
    here = _device(model, x)
    device = here if options.device is None else find_device(options.device)
    if not renewed and device == here:
        return model
    model = copy.deepcopy(model).to(device)
    with evaluating(model), torch.no_grad():
        for norm in map(model.get_submodule, renewed):
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over all chunks
            norm.train()
        for part in x.split(max(options.chunk, 2)) if renewed else ():
            model(part.to(device))
    for norm in map(model.get_submodule, renewed):
        norm.eval()
    return model

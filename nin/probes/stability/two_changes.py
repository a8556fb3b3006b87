"""How far the layers of a network carry two changes of their input: D_k, G_k and R_k = D_k / G_k."""

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nin.model.evaluating import evaluating
from nin.probes.watching import watched_layers, watching
from nin.support.arguments import check_choice, check_count

INPUT = "input"  # layer 0
COLUMNS = ["layer", "depth", "D", "D_stderr", "G", "G_stderr", "R", "R_stderr"]
GROUPS = 5  # of samples, whose medians give the error of a median
COORDINATES = 2048  # whose medians are taken at once

Chunk = tuple[Tensor, Tensor, Tensor]  # x (count, ...); deformed, noisy (draws, count, ...)
Chunks = Callable[[], Iterable[Chunk]]  # the same ones at each call


def compare(
    model: nn.Module,
    x: Float[Tensor, "samples ..."],
    deformed: Float[Tensor, "draws samples ..."],
    noisy: Float[Tensor, "draws samples ..."],
    *,
    layers: Sequence[str] | None = None,
    estimator: Literal["mean", "median"] = "mean",
    channel_mean: bool = False,
    batch_norm: Literal["auto", "running", "batch"] = "auto",
    chunk: int = 64,
    device: torch.device | str | None = None,
) -> pd.DataFrame:
    """Sensitivities of a network's layers to any two changes x' = deformed and x'' = noisy of samples of any shape.

        D_k = < |f_k(x') - f_k(x)|^2 > / < |f_k(x) - f_k(z)|^2 >,   G_k alike with x''          (arXiv 2210.01506)

    Arguments, table and errors are those of `nin.probes.stability.sensitivities`, which draws x' and x'' itself.
    """
    for name, moved in (("deformed", deformed), ("noisy", noisy)):
        if moved.shape[1:] != x.shape or moved.shape != deformed.shape or len(moved) < 1:
            raise ValueError(
                f"{name} of shape {tuple(moved.shape)} must be (draws, {', '.join(map(str, x.shape))}): every sample "
                "of x, changed in as many ways for deformed as for noisy."
            )

    def chunks() -> Iterable[Chunk]:
        return zip(x.split(chunk), deformed.split(chunk, 1), noisy.split(chunk, 1), strict=True)

    return measure(
        model, x, chunks, layers=layers, estimator=estimator, channel_mean=channel_mean, batch_norm=batch_norm,
        chunk=chunk, device=device,
    )  # fmt: skip


def measure(
    model: nn.Module,
    x: Tensor,
    chunks: Chunks,
    *,
    layers: Sequence[str] | None,
    estimator: str,
    channel_mean: bool,
    batch_norm: str,
    chunk: int,
    device: torch.device | str | None,
) -> pd.DataFrame:
    """The table of `compare` from the chunks of x, one of which is in memory at a time."""
    check_choice("estimator", estimator, ("mean", "median"))
    check_choice("batch_norm", batch_norm, ("auto", "running", "batch"))
    check_count("chunk", chunk)
    if len(x) < 2:
        raise ValueError(f"x of {len(x)} samples: the distance between samples needs at least 2; take some hundred.")
    model = _settled(model, x, batch_norm, chunk, device)
    reader = _Reader(model, layers, channel_mean, _device(model, x))
    if estimator == "median":
        found = {name: _median(reader.collect(chunks, name)) for name in reader.names(x[:2])}
    else:
        found = {name: _mean(*values) for name, values in reader.squares(x.split(chunk), chunks).items()}
    rows = [(name, depth, *values) for depth, (name, values) in enumerate(found.items())]
    return pd.DataFrame(rows, columns=COLUMNS)


class _Reader:
    """Reads f_k, (samples, features), of all layers of a model, or what is made of them at once."""

    def __init__(
        self, model: nn.Module, layers: Sequence[str] | None, channel_mean: bool, device: torch.device
    ) -> None:
        self.model, self.layers, self.channel_mean, self.device = model, layers, channel_mean, device
        watched_layers(model, layers)

    def read(self, batches: Iterable[Tensor], see: Callable[[str, Tensor, int], None]) -> None:
        """Call see(name, f_k, number of the batch) for each layer, the input first."""
        number = 0

        def flat(name: str, values: Tensor) -> None:
            if self.channel_mean and values.dim() < 3:
                if self.layers is None and name != INPUT:
                    return
                raise ValueError(
                    f"layer {name!r} gives {tuple(values.shape)} and has no spatial extent; channel_mean=True needs "
                    "(samples, channels, pixels, ...). Name other layers, or take channel_mean=False."
                )
            values = values.mean(1) if self.channel_mean else values
            see(name, (values if values.dtype == torch.float64 else values.float()).flatten(1), number)

        with watching(self.model, self.layers, flat) as run:
            for number, batch in enumerate(batches):  # noqa: B007
                batch = batch.to(self.device)
                flat(INPUT, batch)
                run(batch)

    def names(self, x: Tensor) -> list[str]:
        found: list[str] = []
        self.read([x], lambda name, values, number: found.append(name))
        return found

    def squares(self, clean: Sequence[Tensor], chunks: Chunks) -> dict[str, list[NDArray]]:
        """|f(x') - f(x)|^2 and |f(x'') - f(x)|^2 (draws, samples), and |f(x) - <f>|^2 (1, samples), by layer."""
        sums: dict[str, Tensor] = {}

        def add(name: str, values: Tensor, number: int) -> None:
            sums[name] = sums.get(name, 0) + values.sum(0, dtype=torch.float64)

        self.read(clean, add)
        means = {name: values / sum(map(len, clean)) for name, values in sums.items()}
        found: dict[str, list[list[NDArray]]] = {name: [[], [], []] for name in sums}
        sizes: list[tuple[int, int]] = []

        def compare(name: str, values: Tensor, number: int) -> None:
            f, deformed, noisy = _parts(values, *sizes[number])
            for place, change in enumerate((deformed - f, noisy - f, (f - means[name].to(f))[None])):
                found[name][place].append(change.square().sum(-1, dtype=torch.float64).cpu().numpy())

        self.read(_together(chunks, sizes), compare)
        return {name: [np.concatenate(part, axis=1) for part in parts] for name, parts in found.items()}

    def collect(self, chunks: Chunks, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        """f(x) (samples, d), f(x') and f(x'') (draws, samples, d) of one layer."""
        sizes: list[tuple[int, int]] = []
        found: list[tuple[Tensor, ...]] = []

        def keep(name: str, values: Tensor, number: int) -> None:
            if name == layer:
                found.append(tuple(part.cpu() for part in _parts(values.clone(), *sizes[number])))

        self.read(_together(chunks, sizes), keep)
        f, deformed, noisy = zip(*found, strict=True)
        return torch.cat(f), torch.cat(deformed, 1), torch.cat(noisy, 1)


def _together(chunks: Chunks, sizes: list[tuple[int, int]]) -> Iterable[Tensor]:
    """Each chunk as one batch; its draws and samples are appended to sizes."""
    for x, deformed, noisy in chunks():
        sizes.append((len(deformed), len(x)))
        yield torch.cat([x, deformed.flatten(0, 1), noisy.flatten(0, 1)])


def _parts(values: Tensor, draws: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    f, deformed, noisy = values.split([count, draws * count, draws * count])
    return f, deformed.unflatten(0, (draws, count)), noisy.unflatten(0, (draws, count))


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
    """Sums over coordinates of median squared differences, as D, G, R; pairs: each sample with as many as draws."""
    shifts = range(1, min(len(deformed), len(f) - 1) + 1)
    sums = np.zeros(3)
    for start in range(0, f.shape[1], COORDINATES):
        part = f[:, start : start + COORDINATES]
        moved = (values[..., start : start + COORDINATES] for values in (deformed, noisy))
        others = torch.stack([part.roll(shift, 0) for shift in shifts])
        for place, values in enumerate((*moved, others)):
            median = (values - part).square().flatten(0, 1).median(0).values
            sums[place] += median.sum(dtype=torch.float64).item()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([sums[0] / sums[2], sums[1] / sums[2], sums[0] / sums[1]])


def _device(model: nn.Module, x: Tensor) -> torch.device:
    return next(itertools.chain(model.parameters(), model.buffers()), x).device


def _settled(model: nn.Module, x: Tensor, batch_norm: str, chunk: int, device: object) -> nn.Module:
    """The model; or a copy of it on another device, or one whose batch norms have the statistics of x."""
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    untrained = [name for name in norms if model.get_submodule(name).num_batches_tracked == 0]
    renewed = {"auto": untrained, "running": [], "batch": norms}[batch_norm]
    here = _device(model, x)
    device = here if device is None else torch.device(device)
    if not renewed and device == here:
        return model
    model = copy.deepcopy(model).to(device)
    with evaluating(model), torch.no_grad():
        for norm in map(model.get_submodule, renewed):
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over all chunks
            norm.train()
        for part in x.split(max(chunk, 2)) if renewed else ():
            model(part.to(device))
    for norm in map(model.get_submodule, renewed):
        norm.eval()
    return model

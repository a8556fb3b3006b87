"""Stability of a network to smooth deformations of images, relative to noise (arXiv 2105.02468, 2210.01506)."""

from collections.abc import Iterable, Sequence
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from nin.model.views import Forward, moved
from nin.probes.stability.deformations import (
    Modes,
    check_images,
    deform,
    draw_coefficients,
    synthesise,
    temperature,
    temperature_range,
    warn_of_folds,
)
from nin.probes.stability.two_changes import Chunk, Options, measure
from nin.support.arguments import check_choice, check_count
from nin.support.precision import widened

NOISES = ("image", "average")


def sensitivities(
    model: nn.Module,
    x: Shaped[Tensor, "samples ..."],
    *,
    delta: float = 1.0,
    c: float = 3.0,
    layers: Sequence[str] | None = None,
    draws: int = 4,
    estimator: Literal["mean", "median"] | str = "mean",
    noise: Literal["image", "average"] | str = "image",
    channel_mean: bool = False,
    batch_norm: Literal["auto", "running", "batch"] | str = "auto",
    exact: bool = False,
    modes: Modes = "published",
    chunk: int = 64,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    forward: Forward | None = None,
) -> pd.DataFrame:
    """Sensitivity of each layer to deformations, D_k, to noise of the same size, G_k, and their ratio R_k.

        D_k = < |f_k(tau x) - f_k(x)|^2 > / < |f_k(x) - f_k(z)|^2 >
        G_k = < |f_k(x + eta) - f_k(x)|^2 > / < |f_k(x) - f_k(z)|^2 >,    R_k = D_k / G_k          (arXiv 2210.01506)

    Layer 0 is the input. The mean over pairs runs over all samples x and z, including z = x, and is computed as
    2 (<|f|^2> - |<f>|^2). Each sample gets `draws` deformations and noises, different from those of other samples.

    x          images (samples, channels, n, n), floating point
    delta, c   displacement in pixels and cut-off of the deformations (`temperature`); 1 and 3 as in the papers
    layers     dotted names; None: every module without children, in the order of the calls, except those that change no
               distance (dropout, flatten), and the model's output
    estimator  "mean" (2210.01506), or "median": over samples for each coordinate, then summed (2105.02468); the median
               holds one layer's f_k of all samples and draws in memory, and runs the model once for each layer
    noise      Gaussian, with |eta| = |tau x - x| for each "image" (the published code), or only on "average":
               E |eta|^2 = < |tau x - x|^2 >
    channel_mean  average f_k over channels first, which leaves the spatial signal
    batch_norm "running" statistics, those of x ("batch"), or "auto" (2210.01506): those of x for a layer that has not
               seen a batch yet (at initialisation), otherwise the running ones
    exact      delta is the true rms displacement on the pixels, not the papers' nominal one
    chunk      samples that pass through the network at once, each 1 + 2 draws times; bounds the memory
    device     where to measure, on a copy of the model; None: where the model is
    generator  a CPU generator; None: one with seed 0, so that all networks get the same deformations and noise
    forward    forward(model, x) -> outputs, in place of model(x), such as lambda model, x: model(x).logits

    Columns: layer, depth (0: input), D, D_stderr, G, G_stderr, R, R_stderr; standard errors over samples, deformations
    and noise together (median: from five groups of samples). The model is not changed.
    Warns if deformations fold. Raises ValueError for images that are not square and 4-D, fewer than two images, a delta
    and c that allow no temperature, an unknown layer, and a layer without spatial extent if channel_mean needs one.
    """
    n = check_images("x", x)
    model = moved(model, forward, x)
    check_count("draws", draws)
    check_choice("noise", noise, NOISES)
    options = Options(
        layers=layers, estimator=estimator, channel_mean=channel_mean, batch_norm=batch_norm, chunk=chunk, device=device
    )
    T = temperature(delta, n, c, exact=exact, modes=modes)
    if not exact:
        temperature_range(n, c)  # raises if the range is empty
    warn_of_folds(c, T, modes=modes)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    seed = int(torch.randint(2**62, (), generator=generator))
    size = None if noise == "image" else _mean_square_change(_deformed(x, c, T, draws, modes, chunk, seed))

    def chunks() -> Iterable[Chunk]:
        eta = torch.Generator().manual_seed(seed + 1)
        for part, changed in _deformed(x, c, T, draws, modes, chunk, seed):
            yield part, changed, part + matched_noise(changed - part, generator=eta, mean_square=size)

    return measure(model, x, chunks, draws, options)


def matched_noise(
    change: Float[Tensor, "draws samples ..."], *, generator: torch.Generator, mean_square: float | None = None
) -> Float[Tensor, "draws samples ..."]:
    """Isotropic Gaussian noise eta as large as a change tau x - x: |eta| = |tau x - x| for every sample.

    mean_square    if given, E |eta|^2 is this number for all samples instead
    generator      a CPU generator
    """
    by_sample = change.transpose(0, 1)
    drawn = torch.randn(by_sample.shape, generator=generator, dtype=change.dtype)  # (samples, draws, ...)
    eta = drawn.to(change.device).transpose(0, 1)
    if mean_square is not None:
        return eta * (mean_square / change[0, 0].numel()) ** 0.5
    sizes = [values.flatten(2).norm(dim=2) for values in (change, eta)]  # (draws, samples)
    return eta * (sizes[0] / sizes[1]).view(*change.shape[:2], *[1] * (change.dim() - 2))


def _deformed(
    x: Tensor, c: float, T: float, draws: int, modes: Modes, chunk: int, seed: int
) -> Iterable[tuple[Tensor, Tensor]]:
    """Chunks of x with their deformations (draws, count, channels, n, n): the same in each call and for any chunk."""
    drawn = draw_coefficients(c, T, len(x) * draws, modes, torch.Generator().manual_seed(seed))
    for part, coefficients in zip(x.split(chunk), drawn.split(chunk * draws), strict=True):
        field = synthesise(coefficients, x.shape[-1], device=x.device, dtype=x.dtype)
        deformed = deform(part.repeat_interleave(draws, 0), field)
        yield part, deformed.unflatten(0, (len(part), draws)).transpose(0, 1)


def _mean_square_change(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """< |tau x - x|^2 > over samples and draws."""
    squares = [widened(changed - x).square().flatten(2).sum(2).flatten() for x, changed in pairs]
    return torch.cat(squares).mean().item()

"""What each layer of a network adds and forgets, with intervals and controls (arXiv 2409.08712)."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Num, Shaped
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.losses import accuracy
from nin.model.views import Forward, viewed
from nin.probes.interactions import comparison
from nin.probes.interactions.games_of_layers import (
    VALUES,
    LayerInteractions,
    default_layers,
    image_patches,
    layer_games,
    layer_interactions,
)
from nin.probes.interactions.layer_table import compared, resampled, steady, table
from nin.probes.interactions.readouts import fit_readouts, head_readout
from nin.probes.interactions.sparsest import check_splits
from nin.support.arguments import check_choice, check_count, check_number, check_seed
from nin.support.randomness import own_randomness

N = 10  # foreground patches, as in the paper


@dataclass(frozen=True)
class Noise:
    """Noise for the stability: `draws` of Gaussian noise of standard deviation sigma on the first `images` of x.

    sigma = 0.02 in the paper, in units of the pixels of x; 4 draws on 10 images are ours. draws=0: no stability.
    """

    draws: int = 4
    images: int = 10
    sigma: float = 0.02

    def __post_init__(self) -> None:
        check_count("draws", self.draws, minimum=0)
        check_count("images", self.images)
        check_number("sigma", self.sigma, exclusive=True)
        if self.draws == 1:
            raise ValueError("draws=1 has no variance; use 0, or at least 2.")


def layerwise(
    model: nn.Module,
    x: Shaped[Tensor, "images ..."],
    y: Num[Tensor, " labels"],
    *,
    layers: Sequence[str] | None = None,
    patches: Bool[Tensor, "..."] | None = None,
    baseline: Shaped[Tensor, "..."] | None = None,
    train: tuple[Tensor, Tensor] | None = None,
    untrained: nn.Module | bool = True,
    second: nn.Module | None = None,
    head: str | None = None,
    value: str = "log_odds",
    kappa: float = 0.04,
    threshold: float = 0.05,
    per: str = "layer",
    tie_break: float = 0.0,
    iterations: int = 6000,
    noise: Noise | None = None,
    resamples: int = 200,
    seed: int = 0,
    chunk: int = 256,
    progress: bool = False,
    forward: Forward | None = None,
) -> pd.DataFrame:
    """Overlap, forgetting and novelty of every layer's AND and OR interactions against those of the final layer.

    layers      dotted names; None: the children of the model except the last. The output is added, as "output"
    patches     boolean, (n, ...) for all images or (images, n, ...); None: 10 foreground patches of 3 x 3 pixels each
    baseline    the values of masked pixels; None: the mean over the training samples, as in the paper
    train       x and y of the samples that the layers' readouts are fitted to; None: x and y themselves
    untrained   control network without training; True: a copy of the model made by `reinitialised`; False: none
    second      another trained network with layers of the same names: for `generalisation`, and as a control
    head        the linear layer that makes the output from the last of `layers`: that layer is then read by it, which
                gives completeness 1 and redundancy 0; None: a fitted readout, whose distance from 1 and 0 there is the
                mismatch of readout and head, the floor below which a difference between layers is not an effect
    value       "log_odds" as in the paper, or "margin", which adds no interactions itself
    kappa, tie_break, iterations    see `split` (0.04 in the paper; 0; 6000)
    threshold, per    see `comparison.salient` (0.05 in the paper)
    noise       see `Noise`; None: its defaults, and no noise for integer x (tokens)
    forward     forward(model, x) -> logits, in place of model(x), such as lambda model, x: model(x).logits
    resamples   of the images, for the 95 % intervals (percentile bootstrap); 200: ours

    One row for each network ("model", "permuted": its interactions permuted within order, "untrained", "second"),
    layer, kind ("and", "or", "both") and order (0: all together). Each is compared with the final layer of the model.
    Columns: network, layer, depth, order, kind, accuracy (of the layer's readout on its training samples; at the output
    that of the network), then strength, overlap, forget, new, completeness, redundancy, generalisation (IoU with the
    same layer of `second`; for `second` itself, with the model), stability, each with its interval in ..._low and
    ..._high. Strengths are in units of E_x |v(x_N) - v(x_empty)|. Ratios are of sums over images; they are NaN if there
    is nothing to compare (no salient interaction, no second network).
    Costs 2^n forward passes for each image and network (model, untrained, second), and for each draw of the noise.
    Raises ValueError as `layer_games` and `layer_interactions` do, for arguments that do not fit together, and for
    games too large for the memory: 8 (4^n + 20 games 2^n) bytes, for a game of each image and layer.
    """
    check_choice("value", value, VALUES)
    check_choice("per", per, comparison.PER)
    check_number("threshold", threshold)
    check_count("resamples", resamples)
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"x has {len(x)} images and y has {len(y)} labels; give the same number, at least 2.")
    names = default_layers(model) if layers is None else list(layers)
    train = (x, y) if train is None else train
    if not x.is_floating_point():
        noise = _of_tokens(x, patches, baseline, noise)
    noise = Noise() if noise is None else noise
    baseline = train[0].mean(0) if baseline is None else baseline
    patches = image_patches(x, patches, baseline, N)
    check_splits(patches.shape[1], (len(x) + noise.draws * min(noise.images, len(x))) * (len(names) + 1))
    networks = {name: viewed(one, forward, x)[0] for name, one in _networks(model, untrained, second, seed).items()}
    readouts, accuracies, found = {}, {}, {}

    def read(name: str, x: Tensor, y: Tensor, patches: Tensor) -> LayerInteractions:
        games = layer_games(
            networks[name], x, y, readouts=readouts[name], patches=patches, baseline=baseline, value=value,
            chunk=chunk, progress=progress,
        )  # fmt: skip
        return layer_interactions(games, kappa=kappa, tie_break=tie_break, iterations=iterations)

    for name, network in networks.items():
        readouts[name] = fit_readouts(network, *train, names, chunk=chunk)
        if head is not None:
            readouts[name][names[-1]] = head_readout(network, names[-1], head, *train, chunk=chunk)
        fitted = [readout.accuracy for readout in readouts[name].values()]
        accuracies[name] = [*fitted, _accuracy(network, *train, chunk)]
        found[name] = read(name, x, y, patches)
    generator = torch.Generator().manual_seed(seed)
    ratios = compared(found, threshold, per, generator)
    if noise.draws:
        draws = read("model", *under_noise(x, y, patches, noise, generator))
        ratios |= steady(found["model"], draws, noise.draws, len(x), threshold, per, generator)
    weights = resampled(len(x), resamples, seed)
    accuracies["permuted"] = accuracies["model"]
    order = ["model", "permuted", *(name for name in found if name != "model")]
    tables = [table(name, found["model"].layers, accuracies[name], ratios, weights) for name in order]
    return pd.concat(tables, ignore_index=True)


def _of_tokens(x: Tensor, patches: Tensor | None, baseline: Tensor | None, noise: Noise | None) -> Noise:
    """No noise; ValueError for integer x if something is asked for that only real numbers have."""
    if patches is None or baseline is None or (noise is not None and noise.draws):
        raise ValueError(
            f"x of {x.dtype} has neither a mean nor a foreground nor noise: pass patches (which tokens each variable "
            "covers), baseline (for example the token of a mask everywhere), and noise=None or Noise(draws=0)."
        )
    return Noise(draws=0)


def _networks(
    model: nn.Module, untrained: nn.Module | bool, second: nn.Module | None, seed: int
) -> dict[str, nn.Module]:
    """The model and its controls, by the names of the table."""
    networks = {"model": model}
    if untrained is not False:
        networks["untrained"] = reinitialised(model, seed=seed) if untrained is True else untrained
    if second is not None:
        networks["second"] = second
    return networks


def under_noise(
    x: Tensor, y: Tensor, patches: Tensor, noise: Noise, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The first images with their labels and patches, once for each draw of the noise: (draws * images, ...)."""
    x, y, patches = x[: noise.images], y[: noise.images], patches[: noise.images]
    xi = torch.randn(noise.draws, *x.shape, generator=generator).to(x)
    shaken = (x + noise.sigma * xi).flatten(0, 1)
    return shaken, y.repeat(noise.draws), patches.repeat(noise.draws, *[1] * (patches.dim() - 1))


def _accuracy(network: nn.Module, x: Tensor, y: Tensor, chunk: int) -> float:
    with evaluating(network), torch.no_grad():
        outputs = torch.cat([network(part) for part in x.split(chunk)])
    return accuracy(outputs, y.to(outputs.device)).mean().item()


@torch.no_grad()
def reinitialised(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """An untrained copy of the model, initialised as the model does it where it says how.

    Layers draw their weights anew by their own `reset_parameters`; parameters of all other modules are shuffled, which
    keeps their distribution and destroys everything else. Then modules that contain others initialise these in their
    own way, the outermost last: by `reset_parameters()`, by `_init_weights(module)` for each module inside (Hugging
    Face), and by `init_weights()` (timm). What a model does in its constructor alone cannot be repeated: pass a new
    network as `untrained` instead, also for one whose `init_weights` loads pretrained weights.
    """
    check_seed("seed", seed)
    fresh = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with own_randomness(seed):
        for module in fresh.modules():
            own = [parameter for parameter in module.parameters(recurse=False)]
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            for parameter in own if not hasattr(module, "reset_parameters") else ():
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        for part in (*fresh.modules(), *fresh.parameters()):  # else Hugging Face leaves what has been loaded as it is
            vars(part).pop("_is_hf_initialized", None)
        for module in reversed(list(fresh.modules())):
            if any(module.children()):
                _initialise(module)
    return fresh


def _initialise(module: nn.Module) -> None:
    """Call what a module offers to initialise itself and the modules inside."""
    for name in ("reset_parameters", "_reset_parameters", "_init_weights", "init_weights"):
        if not callable(getattr(type(module), name, None)):
            continue
        own = getattr(module, name)
        free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = [p for p in inspect.signature(own).parameters.values() if p.kind not in free]
        required = [p for p in named if p.default is inspect.Parameter.empty]
        if not required:
            own()
        elif name == "_init_weights" and len(required) == 1:
            module.apply(own)

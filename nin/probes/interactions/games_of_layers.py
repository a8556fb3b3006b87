"""The games that the layers of a network play on images, and their AND and OR interactions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Num, Shaped
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.views import Forward, check_tensor, viewed
from nin.probes.interactions.masking import OUTPUT, log_odds, margin, masked_outputs
from nin.probes.interactions.patches import foreground_patches
from nin.probes.interactions.readouts import Readout
from nin.probes.interactions.sparsest import constant, split
from nin.probes.watching import SILENT
from nin.support.arguments import check_choice
from nin.support.progress import ProgressBar

VALUES = ("log_odds", "margin")
ACCURACY = 0.01  # of the splits: far below the threshold of `salient`, and a third faster than 0.005


@dataclass(frozen=True)
class LayerInteractions:
    """The interactions that each layer encodes for each image; the last layer is the network's own output.

    layers   L names
    games    (L, images, 2^n), v of every coalition
    values   (L, images, 2, 2^n), I_and and I_or of the sparsest split, order-1 OR merged into AND; 0 at the empty set
    excess   (L, images), an upper bound of objective / optimum - 1 of the split
    """

    layers: tuple[str, ...]
    games: Float[Tensor, "layers images coalitions"]
    values: Float[Tensor, "layers images 2 coalitions"]
    excess: Float[Tensor, "layers images"]

    @property
    def scale(self) -> Float[Tensor, " layers"]:
        """E_x |v(x_N) - v(x_empty)| of each layer, (L,): the unit of its strengths."""
        return (self.games[..., -1] - self.games[..., 0]).abs().mean(1)

    @property
    def scaled(self) -> Float[Tensor, "layers images 2 coalitions"]:
        """The values in units of the scale."""
        return self.values / self.scale[:, None, None, None]


def layer_interactions(
    games: Mapping[str, Float[Tensor, "images coalitions"]],
    *,
    kappa: float = 0.04,
    tie_break: float = 0.0,
    accuracy: float = ACCURACY,
    iterations: int = 6000,
) -> LayerInteractions:
    """Split all games of `layer_games` into AND and OR interactions; kappa, tie_break, iterations: see `split`.

    accuracy    of the splits; 0.01, ours

    Raises ValueError as `split` does; the message names the image and layer of a game with v(N) = v(empty), or whose
    values are all the same to the rounding of float32: its interactions would be those of the rounding.
    """
    layers, values = tuple(games), torch.stack(list(games.values()))  # (L, images, 2^n)
    flat = ((values[..., -1] == values[..., 0]) | constant(values, torch.float32)).nonzero()
    if kappa and len(flat):
        layer, image = flat[0].tolist()
        raise ValueError(
            f"x[{image}] has v(N) = v(empty) at layer {layers[layer]!r} ({len(flat)} such games), or the same v "
            "everywhere to rounding: masking all patches changes nothing there, so kappa has no scale. Leave out the "
            "image or the layer, or use kappa=0."
        )
    found = split(values, kappa, tie_break=tie_break, accuracy=accuracy, iterations=iterations)
    both = torch.stack([found.and_, found.or_], 2)  # (L, images, 2, 2^n)
    both[..., 0] = 0
    excess = torch.where(found.bound > 0, found.objective / found.bound.clamp(min=1e-300) - 1, 0)
    return LayerInteractions(layers, values, both, excess)


def layer_games(
    model: nn.Module,
    x: Shaped[Tensor, "images ..."],
    y: Num[Tensor, " images"],
    *,
    readouts: Mapping[str, Readout],
    patches: Bool[Tensor, "images n ..."],
    baseline: Shaped[Tensor, "..."],
    value: str = "log_odds",
    chunk: int = 256,
    progress: bool = False,
    forward: Forward | None = None,
) -> dict[str, Float[Tensor, "images coalitions"]]:
    """v of every coalition at every layer: each image masked in all 2^n ways, all layers read from the same passes.

    readouts   by layer, the linear classifier of its features; the network's own output comes last, as "output"
    value      "log_odds" of the true class, or its "margin" over the most likely other class
    The games are float64. Raises ValueError as `masked_outputs` does.
    """
    check_choice("value", value, VALUES)
    model = viewed(model, forward, x)[0]
    with evaluating(model), torch.no_grad():
        logits = model(x)
    check_tensor(logits)
    labels, rivals = y.tolist(), rival_classes(logits, y)
    to_logits = {**readouts, OUTPUT: nn.Identity()}

    def value_of(features: Tensor, *, layer: str, image: int) -> Tensor:
        logits = to_logits[layer](features)  # (count, classes)
        if value == "log_odds":
            return log_odds(logits, labels[image])
        return margin(logits, labels[image], rivals[image])

    games: dict[str, list[Tensor]] = {layer: [] for layer in to_logits}
    for image in ProgressBar(range(len(x)), progress=progress, desc="masking", unit="image"):
        read = {layer: partial(value_of, layer=layer, image=image) for layer in to_logits}
        values = masked_outputs(model, x[image], patches[image], baseline, list(readouts), read=read, chunk=chunk)
        for layer, found in games.items():
            found.append(values[layer].double())
    return {layer: torch.stack(found) for layer, found in games.items()}


def rival_classes(logits: Float[Tensor, "images ..."], y: Num[Tensor, " images"]) -> list[int]:
    """The most likely class other than the true one; ValueError if y are not classes of the network's output."""
    fits = logits.dim() == 2 and logits.shape[1] > 1 and not y.is_floating_point()
    if not fits or not 0 <= y.min() <= y.max() < logits.shape[1]:
        raise ValueError(
            f"y of {y.dtype}, {y.min()} to {y.max()}, must be integer classes of the network, whose output on x is "
            f"{tuple(logits.shape)}: (images, classes >= 2)."
        )
    return logits.scatter(1, y[:, None].to(logits.device), -torch.inf).argmax(1).tolist()


def default_layers(model: nn.Module) -> list[str]:
    """The model's children in order except the last, which makes the output; lists and single wrappers are opened."""
    prefix = ""
    children = list(model.named_children())
    while len(children) == 1:
        prefix += f"{children[0][0]}."
        children = list(children[0][1].named_children())
    names = []
    for name, child in children:
        inner = [f"{name}.{k}" for k in range(len(child))] if isinstance(child, nn.ModuleList) else [name]
        names += [prefix + one for one in inner if type(child).__name__ not in SILENT]
    return names[:-1]


def image_patches(
    x: Shaped[Tensor, "images ..."],
    patches: Bool[Tensor, "..."] | None,
    baseline: Shaped[Tensor, "..."],
    n: int,
    *,
    size: int = 3,
) -> Bool[Tensor, "images n ..."]:
    """One set of patches per image: the given ones, one given set for all, or (None) n foreground patches each."""
    if patches is None:
        return torch.stack([foreground_patches(image, n, size=size, baseline=baseline) for image in x])
    if patches.dim() == x.dim():
        patches = patches.expand(len(x), *patches.shape)
    if patches.dim() != x.dim() + 1 or len(patches) != len(x):
        raise ValueError(
            f"patches of shape {tuple(patches.shape)} must be boolean, (n, ...) with the shape of one image of x "
            f"{tuple(x.shape)}, or one such set for each image."
        )
    return patches

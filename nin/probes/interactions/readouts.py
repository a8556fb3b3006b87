"""Readouts: linear softmax classifiers fitted to the features of a frozen network's layers (arXiv 2409.08712)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from nin.model.evaluating import evaluating
from nin.model.losses import accuracy
from nin.model.views import Forward, check_tensor, viewed
from nin.probes.watching import watching
from nin.support.arguments import check_count, check_names, check_number
from nin.support.precision import matching, widened


@dataclass(frozen=True)
class Readout:
    """logits = W f + b of a layer's flattened features; its accuracy on the fitted samples, and on others."""

    weight: Float[Tensor, "classes d"]
    bias: Float[Tensor, " classes"]
    accuracy: float
    test_accuracy: float

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        return features.to(self.weight) @ self.weight.T + self.bias


def fit_readouts(
    model: nn.Module,
    x: Shaped[Tensor, "n ..."],
    y: Num[Tensor, " labels"],
    layers: Sequence[str],
    *,
    test: tuple[Tensor, Tensor] | None = None,
    logits: Float[Tensor, "samples classes"] | None = None,
    l2: float = 1e-3,
    iterations: int = 100,
    chunk: int = 256,
    forward: Forward | None = None,
) -> dict[str, Readout]:
    """Fit a softmax classifier on each layer's features: mean cross-entropy + (l2 / 2) |W|^2 of standardised features.

    The problem is convex, and L-BFGS from zero needs no learning rate. The features of a layer are divided by a single
    number, their rms deviation, so that l2 means the same at every layer.
    l2      1e-3, ours: how the paper fits its classifiers is not known; iterations of L-BFGS: ours
    test    x and y of other samples, for test_accuracy; None: it is NaN
    logits  None: classify the labels, as in the paper. Otherwise reproduce these logits of the samples by ridge
            regression, min |W f + b - z|^2 + l2 |W|^2 of standardised features. For a model's own logits and a layer
            that feeds a linear head, the readout tends to this head as l2 -> 0
    forward  forward(model, x) -> outputs, in place of model(x), such as lambda model, x: model(x).logits
    Raises ValueError if x, y and logits differ in length, for an unknown layer, and for labels that are not integers.
    """
    check_number("l2", l2)
    check_count("iterations", iterations)
    layers = check_names("layers", layers)
    if len(x) != len(y) or y.is_floating_point():
        raise ValueError(
            f"y of {len(y)} labels, {y.dtype}, must be integers, one for each of the {len(x)} samples of x."
        )
    if logits is not None and len(logits) != len(x):
        raise ValueError(f"logits of {len(logits)} samples; give one row for each of the {len(x)} samples of x.")
    model = viewed(model, forward, x)[0]
    features = _features(model, x, layers, chunk)
    others = {name: None for name in features} if test is None else _features(model, test[0], layers, chunk)
    classes = int(y.max()) + 1
    found = {}
    for name, f in features.items():
        fitted = (
            _fit(f, y.to(f.device), classes, l2, iterations) if logits is None else _ridge(f, matching(logits, f), l2)
        )
        W, b = fitted
        right = accuracy(f @ W.T + b, y.to(f.device)).cpu().double().mean().item()
        g = others[name]
        beyond = float("nan") if g is None else accuracy(g @ W.T + b, test[1].to(g.device)).cpu().double().mean().item()
        found[name] = Readout(W, b, right, beyond)
    return found


def head_readout(
    model: nn.Module,
    layer: str,
    head: str,
    x: Shaped[Tensor, "n ..."],
    y: Num[Tensor, " labels"],
    *,
    chunk: int = 256,
    forward: Forward | None = None,
) -> Readout:
    """The linear map that makes the model's output from the flattened features of a layer: `model.get_submodule(head)`.

    With it as readout, the layer plays the game of the output (identity 10): completeness 1, redundancy 0.
    head    an nn.Linear, or a module that contains one; x, y: samples for the accuracy and to see that the map is exact
    Raises ValueError if the head does not contain exactly one linear layer, or if it does not make the output from the
    layer, for example because an activation lies between them.
    """
    model = viewed(model, forward, x)[0]
    inside = [module for module in model.get_submodule(head).modules() if isinstance(module, nn.Linear)]
    if len(inside) != 1:
        raise ValueError(f"head={head!r} contains {len(inside)} linear layers; name a module that contains one.")
    (f,) = _features(model, x, [layer], chunk).values()
    with evaluating(model), torch.no_grad():
        parts = [model(part) for part in x.split(chunk)]
    check_tensor(parts[0])
    outputs = torch.cat(parts)
    scale = getattr(inside[0], "scale", 1.0)  # of `nin.model.networks.ScaledLinear`
    weight, bias = inside[0].weight.detach() * scale, inside[0].bias
    bias = torch.zeros_like(weight[:, 0]) if bias is None else bias.detach().clone()
    fits = weight.shape == (outputs.shape[1], f.shape[1])
    off = (f @ weight.T + bias - outputs).abs().max() / outputs.abs().max() if fits else torch.inf
    if off > 100 * torch.finfo(f.dtype).eps ** 0.75:
        raise ValueError(
            f"head={head!r} does not make the output from layer {layer!r}: name the layer whose output, flattened, is "
            "the input of the head."
        )
    return Readout(weight, bias, accuracy(outputs, y.to(outputs.device)).cpu().double().mean().item(), float("nan"))


def _features(model: nn.Module, x: Tensor, layers: Sequence[str], chunk: int) -> dict[str, Float[Tensor, "n _"]]:
    with watching(model, layers, lambda name, values: values.flatten(1).clone()) as run:
        parts = [run(part) for part in x.split(chunk)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.enable_grad()
def _fit(
    f: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int, l2: float, iterations: int
) -> tuple[Float[Tensor, "classes d"], Float[Tensor, " classes"]]:
    mean = f.mean(0)  # (d,)
    scale = (f - mean).square().mean().sqrt().clamp(min=torch.finfo(f.dtype).tiny)
    inputs = (f - mean) / scale
    W = torch.zeros(classes, f.shape[1], dtype=f.dtype, device=f.device, requires_grad=True)
    b = torch.zeros(classes, dtype=f.dtype, device=f.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ W.T + b, y) + 0.5 * l2 * W.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight = W.detach() / scale
    return weight, b.detach() - weight @ mean


def _ridge(
    f: Float[Tensor, "n d"], logits: Float[Tensor, "n classes"], l2: float
) -> tuple[Float[Tensor, "classes d"], Float[Tensor, " classes"]]:
    """min (1/n) |F W^T - Z|^2 + l2 |W|^2 in float64, by the smaller of the two normal equations."""
    wide, z = widened(f), widened(logits)
    mean, center = wide.mean(0), z.mean(0)
    inputs, targets = wide - mean, z - center  # (n, d), (n, classes)
    scale = inputs.square().mean().sqrt().clamp(min=torch.finfo(f.dtype).tiny)
    inputs = inputs / scale
    n, d = inputs.shape
    unit = n * l2 * torch.eye(min(n, d), dtype=inputs.dtype, device=inputs.device)
    if d <= n:
        W = torch.linalg.solve(inputs.T @ inputs + unit, inputs.T @ targets).T
    else:
        W = (inputs.T @ torch.linalg.solve(inputs @ inputs.T + unit, targets)).T
    weight = W / scale
    return matching(weight, f), matching(center - weight @ mean, f)

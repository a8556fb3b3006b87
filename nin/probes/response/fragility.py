"""Four measures of fragility, which disagree. They are ours: we do not know the definition of arXiv 2405.04074."""

import copy
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nin.model.evaluating import evaluating
from nin.model.views import Forward, Inputs, check_tensor, moved, viewed
from nin.probes.watching import watching
from nin.support.arguments import check_count, check_number


def predictions(outputs: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """The sign of a scalar output, otherwise the class with the largest output."""
    check_tensor(outputs)
    outputs = _rows(outputs)
    return outputs[:, 0].sign() if outputs.shape[1] == 1 else outputs.argmax(1).to(outputs.dtype)


def _rows(outputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n outputs"]:
    """Outputs (n,) or (n, ...) as (n, C)."""
    return outputs.flatten(1) if outputs.dim() > 1 else outputs[:, None]


def error_rate(outputs: Float[Tensor, "n ..."], y: Shaped[Tensor, "n ..."]) -> float:
    """The fraction of samples predicted wrongly; y: signs or targets of a scalar output, otherwise classes."""
    guess = predictions(outputs)
    wanted = y.reshape(len(guess)).to(guess.dtype)
    scalar = outputs.dim() == 1 or outputs[0].numel() == 1
    return (guess != (wanted.sign() if scalar else wanted)).cpu().double().mean().item()


@torch.no_grad()
def flips(
    model: nn.Module,
    x: Shaped[Tensor, "n ..."],
    *,
    noise: float = 0.5,
    draws: int = 32,
    generator: torch.Generator,
    forward: Forward | None = None,
) -> float:
    """The fraction of predictions that Gaussian noise on the inputs changes; `noise` is its standard deviation.

    forward  forward(model, x) -> outputs, in place of model(x), such as lambda model, x: model(x, mask).logits
    Raises ValueError for inputs that are not real numbers.
    """
    check_number("noise", noise)
    check_count("draws", draws)
    model = moved(model, forward, x)
    with evaluating(model):
        quiet = predictions(model(x))
        changed = 0.0
        for _ in range(draws):
            eta = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            changed += (predictions(model(x + noise * eta)) != quiet).cpu().double().mean().item()
    return changed / draws


@torch.no_grad()
def worst_neuron(
    model: nn.Module,
    x: Inputs,
    y: Tensor,
    *,
    layer: str,
    axis: int | None = None,
    forward: Forward | None = None,
) -> float:
    """The largest error rate after setting the output of a single neuron (channel) of a layer to 0.

    axis    of the layer's output that counts its neurons; None: the last after a linear layer, the second after a
            convolution or for (samples, neurons) and (samples, channels, rows, columns)
    x, forward   as in `response`
    Raises ValueError for an unknown layer, and for values (n, a, b) of another layer without an axis: a or b could be
    the tokens.
    """
    model, x = viewed(model, forward, x)
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(
            f"layer={layer!r} is not in the model; there are: {', '.join(name for name in modules if name)}."
        )
    with watching(model, [layer], lambda name, output: tuple(output.shape)) as run:
        shape = run(x[:1])[layer]
    axis = _neuron_axis(modules[layer], layer, shape) if axis is None else axis
    errors = []
    for neuron in range(shape[axis]):
        handle = modules[layer].register_forward_hook(partial(_silence, axis, neuron))
        try:
            with evaluating(model):
                errors.append(error_rate(model(x), y))
        finally:
            handle.remove()
    return max(errors)


def _neuron_axis(module: nn.Module, layer: str, shape: tuple[int, ...]) -> int:
    if isinstance(module, nn.Linear):
        return -1
    if len(shape) == 3 and not isinstance(module, _ConvNd):
        raise ValueError(
            f"layer={layer!r} gives {shape}, whose neurons could be on axis 1 or, for tokens, on the last; pass axis."
        )
    return 1


def _silence(axis: int, neuron: int, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """A forward hook that sets one neuron's output to 0."""
    output = output.clone()
    output.select(axis, neuron).zero_()
    return output


@torch.no_grad()
def weight_noise(
    model: nn.Module,
    x: Inputs,
    y: Tensor,
    *,
    strength: float = 0.2,
    draws: int = 32,
    generator: torch.Generator,
    forward: Forward | None = None,
) -> float:
    """The mean error under multiplicative weight noise, w (1 + strength g), g ~ N(0, 1); 0.2 as in the reference.

    x, forward   as in `response`
    """
    check_number("strength", strength)
    check_count("draws", draws)
    model, x = viewed(model, forward, x)
    shaken, total = copy.deepcopy(model).eval(), 0.0
    for _ in range(draws):
        for ours, theirs in zip(shaken.parameters(), model.parameters(), strict=True):
            factor = 1 + strength * torch.randn(theirs.shape, generator=generator, dtype=theirs.dtype)
            ours.copy_(theirs * factor.to(theirs.device))
        total += error_rate(shaken(x), y)
    return total / draws


def margin(model: nn.Module, x: Shaped[Tensor, "n ..."], *, forward: Forward | None = None) -> float:
    """Median of |f| / |grad_x f|_1, the linearised l_inf distance to the boundary; f: output or top-two gap.

    forward  as in `flips`. Raises ValueError for inputs that are not real numbers.
    """
    model = moved(model, forward, x)
    x = x.detach().clone().requires_grad_()
    with evaluating(model), torch.enable_grad():
        outputs = _rows(model(x))
        if outputs.shape[1] == 1:
            f = outputs[:, 0]
        else:
            first, second = outputs.topk(2, dim=1).values.unbind(1)
            f = first - second
        (gradient,) = torch.autograd.grad(f.sum(), x)
    f, slope = f.detach().abs(), gradient.flatten(1).abs().sum(1)
    distance = torch.where(f == 0, 0.0, f / slope)  # 0 for a sample on the boundary, even where the slope vanishes
    return distance.median().item()

"""Where a node enters a network: a layer, its input or its pre-activation, and the shape of the values there."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nin.model.evaluating import evaluating
from nin.model.layers import feature_count, find_layer, second_axis, weight_like
from nin.model.views import Inputs, origin, viewed
from nin.support.arguments import check_choice
from nin.support.randomness import kept_randomness

PLACES = ("preactivation", "input")


@dataclass(frozen=True)
class Site:
    """A layer and the side of it where noise is added.

    layer           dotted name of a linear layer, a convolution or an embedding
    at              "preactivation": on the output of the layer; "input": on the representation that enters it
    shape           of a sample there: (features,); (channels,) after a convolution, (channels, *pixels) before it
    channels_first  whether values are (batch, channels, *pixels), as for convolutions; else (batch, ..., features)
    batch_axis      the axis of the values that counts the samples
    """

    layer: str
    at: str
    shape: tuple[int, ...]
    channels_first: bool
    batch_axis: int = 0

    def count(self, values: Float[Tensor, "*values"]) -> int:
        """The number of samples in the values of the layer."""
        return values.shape[self.batch_axis] if values.dim() > self.batch_axis else 0

    def add(
        self, values: Float[Tensor, "*values"], eps: Float[Tensor, "batch nodes"], niw: Float[Tensor, " nodes *shape"]
    ) -> Float[Tensor, "*values"]:
        """values + eps W_NI, eps (batch, nodes), niw (nodes, *shape): the same for all tokens or output pixels.

        Raises ValueError if values do not have the shape that the site was made for.
        """
        if self.batch_axis:
            moved = values.movedim(self.batch_axis, 0) if values.dim() > self.batch_axis else values
            return self._add(moved, eps, niw).movedim(0, self.batch_axis)
        return self._add(values, eps, niw)

    def _add(self, values: Tensor, eps: Tensor, niw: Tensor) -> Tensor:
        batch, rank = len(eps), len(self.shape)
        between = [1] * (values.dim() - 1 - rank)
        ours = values.shape[1 : 1 + rank] if self.channels_first else values.shape[1:][-rank:]
        if values.shape[:1] != (batch,) or ours != self.shape:
            raise ValueError(
                f"layer={self.layer!r} has {self.at} of shape {tuple(values.shape)}, but the node was made for "
                f"{self.shape} in each of {batch} samples, on the first axis. Inject with an example of the same size; "
                "a layer with several rows per sample cannot take a node; for samples on another axis, pass batch_axis."
            )
        if not between:  # in one pass over the values
            return torch.addmm(values.flatten(1), eps, niw.flatten(1)).view(values.shape)
        shift = eps @ niw  # (batch, features or channels)
        return values + shift.view((batch, -1, *between) if self.channels_first else (batch, *between, -1))


class WithNodes(nn.Module):
    """A network that has nodes already."""


def check_bare(model: nn.Module) -> None:
    """ValueError for a network that has nodes already."""
    if isinstance(origin(model), WithNodes):
        raise ValueError(
            "model already has noise injection nodes: pass noisy.network, the network without them; nodes in several "
            'layers are made together, as in nin.inject(model, ["0", "2"], sigma=1.0).'
        )


def find_site(
    model: nn.Module,
    layer: str,
    *,
    at: str | None = None,
    example: Inputs | None = None,
    batch_axis: int | None = None,
) -> Site:
    """The site of a layer: by default the pre-activation, and for a convolution the input (eq. (2)).

    example     one or more input samples of the model; needed for the number of pixels that enter a convolution
    batch_axis  None: the first axis, unless a module of the model has batch_first=False
    Raises ValueError for an unknown layer, listing the candidates, one that cannot take a node, with the reason, and
    for a model that already has nodes.
    """
    check_bare(model)
    module = find_layer(model, layer)
    convolution = isinstance(module, _ConvNd)
    at = ("input" if convolution else "preactivation") if at is None else at
    check_choice("at", at, PLACES)
    if at == "input" and isinstance(module, nn.Embedding):
        raise ValueError(f"at='input': layer={layer!r} is an embedding of integers; its node is at='preactivation'.")
    _check_weight(model, layer, weight_like(model, layer))
    axis = _axis(model, layer, batch_axis, convolution=convolution)
    if not convolution:
        shape = (feature_count(module, at),)
    elif at == "preactivation":
        shape = (module.out_channels,)
    elif example is None:
        raise ValueError(
            f"example=None: the node has one weight for each channel and pixel that feeds {layer!r}; pass example=x, "
            "a batch of the model's inputs, or at='preactivation' for one weight for each output channel."
        )
    else:
        shape = _seen(model, module, layer, example)
    return Site(layer, at, shape, channels_first=convolution, batch_axis=axis)


def _axis(model: nn.Module, layer: str, batch_axis: int | None, *, convolution: bool) -> int:
    if batch_axis is not None:
        if batch_axis not in (0, 1):
            raise ValueError(f"batch_axis={batch_axis!r} must be 0 or 1, the axis that counts the samples.")
        if batch_axis and convolution:
            raise ValueError(f"batch_axis={batch_axis}: the convolution {layer!r} has its samples on axis 0.")
        return batch_axis
    if not convolution and (name := second_axis(model)) is not None:
        what = repr(name) if name else "the model"
        raise ValueError(
            f"layer={layer!r}: {what} has batch_first=False, so that samples may be on the second axis of the "
            "layer's values, where a node would confuse them with tokens. Pass batch_axis=1 if they are there, else "
            "batch_axis=0, or build the model with batch_first=True."
        )
    return 0


def linear_layers(model: nn.Module) -> list[str]:
    """Return the dotted names of a model's nn.Linear layers, in the order of model.named_modules()."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _check_weight(model: nn.Module, layer: str, weight: Tensor) -> None:
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"layer={layer!r} has weights of {weight.dtype}, too coarse for a node's noise and gradients; use "
            "float32 or float64 (mixed precision by torch.autocast keeps its weights in float32)."
        )
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise ValueError(f"model is spread over several devices: {', '.join(devices)}. Move it to one first.")


def _seen(model: nn.Module, module: nn.Module, layer: str, example: Inputs) -> tuple[int, ...]:
    """The shape of one sample at the layer's input; the model is not changed."""
    seen: list[torch.Size] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    try:
        view, samples = viewed(model, None, example)
        with evaluating(model), torch.no_grad(), kept_randomness():
            view(samples)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = tuple(getattr(example, "shape", ()))
        raise ValueError(f"the model rejects an example of shape {shape}: {error}") from error
    finally:
        hook.remove()
    if not seen or len(set(seen)) > 1:
        raise ValueError(
            f"layer={layer!r} is called {len(seen)} times in one forward pass, on inputs of shapes "
            f"{sorted({tuple(shape) for shape in seen})}; a node needs one shape."
        )
    if seen[0][0] != len(samples):
        raise ValueError(
            f"layer={layer!r} receives {seen[0][0]} rows for an example of {len(samples)} samples; a node needs one "
            "row for each sample."
        )
    return tuple(seen[0][1:])

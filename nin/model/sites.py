"""Where a node enters a network: a layer, its input or its pre-activation, and the shape of the values there."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nin.model.evaluating import evaluating
from nin.support.arguments import check_choice

PLACES = ("preactivation", "input")


@dataclass(frozen=True)
class Site:
    """A layer and the side of it where noise is added.

    layer           dotted name of an nn.Linear or a convolution
    at              "preactivation": on the output of the layer; "input": on the representation that enters it
    shape           of a sample there: (features,); (channels,) after a convolution, (channels, *pixels) before it
    channels_first  whether values are (batch, channels, *pixels), as for convolutions; else (batch, ..., features)
    """

    layer: str
    at: str
    shape: tuple[int, ...]
    channels_first: bool

    def add(
        self, values: Float[Tensor, "*values"], eps: Float[Tensor, "batch nodes"], niw: Float[Tensor, " nodes *shape"]
    ) -> Float[Tensor, "*values"]:
        """values + eps W_NI, eps (batch, nodes), niw (nodes, *shape): the same for all tokens or output pixels.

        Raises ValueError if values do not have the shape that the site was made for, samples first.
        """
        batch, rank = len(eps), len(self.shape)
        between = [1] * (values.dim() - 1 - rank)
        ours = values.shape[1 : 1 + rank] if self.channels_first else values.shape[1:][-rank:]
        if values.shape[:1] != (batch,) or ours != self.shape:
            raise ValueError(
                f"layer={self.layer!r} has {self.at} of shape {tuple(values.shape)}, but the node was made for "
                f"{self.shape} in each of {batch} samples, on the first axis. Inject with an example of the same size; "
                "a layer with samples on the second axis, or with several rows per sample, cannot take a node (in "
                "transformers, set batch_first=True)."
            )
        if not between:  # in one pass over the values
            return torch.addmm(values.flatten(1), eps, niw.flatten(1)).view(values.shape)
        shift = eps @ niw  # (batch, features or channels)
        return values + shift.view((batch, -1, *between) if self.channels_first else (batch, *between, -1))


def find_site(model: nn.Module, layer: str, *, at: str | None = None, example: Tensor | None = None) -> Site:
    """The site of a layer: by default the pre-activation of an nn.Linear, and the input of a convolution (eq. (2)).

    example: one or more input samples of the model; needed for the number of pixels that enter a convolution.
    Raises ValueError for an unknown layer, listing the candidates, or one that cannot take a node, with the reason.
    """
    module = find_layer(model, layer)
    convolution = isinstance(module, _ConvNd)
    at = ("input" if convolution else "preactivation") if at is None else at
    check_choice("at", at, PLACES)
    _check_weight(model, layer, module.weight)
    if not convolution:
        shape = (module.out_features,) if at == "preactivation" else (module.in_features,)
    elif at == "preactivation":
        shape = (module.out_channels,)
    elif example is None:
        raise ValueError(
            f"example=None: the node has one weight for each channel and pixel that feeds {layer!r}; pass example=x, "
            "a batch of the model's inputs, or at='preactivation' for one weight for each output channel."
        )
    else:
        shape = _seen(model, module, layer, example)
    return Site(layer, at, shape, channels_first=convolution)


def linear_layers(model: nn.Module) -> list[str]:
    """Return the dotted names of a model's nn.Linear layers, in the order of model.named_modules()."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _takes_a_node(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, _ConvNd)) and not isinstance(module, _ConvTransposeNd)


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The module of a layer; ValueError if it is unknown (candidates are listed) or cannot take a node (and why)."""
    modules = dict(model.named_modules())
    attention = [name for name, module in modules.items() if isinstance(module, nn.MultiheadAttention)]
    never_called = {f"{name}.out_proj".lstrip(".") for name in attention}
    candidates = [name for name, module in modules.items() if _takes_a_node(module) and name not in never_called]
    if layer in never_called:
        raise ValueError(
            f"layer={layer!r} takes no node: nn.MultiheadAttention uses its weight and never calls it. Layers that do: "
            f"{', '.join(candidates) or 'none'}."
        )
    if layer not in candidates:
        kind = type(modules[layer]).__name__ if layer in modules else None
        what = f"is a {kind}, neither an nn.Linear nor a convolution" if kind else "is not in the model"
        raise ValueError(f"layer={layer!r} {what}; layers that take a node are: {', '.join(candidates) or 'none'}.")
    for name, module in modules.items():
        if isinstance(module, nn.TransformerEncoderLayer) and layer.startswith(f"{name}.".lstrip(".")):
            if not module.self_attn.batch_first:
                raise ValueError(
                    f"layer={layer!r} gets tokens on the first axis and samples on the second, which a node would "
                    "confuse. Build its nn.TransformerEncoderLayer with batch_first=True."
                )
    return modules[layer]


def _check_weight(model: nn.Module, layer: str, weight: Tensor) -> None:
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"layer={layer!r} has weights of {weight.dtype}, too coarse for a node's noise and gradients; use "
            "float32 or float64 (mixed precision by torch.autocast keeps its weights in float32)."
        )
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise ValueError(f"model is spread over several devices: {', '.join(devices)}. Move it to one first.")


def _seen(model: nn.Module, module: nn.Module, layer: str, example: Tensor) -> tuple[int, ...]:
    """The shape of one sample at the layer's input; the model is not changed."""
    seen: list[torch.Size] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(example)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = tuple(getattr(example, "shape", ()))
        raise ValueError(f"the model rejects an example of shape {shape}: {error}") from error
    finally:
        hook.remove()
    if len(seen) != 1:
        raise ValueError(f"layer={layer!r} is called {len(seen)} times in one forward pass; a node needs one call.")
    if seen[0][0] != len(example):
        raise ValueError(
            f"layer={layer!r} receives {seen[0][0]} rows for an example of {len(example)} samples; a node needs one "
            "row for each sample."
        )
    return tuple(seen[0][1:])

"""Which layers of a network can take a node: linear layers of any library, convolutions and embeddings."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedTensorMixin

from nin.model.views import check_model, origin
from nin.support.arguments import check_kind

WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DataParallel")


def feature_count(module: nn.Module, at: str) -> int:
    """The number of features that leave (at="preactivation") or enter (at="input") a linear layer or an embedding."""
    if isinstance(module, nn.Embedding):
        return module.embedding_dim
    if _is_transposed_linear(module):
        return module.nf if at == "preactivation" else len(module.weight)
    return module.out_features if at == "preactivation" else module.in_features


def weight_like(model: nn.Module, layer: str) -> Tensor:
    """A tensor with the dtype and device that a node at the layer has: the layer's first floating parameter or buffer.

    For a layer without one, as quantised layers are, the model's first. The layer's `weight` is not read, because a
    parametrised one (spectral norm) changes its buffers when it is.
    """
    for module in (model.get_submodule(layer), model):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                return tensor.detach()
    raise ValueError("model has no floating-point parameter, so that a node has no precision to take.")


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The module of a layer; ValueError if it is unknown (candidates are listed) or cannot take a node (and why)."""
    check_model(model)
    check_kind("layer", layer, str, "the dotted name of a layer, as in model.named_modules()")
    modules = dict(model.named_modules(remove_duplicate=False))
    _check_not_wrapped(model, layer)
    attention = [name for name, module in modules.items() if isinstance(module, nn.MultiheadAttention)]
    never_called = {f"{name}.out_proj".lstrip(".") for name in attention}
    unique = [name for name, module in model.named_modules() if takes_a_node(module) and name not in never_called]
    if layer in never_called:
        raise ValueError(
            f"layer={layer!r} takes no node: nn.MultiheadAttention uses its weight and never calls it. Layers that do: "
            f"{', '.join(unique) or 'none'}."
        )
    if layer not in modules or not takes_a_node(modules[layer]):
        kind = type(modules[layer]).__name__ if layer in modules else None
        what = f"is a {kind}, not a linear layer, convolution or embedding" if kind else "is not in the model"
        raise ValueError(f"layer={layer!r} {what}; layers that take a node are: {', '.join(unique) or 'none'}.")
    if any(isinstance(p, UninitializedTensorMixin) for p in modules[layer].parameters()):
        raise ValueError(f"layer={layer!r} is lazy and has no weights yet; run the model once before inject.")
    return modules[layer]


def takes_a_node(module: nn.Module) -> bool:
    """Whether a module is an nn.Linear or acts like one, a convolution, or an embedding."""
    if isinstance(module, (nn.Linear, _ConvNd, nn.Embedding)) or _is_transposed_linear(module):
        return True
    sizes = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    return all(isinstance(size, int) for size in sizes)  # linear layers of other libraries: adapted, quantised, graph


def second_axis(model: nn.Module) -> str | None:
    """The name of a module that expects samples on the second axis (batch_first=False), if the model has one."""
    for name, module in model.named_modules():
        if getattr(module, "batch_first", None) is False:
            return name
    return None


def _is_transposed_linear(module: nn.Module) -> bool:
    """Whether a module is the Conv1D of GPT-2: a linear layer with weight (in, out) and `nf` outputs."""
    weight = getattr(module, "weight", None) if hasattr(module, "nf") else None
    return isinstance(weight, Tensor) and weight.dim() == 2 and weight.shape[1] == module.nf


def check_hookable(model: nn.Module, layers: Iterable[str]) -> None:
    """ValueError for a layer that a compiled or scripted module holds: it would not call a hook of a probe."""
    for layer in layers:
        for what, module in _holders(model, layer):
            if _is_compiled(module) or isinstance(module, torch.jit.ScriptModule):
                raise ValueError(
                    f"{what} is compiled or scripted, and skips the hooks that read layer {layer!r}. Pass the module "
                    "from before it was compiled (`_orig_mod`)."
                )


def _check_not_wrapped(model: nn.Module, layer: str) -> None:
    """ValueError if a module that holds the layer is compiled or distributed, where nodes do not work."""
    for what, module in _holders(model, layer):
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{what} is scripted or traced by torch.jit, whose layers cannot be hooked. Inject into the nn.Module "
                "that it was made from."
            )
        if _is_compiled(module):
            raise ValueError(
                f"{what} is compiled, and a compiled module does not call the node at {layer!r}. Inject first, then "
                "compile: torch.compile(nin.inject(model, ...))."
            )
        kinds = [kind.__name__ for kind in type(module).__mro__ if kind.__name__ in WRAPPERS]
        if kinds:
            raise ValueError(
                f"{what} is a {kinds[0]}, which would not synchronise the noise injection weights. Inject "
                "first, then wrap."
            )


def _holders(model: nn.Module, layer: str) -> Iterator[tuple[str, nn.Module]]:
    """The model, and each module on the way to a layer, the layer included; each with what to call it in a sentence."""
    yield "model", origin(model)
    for name, module in model.named_modules(remove_duplicate=False):
        if name and (layer == name or layer.startswith(f"{name}.")):
            yield f"its module {name!r}", module


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None

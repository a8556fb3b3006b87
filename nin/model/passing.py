"""Which arguments of a call `noisy(...)` are the noise, and which are inputs of the network."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

Noise = Tensor | Mapping[str, Tensor] | float


def split(
    network: nn.Module, nodes: int, inputs: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[Noise | None, tuple[Any, ...], dict[str, Any]]:
    """The noise in a call, or None, and the network's own arguments.

    The noise is the keyword `noise`, unless the network's forward has an argument of this name, or one positional
    argument more than forward can take. Raises ValueError for a last positional argument that could be either: a
    matrix (batch, nodes) for an argument with a default.
    """
    if len(inputs) < 2 and "noise" not in keywords:  # nothing to decide
        return None, inputs, keywords
    positional, names = parameters_of(network)
    if "noise" in keywords and "noise" not in names:
        keywords = dict(keywords)
        return keywords.pop("noise"), inputs, keywords
    if positional is None or len(inputs) < 2:  # any number of inputs, or a single one
        return None, inputs, keywords
    free = [name for name in positional if name not in keywords]
    if len(inputs) == len(free) + 1:
        return inputs[-1], inputs[:-1], keywords
    last = inputs[-1]
    optional = len(inputs) <= len(free) and names[free[len(inputs) - 1]].default is not inspect.Parameter.empty
    if optional and isinstance(last, Tensor) and last.is_floating_point() and _rows(inputs[0]) is not None:
        if tuple(last.shape) == (_rows(inputs[0]), nodes):
            name = free[len(inputs) - 1]
            raise ValueError(
                f"the second argument, of shape {tuple(last.shape)}, could be noise or the model's own {name!r}. For "
                f"noise write noisy(x, noise=eps) or `with noisy.using(eps):`; for the model, {name}=..."
            )
    return None, inputs, keywords


def parameters_of(network: nn.Module) -> tuple[list[str] | None, Mapping[str, inspect.Parameter]]:
    """The positional arguments of a network's forward (None: any number, or unknown), and all its named ones."""
    while "_orig_mod" in network._modules:
        network = network._modules["_orig_mod"]
    try:
        signature = inspect.signature(network.forward)
    except (ValueError, TypeError):  # of a traced module, or of one whose forward is not Python
        return None, {}
    kinds = inspect.Parameter
    named = {
        name: p for name, p in signature.parameters.items() if p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
    }
    if any(p.kind is kinds.VAR_POSITIONAL for p in signature.parameters.values()):
        return None, named
    return [name for name, p in named.items() if p.kind is not kinds.KEYWORD_ONLY], named


def tensors(inputs: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings of inputs."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from tensors(value)
    elif isinstance(inputs, (tuple, list)):
        for value in inputs:
            yield from tensors(value)


def _rows(x: Any) -> int | None:
    return len(x) if isinstance(x, Tensor) and x.dim() else None

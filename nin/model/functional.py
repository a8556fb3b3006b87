"""Call a network with other values in place of its parameters and buffers; the network itself is not touched."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def slots(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each place that holds a parameter or a buffer, once: a dotted name, and the tensor there.

    A module with two names (an alias) has one place, a tensor that two modules share (tied weights) has two.
    """
    for prefix, module in model.named_modules():  # each module once, under its first name
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    yield f"{prefix}.{name}".lstrip("."), tensor


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters, detached, under the names of model.named_parameters()."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def call_with(
    model: nn.Module, values: Mapping[str, Tensor], inputs: Sequence[Any], keywords: Mapping[str, Any] | None = None
) -> Any:
    """model(*inputs, **keywords) with these values of parameters and buffers; all others are constants.

    values   by the names of model.named_parameters() and model.named_buffers(); a tied tensor is changed in all places
    Unlike `torch.func.functional_call` it leaves a module that is reachable by two names as it was.
    """
    named = dict([*model.named_parameters(), *model.named_buffers()])
    given = {id(named[name]): value for name, value in values.items()}
    everywhere = {name: given.get(id(tensor), tensor.detach()) for name, tensor in slots(model)}
    return functional_call(model, everywhere, tuple(inputs), dict(keywords or {}), tie_weights=False)

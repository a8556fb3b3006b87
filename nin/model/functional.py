"""Call a network with other values in place of its parameters and buffers; the network itself is not touched."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations

CHECKPOINTS = ("saved tensor hooks", "setup_context", "incompatible with .grad()")  # in torch's errors
UNUSED = "to not have been used in the graph"


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
    Raises ValueError for a model that computes a weight in a hook, or that a gradient checkpoint makes not derivable.
    """
    check_plain_weights(model)
    named = dict([*model.named_parameters(), *model.named_buffers()])
    given = {id(named[name]): value for name, value in values.items()}
    everywhere = {name: given.get(id(tensor), tensor.detach()) for name, tensor in slots(model)}
    with naming_derivatives(), _by_formula(model):
        return functional_call(model, everywhere, tuple(inputs), dict(keywords or {}), tie_weights=False)


@contextmanager
def _by_formula(model: nn.Module) -> Iterator[None]:
    """Let modules compute by their formula for which torch's kernel has no second derivatives, or wrong ones.

    That of weight norm takes the norms for constants in double backward; that of the hard sigmoid has none.
    """
    replaced = [module for module in model.modules() if type(module) in FORMULAS and "forward" not in vars(module)]
    for module in replaced:
        module.forward = partial(FORMULAS[type(module)], module)
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


def _weight_norm(module: nn.Module, g: Tensor, v: Tensor) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, module.dim))


def _hard_sigmoid(module: nn.Module, x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


FORMULAS = {parametrizations._WeightNorm: _weight_norm, nn.Hardsigmoid: _hard_sigmoid}


def check_plain_weights(model: nn.Module) -> None:
    """ValueError for a weight that a hook computes from others (old-style weight norm, pruning), naming its module."""
    for name, module in model.named_modules():
        for held, value in vars(module).items():
            if isinstance(value, Tensor) and any(f"{held}_{end}" in module._parameters for end in ("v", "orig")):
                raise ValueError(
                    f"model: its module {name!r} computes a weight in a hook (as old-style weight_norm and pruning "
                    "do), which would keep what a probe puts there. Use torch.nn.utils.parametrizations, or make the "
                    "weight permanent (remove_weight_norm, prune.remove)."
                )


@contextmanager
def naming_derivatives() -> Iterator[None]:
    """Turn torch's errors about derivatives that it cannot take into a ValueError that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if UNUSED in str(error):
            raise ValueError(
                "the loss does not depend on the layer: the outputs do not use it, or a reentrant gradient checkpoint "
                "hides it. Switch checkpointing off for the measurement: no value depends on it."
            ) from error
        if lacking := re.search(r"derivative for (aten::\w+) is not implemented", str(error)):
            raise ValueError(
                f"model uses an operation whose second derivative torch lacks ({lacking[1]}). Replace it by its "
                "formula in elementary operations for the measurement."
            ) from error
        if not any(part in str(error) for part in CHECKPOINTS):
            raise
        raise ValueError(
            "model uses gradient checkpointing, or a torch.autograd.Function of its own without setup_context, whose "
            "derivatives torch cannot take here. Switch checkpointing off for the measurement: no value depends on it."
        ) from error

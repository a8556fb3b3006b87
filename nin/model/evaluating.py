"""Eval mode as a context that restores the previous mode of every module."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from nin.model.views import origin

SHARDED = ("FSDPModule", "FullyShardedDataParallel")


def check_whole(model: nn.Module) -> None:
    """ValueError for a model that FSDP shards: its parameters are whole during a pass only, and cannot be copied."""
    for name, module in model.named_modules():
        if any(kind.__name__ in SHARDED for kind in type(origin(module)).__mro__):
            what = f"its module {name!r}" if name else "it"
            raise ValueError(
                f"model: {what} is sharded by FSDP, so that its parameters are whole during a pass only. Measure a "
                "network that is not sharded, with the full state dict loaded (torch.distributed.checkpoint)."
            )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and restore the mode of each of its modules afterwards.

    Raises ValueError for a model that FSDP shards.
    """
    check_whole(model)
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

"""The noisy network inside what a trainer trains, and its record in the trainer's loggers."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from nin.model.nodes import NoisyNetwork
from nin.training.record import Record


def the_noisy(module: nn.Module) -> NoisyNetwork:
    """The only noisy network in a module; ValueError if it has none or several, or one that all ranks must call."""
    found = [part for part in module.modules() if isinstance(part, NoisyNetwork)]
    if len(found) != 1:
        raise ValueError(
            f"the {type(module).__name__} in training holds {len(found)} noisy networks; a record is of exactly one: "
            "nin.inject(model, layer, sigma=...)."
        )
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    if group and any(isinstance(part, nn.SyncBatchNorm) for part in found[0].modules()):
        raise ValueError(
            "SyncBatchNorm waits for all processes, and the first one alone records: call nin.Record in a loop of your "
            "own, on every process."
        )
    return found[0]


def report(record: Record, step: int, loggers: Sequence[Callable[..., object]]) -> None:
    """Pass the last row, if it is of this step, to loggers; one that fails is named in a warning."""
    row = record.last
    if row is None or row["step"] != step:
        return
    values = {f"nin/{name}": value for name, value in row.items() if name != "step" and value == value}
    for log in loggers:
        try:
            log(values, step=step)
        except Exception as error:
            warnings.warn(f"a logger failed at step {step}, the record has the numbers: {error}", stacklevel=2)

"""User-defined probes, good and bad; importable by worker processes."""

import pandas as pd
import torch
from torch import Tensor, nn


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
    """One row: the fraction of the probe set that is classified correctly."""
    right = (model(x).argmax(1) == y).double().mean().item()
    return pd.DataFrame({"quantity": ["accuracy"], "value": [right]})


def by_layer(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
    """One row per tensor: its norm, and a random number fixed by the seed."""
    rows = [(name, tensor.norm().item(), torch.rand(1).item()) for name, tensor in model.named_parameters()]
    return pd.DataFrame(rows, columns=["layer", "norm", "draw"])


def fails_when_trained(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
    """Raises once the network classifies more than 30 % correctly."""
    if accuracy(model, x, y)["value"][0] > 0.3:
        raise RuntimeError("too\ngood")
    return accuracy(model, x, y)


class Scaled:
    """A probe with a setting."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
        return pd.DataFrame({"value": [self.factor * model(x).detach().square().mean().item()]})


def named_if_positive(model, x, y):
    """Text and a number for networks whose first weights sum to more than 0, nothing for others."""
    positive = bool(next(model.parameters()).sum() > 0)
    return pd.DataFrame({"name": ["positive" if positive else None], "count": [1 if positive else None]})

"""The control numbers kappa of a run in anybody's loop, at its first step."""

import inspect
import math
import warnings
from collections.abc import Callable

import torch

from nin.model.independence import statistics_of
from nin.model.nodes import NoisyNetwork
from nin.model.views import Forward, Inputs, numbered
from nin.probes.curvature import critical_rate, top_mode
from nin.probes.curvature.trials import Loss

SAMPLES = 256  # of kappa_H
SEED = 0  # of the batches and the noise that kappa_1 tries


def kappas(
    noisy: NoisyNetwork,
    x: Inputs,
    y: Inputs,
    *,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    forward: Forward | None = None,
) -> dict[str, float]:
    """kappa_1 = 2 lr / eta_1 of the optimiser; of plain SGD kappa_H = lr sigma^2 lambda_H too, the largest layer.

    eta_1 is `critical_rate` for one step; another optimiser than plain SGD is made anew with its defaults. NaN, with a
    warning, where a number is refused.
    """
    lr, plain = float(optimizer.param_groups[0]["lr"]), _is_plain(optimizer)
    found = {"kappa_1": math.nan, "kappa_H": math.nan}
    rows, (numbers,) = numbered("x", x)
    try:
        options = {"generator": torch.Generator().manual_seed(SEED), "optimizer": None if plain else _anew(optimizer)}
        rate = critical_rate(noisy, x, y, loss=loss, batch_size=batch_size, forward=forward, **options).rate
        found["kappa_1"] = 2 * lr / rate if rate else math.inf
        if plain and rows is None and forward is None:
            some, targets = numbers[:SAMPLES], y[:SAMPLES]
            with statistics_of(noisy.network, some):
                pairs = zip(noisy.layers, noisy.sigmas, strict=True)
                sizes = [s**2 * top_mode(noisy.network, layer, some, targets, loss=loss).lam for layer, s in pairs]
            found["kappa_H"] = lr * max(sizes)
    except ValueError as error:
        missing = " and ".join(name for name, value in found.items() if math.isnan(value))
        warnings.warn(f"{missing} cannot be measured: {error}", stacklevel=3)
    return found


def _is_plain(optimizer: torch.optim.Optimizer) -> bool:
    return type(optimizer) is torch.optim.SGD and not any(group["momentum"] for group in optimizer.param_groups)


def _anew(optimizer: torch.optim.Optimizer) -> Callable[[list[torch.Tensor], float], torch.optim.Optimizer]:
    known = inspect.signature(type(optimizer)).parameters  # some defaults are no arguments
    options = {name: value for name, value in optimizer.defaults.items() if name in known}

    def make(parameters: list[torch.Tensor], lr: float) -> torch.optim.Optimizer:
        return type(optimizer)(parameters, **{**options, "lr": lr})

    return make

"""The control numbers kappa of a run in anybody's loop, at its first step."""

import inspect
import math
import warnings
from typing import Any

import torch
from torch import Tensor

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
    """kappa_1 = 2 lr / eta_1 of the optimiser; of SGD kappa_H = lr sigma^2 lambda_H too, the largest of the layers.

    eta_1 is `critical_rate` for one step. Another optimiser than plain SGD is made anew, with the settings of its first
    group. NaN, with a warning, where a number cannot be measured, or if the groups differ in more than weight decay.
    """
    found = {"kappa_1": math.nan, "kappa_H": math.nan}
    rows, (numbers,) = numbered("x", x)
    try:
        settings = _settings(optimizer)
        lr, sgd = float(settings.pop("lr")), type(optimizer) is torch.optim.SGD
        options = {"generator": torch.Generator().manual_seed(SEED), "forward": forward}
        plain = sgd and not any(settings[k] for k in ("momentum", "weight_decay", "maximize"))
        anew = None if plain else lambda parameters, lr: type(optimizer)(parameters, lr=lr, **settings)
        rate = critical_rate(noisy, x, y, loss=loss, batch_size=batch_size, optimizer=anew, **options).rate
        found["kappa_1"] = 2 * lr / rate if rate else math.inf
        if sgd and rows is None and forward is None:
            found["kappa_H"] = lr * _strongest(noisy, numbers[:SAMPLES], y[:SAMPLES], loss)
    except (ValueError, RuntimeError) as error:  # torch's own, of networks or devices that a probe does not know
        missing = " and ".join(name for name, value in found.items() if math.isnan(value))
        warnings.warn(f"{missing} cannot be measured: {error}", stacklevel=3)
    return found


def _strongest(noisy: NoisyNetwork, x: Tensor, y: Inputs, loss: Loss) -> float:
    """sigma^2 lambda_H, the largest of the layers, each on the side where its node is."""
    with statistics_of(noisy.network, x):
        return max(
            sigma**2 * top_mode(noisy.network, site.layer, x, y, loss=loss, at=site.at).lam
            for site, sigma in zip(noisy.sites, noisy.sigmas, strict=True)
        )


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What the groups of an optimiser share, as arguments that make it anew; ValueError if they differ."""
    known = inspect.signature(type(optimizer)).parameters  # some entries of a group are no arguments
    groups = optimizer.param_groups
    first, *others = [{k: v for k, v in group.items() if k in known and k != "params"} for group in groups]
    differ = sorted({k for other in others for k in first if first[k] != other[k]} - {"weight_decay"})
    if differ:
        raise ValueError(f"the parameter groups of the optimiser differ in {', '.join(differ)}.")
    return first

"""The learning rate along a run, and by how much weight decay alone shrinks the noise injection weights with it."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nin.training.config import RunConfig


def factor(config: RunConfig, step: int) -> float:
    """The learning rate of an update over `lr`: the warm-up, min(1, (t + 1) / warmup), times the schedule.

    cosine: (1 + cos(pi t / steps)) / 2;  steps: drop^(number of milestones <= t).

    >>> config = RunConfig(steps=100, warmup=4, schedule="steps", milestones=(50,))
    >>> [factor(config, step) for step in (0, 1, 10, 50)]
    [0.25, 0.5, 1.0, 0.1]
    """
    rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        return rise * (1 + math.cos(math.pi * step / max(config.steps, 1))) / 2
    if config.schedule == "steps":
        return rise * config.drop ** sum(step >= milestone for milestone in config.milestones)
    return rise


def niw_decay(config: RunConfig, steps: Sequence[int]) -> Float[np.ndarray, " R"]:
    """The factor (R,) by which weight decay alone has shrunk |W_NI| before the update of each step; NaN if unknown.

    AdamW and SGD: prod_t (1 - lr_t decay); with momentum mu the solution of v <- mu v + decay w, w <- w - lr_t v
    (Nesterov: w - lr_t (decay w + mu v)). Adam adds the decay to the gradient, which it then divides by the size of
    past gradients: no factor is known.

    >>> niw_decay(RunConfig(lr=0.1, weight_decay=0.5), [0, 1, 2])
    array([1.    , 0.95  , 0.9025])
    """
    if not config.weight_decay or not config.decay_node or not config.nodes:
        return np.ones(len(steps))
    if config.optimizer == "adam":
        return np.where(np.asarray(steps) == 0, 1.0, np.nan)
    w, v, shrunk = 1.0, 0.0, [1.0]
    for step in range(max(steps, default=0)):
        pull = config.weight_decay * w
        v = config.momentum * v + pull
        w -= config.lr * factor(config, step) * (pull + config.momentum * v if config.nesterov else v)
        shrunk.append(w)
    return np.array(shrunk)[np.asarray(steps, dtype=int)]

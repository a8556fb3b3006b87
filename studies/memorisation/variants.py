"""The same reading in other layers, widths, batch sizes and networks, with settings that stay as they are."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn

from nin.model.dataset import Dataset
from nin.training.config import RunConfig
from nin.training.start import build, layer_names
from studies.image_networks import SmallConvolutional
from studies.memorisation.measure import Run, follow
from studies.memorisation.stopping import turns

CASES: dict[str, dict[str, Any]] = {
    "as above": {},
    "second layer": {"layer": 1},
    "third layer": {"layer": 2},
    "width 32": {"widths": (32, 32, 32)},
    "width 128": {"widths": (128, 128, 128)},
    "batch size 16": {"batch_size": 16},
    "batch size 64": {"batch_size": 64},
    "convolutional": {"layer": "dense"},
}


def factory_of(case: str, data: Dataset) -> Callable[[], nn.Module] | None:
    """The network of a case, if it is not the MLP of its config."""
    if case != "convolutional":
        return None
    side = round(data.x_train.shape[1] ** 0.5)
    return lambda: SmallConvolutional(side=side, channels=8, classes=data.classes)


@torch.no_grad()
def input_norm(base: RunConfig, data: Dataset, network: Callable[[], nn.Module] | None = None) -> float:
    """sqrt(mean |h|^2) of what enters the layer of the node, over the training samples, before training.

    The noise competes with the inputs as a feature that identifies a sample: sigma is meant as a share of this norm.
    """
    model, seen = build(base, data, network), []
    module = model.get_submodule(layer_names(base, model)[0])
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1).square().sum(1).mean()))
    model(data.x_train)
    hook.remove()
    return float(seen[0]) ** 0.5


def across(
    base: RunConfig,
    data: Dataset,
    *,
    share: float,
    fractions: tuple[float, ...],
    seeds: int,
    cases: Mapping[str, dict[str, Any]] = CASES,
    points: int = 20,
) -> pd.DataFrame:
    """Rows of `stopping.turns` for each case, with fixed noise of sigma = share * input_norm and the same meter."""
    tables = []
    for case, changes in cases.items():
        config, network = base.replace(**changes), factory_of(case, data)
        sigma = share * input_norm(config, data, network)
        runs = [Run(fraction=fraction, sigma=sigma, seed=seed) for fraction in fractions for seed in range(seeds)]
        table = turns(follow(runs, config, data, network=network, points=points))
        tables.append(table.assign(case=case))
    return pd.concat(tables, ignore_index=True)

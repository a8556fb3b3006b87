"""`python -m nin predict name=value ...`: the phase of a run before it is trained, and where each phase begins."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

import torch

from nin.companion import pairs
from nin.model.data import load_data
from nin.model.losses import LOSSES
from nin.probes.prediction import Prediction, predict
from nin.training.config import DTYPES, RunConfig
from nin.training.loop import check_run
from nin.training.objective import Objective
from nin.training.start import build, with_node

FIELDS = (
    "dataset", "n_train", "network", "widths", "activation", "init", "loss", "layer", "sigma", "nodes", "niw_std",
    "law", "lr", "batch_size", "steps", "seed", "dtype",
)  # fmt: skip


def run(given: Sequence[str]) -> int:
    """Print the prediction for the config given as name=value."""
    print(prediction(read(given)))
    return 0


def prediction(config: RunConfig) -> Prediction:
    """The prediction, with noise scales, for the network and data of a run."""
    if not config.nodes:
        raise ValueError("nodes=0: a run without a node has no phase; set nodes=1.")
    data = load_data(config.dataset, n_train=config.n_train).to(DTYPES[config.dtype])
    network = build(config, data)
    check_run(config, network, data, Objective(config.loss))
    return predict(
        with_node(config, network, data),
        data.x_train,
        data.y_train,
        loss=LOSSES[config.loss],
        lr=config.lr,
        batch_size=config.batch_size,
        steps=config.steps,
        generator=torch.Generator().manual_seed(config.seed),
        scales=config.sigma > 0,
    )


def read(given: Sequence[str]) -> RunConfig:
    """The config given by texts name=value; ValueError for an unknown or repeated name or a value of a wrong type."""
    kinds = {field.name: field.type for field in dataclasses.fields(RunConfig)}
    return RunConfig(**{name: _value(name, text, kinds[name]) for name, text in pairs.read(given, FIELDS).items()})


def _value(name: str, text: str, kind: Any) -> Any:
    """A text as a value of a field: widths as 64,64; an integer or a number where the field allows one; else as is."""
    if name == "widths":
        parts = [_number(part, int) for part in text.split(",")]
        if None in parts:
            raise ValueError(f"widths={text!r} must be integers separated by commas, for example widths=64,64.")
        return parts
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if text == "None" and type(None) in kinds:
        return None
    for number, what in ((int, "an integer"), (float, "a number")):
        if number in kinds:
            value = _number(text, number)
            if value is None and str not in kinds:
                raise ValueError(f"{name}={text!r} must be {what}.")
            return text if value is None else value
    return text


def _number(text: str, kind: type) -> Any:
    """The number that a text stands for; None if it is not one."""
    try:
        return None if "_" in text else kind(text)
    except ValueError:
        return None

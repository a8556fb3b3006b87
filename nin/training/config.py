"""A run as a value: all fields that determine a trajectory, with their defaults, validated and frozen."""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch

from nin.model.data import DATASETS
from nin.model.losses import LOSSES
from nin.model.networks import ACTIVATIONS, INITS
from nin.model.noise import LAWS
from nin.support.arguments import check_choice, check_count, check_number

NETWORKS = ("mlp", "linear")
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "steps")
RESAMPLE = ("step", "epoch", "fixed")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Integer = int | np.integer  # NumPy integers, as grids yield them, are stored as int
STREAMS = ("weights", "niw", "order", "noise", "curvature", "thermometer", "augmentation", "dropout")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a training run with a noise injection node (arXiv 2210.13599).

    The paper does not state its widths, learning rates, batch sizes and initial NIW; the defaults are those of a
    small run on scikit-learn's digits that shows all four phases within a minute.

    dataset        name for nin.load_data
    n_train        size of a balanced training subset; None: all
    network        "mlp", or "linear": the two-layer linear net (widths holds its single width N)
    widths         widths of the hidden layers; the paper's network has three
    activation     "relu" (the paper's), "tanh", "softplus", "linear"
    init           "he" or "ntk" (nin.model.networks.MLP); the linear net is always "ntk"
    loss           "cross_entropy", or "mse" = 1/2 sum of squared errors, mean over the batch (labels become one-hot)
    layer          the linear layer that the node feeds: its index, or a dotted name, of a layer of any kind that
                   `nin.inject` takes; several of them: a node in each
    sigma          standard deviation of the noise eps
    nodes          number of nodes of each layer; 0: none
    niw_std        standard deviation of the initial NIW entries; None: d_out^(-1/2), so |W_NI(0)| is about 1
                   (1 for the linear net, as in the linear test case)
    law            "gaussian", "uniform", "rademacher", all of standard deviation sigma
    resample       noise re-drawn each "step", each "epoch" (one eps per sample and epoch), or "fixed"
    optimizer      "sgd" (the paper's: vanilla), "adam" (weight decay by the gradient) or "adamw" (apart from it)
    lr, momentum, nesterov, weight_decay   of the optimiser; the paper's SGD has momentum = weight_decay = 0
    decay_node     whether weight decay acts on W_NI too, which looks like the decay phase
    schedule       of the learning rate: "constant", "cosine" (from lr to 0 over the run), "steps" (times `drop` at each
                   of the `milestones`)
    warmup         steps in which it rises first: times (t + 1) / warmup
    milestones, drop   of the schedule "steps"
    clip           gradients are scaled down to this norm, that of all weights together; None: never
    batch_size     samples per step; the last, smaller batch of an epoch is left out
    steps          number of optimiser steps
    record_every   steps between records of the noisy loss and the NIW norm after step 50
    eval_points    number of log-spaced steps at which the clean losses are measured; 0: nowhere, which makes short runs
                   on large data sets several times faster
    eval_samples   number of samples for the clean losses (the first ones); at the start and the end all are used
    curvature_pairs  pairs +-eps drawn for each of these samples to estimate kappa_avg at step 0; 0: no curvature is
                   measured there, and lambda_H, kappa_H, kappa_avg and noise_output are NaN
    seed           fixes initial weights, batch order, noise, dropout and augmentation
    dtype          "float32" or "float64"
    autocast       whether the forward passes run under torch.autocast in bfloat16

    Raises ValueError for any value that is not allowed, naming the field, the value and the allowed values.
    """

    dataset: str = "digits"
    n_train: Integer | None = None
    network: str = "mlp"
    widths: Sequence[int] = (128, 128, 128)
    activation: Literal["relu", "tanh", "softplus", "linear"] = "relu"
    init: Literal["he", "ntk"] = "he"
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    layer: Integer | str | Sequence[Integer | str] = 0
    sigma: float = 1.0
    nodes: Integer = 1
    niw_std: float | None = None
    law: Literal["gaussian", "uniform", "rademacher"] = "gaussian"
    resample: Literal["step", "epoch", "fixed"] = "epoch"
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_node: bool = True
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    warmup: Integer = 0
    milestones: Sequence[Integer] = ()
    drop: float = 0.1
    clip: float | None = None
    batch_size: Integer = 128
    steps: Integer = 1500
    record_every: Integer = 10
    eval_points: Integer = 30
    eval_samples: Integer = 1024
    curvature_pairs: Integer = 4
    seed: Integer = 0
    dtype: Literal["float32", "float64"] = "float32"
    autocast: bool = False

    def __post_init__(self) -> None:
        for name, least in (("widths", 1), ("milestones", 0)):
            given = getattr(self, name)
            try:
                values = None if isinstance(given, (str, Mapping, Set)) else tuple(plain(value) for value in given)
            except TypeError:
                values = None
            if values is None:
                raise ValueError(f"{name}={given!r} must be a sequence of integers >= {least}.")
            object.__setattr__(self, name, values)
        if isinstance(self.layer, Sequence) and not isinstance(self.layer, str):
            layers = tuple(plain(layer) for layer in self.layer)
            object.__setattr__(self, "layer", layers[0] if len(layers) == 1 else layers)
        for field in dataclasses.fields(self):  # NumPy scalars, as grids yield them, become plain numbers
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        for width in self.widths:
            check_count("widths", width)
        for name in ("batch_size", "record_every", "eval_samples"):
            check_count(name, getattr(self, name))
        if self.eval_points == 1:
            raise ValueError("eval_points=1 must be 0 (no clean losses) or at least 2, the first and the last step.")
        for name in ("eval_points", "curvature_pairs", "steps", "nodes", "seed", "warmup"):
            check_count(name, getattr(self, name), minimum=0)
        for step in self.milestones:
            check_count("milestones", step, minimum=0)
        for name in ("nesterov", "decay_node", "autocast"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be True or False.")
        if self.n_train is not None:
            check_count("n_train", self.n_train)
            if self.batch_size > self.n_train:
                raise ValueError(f"batch_size={self.batch_size} is larger than n_train={self.n_train}; lower it.")
        check_number("sigma", self.sigma)
        check_number("lr", self.lr, exclusive=True)
        for name in ("momentum", "weight_decay"):
            check_number(name, getattr(self, name))
        if self.momentum >= 1:
            raise ValueError(f"momentum={self.momentum!r} must lie in [0, 1).")
        if self.niw_std is not None:
            check_number("niw_std", self.niw_std)
        check_choice("dataset", self.dataset, DATASETS)
        check_choice("network", self.network, NETWORKS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("init", self.init, INITS)
        check_choice("loss", self.loss, LOSSES)
        check_choice("law", self.law, LAWS)
        check_choice("resample", self.resample, RESAMPLE)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("dtype", self.dtype, DTYPES)
        for layer in self.layers:
            if not isinstance(layer, str):
                check_count("layer", layer, minimum=0)
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layer={self.layer!r} must be a layer, or a sequence of different layers.")
        if self.network == "linear" and len(self.widths) != 1:
            raise ValueError(f"widths={self.widths!r}: the linear net has one width, for example widths=(1000,).")
        self._check_optimizer()
        for field in dataclasses.fields(self):  # so that 1 and 1.0 are the same run
            if field.type in (float, float | None) and getattr(self, field.name) is not None:
                object.__setattr__(self, field.name, float(getattr(self, field.name)) + 0.0)  # and 0.0 is -0.0

    def _check_optimizer(self) -> None:
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError(
                f"momentum={self.momentum!r} applies to optimizer='sgd' only; leave it at 0 with {self.optimizer!r}."
            )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs optimizer='sgd' with a momentum above 0.")
        if self.clip is not None:
            check_number("clip", self.clip, exclusive=True)
        check_number("drop", self.drop, exclusive=True)
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError(
                f"schedule={self.schedule!r} with milestones={self.milestones!r}: schedule='steps' and milestones, the "
                "steps at which the learning rate drops, belong together."
            )
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise ValueError(f"milestones={self.milestones!r} must increase: steps, in their order, each once.")

    @property
    def layers(self) -> tuple[int | str, ...]:
        """The layers that have nodes, as they are given."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    def replace(self, **changes: Any) -> "RunConfig":
        """Return a copy with some fields changed, validated anew."""
        for name in changes:
            check_choice("field", name, [field.name for field in dataclasses.fields(self)])
        return dataclasses.replace(self, **changes)

    def as_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def as_text(self) -> dict[str, Any]:
        """All fields as one value each, several values as text: widths 128x128x128, layers a, b."""
        several = {"widths": "x".join(map(str, self.widths)), "milestones": ", ".join(map(str, self.milestones))}
        layer = {"layer": ", ".join(map(str, self.layers))} if len(self.layers) > 1 else {}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | several | layer

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON values: they make up the key of the run store.

        A new field whose default changes nothing therefore leaves the keys of stored runs unchanged.
        """
        defaults = _defaults()
        return {name: value for name, value in self.as_json().items() if value != defaults[name]}

    def generator(self, stream: str) -> torch.Generator:
        """Return the CPU generator of one of the run's random streams (STREAMS), a function of the seed alone.

        Each purpose has its own stream: runs with the same seed share initial weights, batch order and noise draws,
        whatever else differs between them (common random numbers).
        """
        check_choice("stream", stream, STREAMS)
        entropy = np.random.SeedSequence([self.seed, STREAMS.index(stream)]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(entropy))


@cache
def _defaults() -> dict[str, Any]:
    return RunConfig().as_json()


def plain(value: Any) -> Any:
    """A NumPy scalar, as grids yield them, as a number of Python; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value

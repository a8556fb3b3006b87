"""The updates of an ensemble: one optimiser for stacked weights, or one for each member; schedule and clipping."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from nin.support.precision import matching
from nin.training.config import RunConfig
from nin.training.ensemble import Ensemble, weight_names
from nin.training.learning_rate import factor
from nin.training.one_by_one import OneByOne

Stack = Ensemble | OneByOne


class Updates:
    """Updates the weights of an ensemble from the gradients of `scale` times the losses.

    With SGD, the loss of member k of an `Ensemble` is scaled by lr_k and torch.optim.SGD has learning rate 1, so that
    members of different lr train together and each follows the trajectory it has alone. With weight decay, or Adam, all
    lr must agree. The members of `OneByOne` have an optimiser each.

    scale   factor (runs,) by which the loss of each run is to be multiplied, in float64
    """

    def __init__(self, configs: Sequence[RunConfig], stack: Stack) -> None:
        self.configs, self.first, self._stack = tuple(configs), configs[0], stack
        self.scale = torch.ones(len(configs), dtype=torch.float64)
        nodes = set(weight_names(stack.template).values())
        if isinstance(stack, OneByOne):
            named = [[(n, p) for n, p in m.named_parameters() if p.requires_grad] for m in stack.members]
            self._base = [config.lr for config in configs]
        else:
            by_loss = self.first.optimizer == "sgd" and not self.first.weight_decay
            named, self._base = [stack.parameters.items()], [1.0 if by_loss else self.first.lr]
            if by_loss:
                self.scale = torch.tensor([config.lr for config in configs], dtype=torch.float64)
            plain = by_loss and not (self.first.momentum or self.first.clip or self.first.warmup)
            if plain and self.first.schedule == "constant":  # the update is W - gradient
                stack.fold(self.first.batch_size)
        self._optimizers = [self._make(_groups(self.first, part, nodes), lr) for part, lr in zip(named, self._base)]  # noqa: B905 - equal by construction

    def step(self, step: int) -> None:
        """The update of a step, from the gradients that are there."""
        now = factor(self.first, step)
        if self.first.clip is not None:
            self._stack.clip(self.first.clip, matching(self.scale, next(iter(self._weights()))))
        if isinstance(self._stack, Ensemble):
            self._stack.descend()
        for optimizer, lr in zip(self._optimizers, self._base, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * now
            optimizer.step()

    def keep(self, members: Int[Tensor, " kept"]) -> None:
        """Keep only the members with these indices, here and in the ensemble."""
        self.scale = self.scale[members]
        if isinstance(self._stack, OneByOne):
            self._stack.keep(members)
            self._optimizers = [self._optimizers[place] for place in members]
            self._base = [self._base[place] for place in members]
        else:
            self._stack.keep(members, self._optimizers[0])

    def _weights(self) -> Iterable[Tensor]:
        return (p for optimizer in self._optimizers for group in optimizer.param_groups for p in group["params"])

    def _make(self, groups: list[dict], lr: float) -> torch.optim.Optimizer:
        kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "sgd": torch.optim.SGD,
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
        }
        first = self.first
        options = {"momentum": first.momentum, "nesterov": first.nesterov} if first.optimizer == "sgd" else {}
        return kinds[first.optimizer](groups, lr=lr, weight_decay=first.weight_decay, **options)


def _groups(config: RunConfig, named: Iterable[tuple[str, Tensor]], nodes: set[str]) -> list[dict]:
    """One group of all parameters; with decay_node=False a second one, W_NI, without weight decay."""
    named = list(named)
    if config.decay_node or not nodes:
        return [{"params": [p for _, p in named]}]
    groups = [
        {"params": [p for name, p in named if name not in nodes]},
        {"params": [p for name, p in named if name in nodes], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]

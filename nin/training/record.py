"""Record a run in any training loop: what `nin.train` records, without a change to the training."""

import copy
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nin.model.nodes import NoisyNetwork
from nin.model.views import Forward, Inputs
from nin.probes.asking import ask, check_probes
from nin.support.arguments import check_count, check_function, check_kind, check_steps, described
from nin.training.expected import SAMPLES, expected_steps
from nin.training.fixed_samples import FixedSamples
from nin.training.kappas import kappas
from nin.training.phase_reading import PhaseReading, read_phase
from nin.training.recorder import EARLY
from nin.training.trajectories import CURVES

EVERY = 10  # as `record_every` of RunConfig
EXPECTED = frozenset(expected_steps(EARLY))  # steps since the first at which the expected loss is measured
DECOUPLED = ("AdamW",)  # optimisers whose weight decay multiplies a weight by 1 - lr decay
GRADUAL = ("SGD",)  # the same, if they have no momentum


class Record:
    """Records a run while any loop trains it: noisy loss, |W_NI|, expected and clean losses, and the phase.

        record = nin.Record(noisy, optimizer, x, y, loss=loss)
        for x_batch, y_batch in loader:
            value = loss(noisy(x_batch), y_batch)
            optimizer.zero_grad()
            value.backward()
            record(value)
            optimizer.step()
        print(record.phase())

    noisy      the network in training, from `nin.inject`
    optimizer  the one that trains it: its learning rate and weight decay are recorded with each row
    x, y       training samples: 256 of them, spread evenly, with fixed noise +-eps, give the expected noisy loss that
               `nin.train` records (and that decides the phase); the first 512 give the clean loss
    loss       loss(outputs, y) -> the mean or the per-sample losses, as in training
    test       x and y of other samples, for the clean test loss; None: it is NaN
    every      steps between rows of the noisy loss and |W_NI| after step 50; before it, every step is recorded
    probes     functions (network, x, y) -> table by name, called on the network without its node at the steps
               `snapshots`, on the samples of the clean loss; their tables are those of `readings`
    forward    forward(noisy, x) -> outputs, in place of noisy(x)
    step       number of the first step, if training was under way before
    batch_size samples of a step: kappa_1 and kappa_H are then measured at the first one, for some 30 steps (`kappas`)
    live       draw the record below the cell of a notebook that trains, every two seconds (`nin.training.live`)

    `record(loss)` belongs between backward and the optimiser's step. The expected loss is measured at the steps of
    `nin.train` up to 50, and with the clean losses at 0, 1, 2, 4, 8, ..., in eval mode; batch norms use the statistics
    of the samples and do not change. Weights, gradients, buffers, modes, the node's generator and torch's random state
    are as if nothing was recorded. `overhead` is the fraction of the time so far that the record took.
    In a process group call it on one process, or, with SyncBatchNorm, on all.
    Raises ValueError for a network without a node, an optimiser that does not train it, a loss that is not a number, a
    step that does not follow the one before, and weights that changed before the first call.
    """

    def __init__(
        self,
        noisy: NoisyNetwork,
        optimizer: torch.optim.Optimizer,
        x: Inputs,
        y: Inputs,
        *,
        loss: Callable[..., Tensor],
        test: tuple[Inputs, Inputs] | None = None,
        every: int = EVERY,
        probes: Mapping[str, Callable[[nn.Module, Any, Any], pd.DataFrame]] | None = None,
        snapshots: Sequence[int] = (),
        forward: Forward | None = None,
        step: int = 0,
        batch_size: int | None = None,
        live: bool = False,
    ) -> None:
        if not isinstance(noisy, NoisyNetwork):
            raise ValueError(f"noisy is a {type(noisy).__name__}; pass nin.inject(model, layer, sigma=...).")
        check_count("every", every)
        check_count("step", step, minimum=0)
        snapshots = check_steps("snapshots", snapshots)
        if probes:
            check_probes(probes)
        check_function("loss", loss, "(outputs, y) -> the mean or the per-sample losses")
        if test is not None and not (isinstance(test, Sequence) and len(test) == 2):
            raise ValueError(f"{described('test', test)} must be x and y of other samples, as a pair.")
        if bool(probes) != bool(len(snapshots)):
            raise ValueError("probes and snapshots belong together: which probes, and at which steps.")
        optimizer = getattr(optimizer, "optimizer", optimizer)  # of Lightning and accelerate, which wrap it
        check_kind("optimizer", optimizer, torch.optim.Optimizer, "the torch optimiser that trains the network")
        self.noisy, self.optimizer, self.every = noisy, optimizer, every
        self.probes, self.snapshots = dict(probes or {}), frozenset(snapshots)
        self._groups = _groups_of(optimizer, noisy)
        self._samples = FixedSamples(noisy, x, y, loss=loss, forward=forward, count=SAMPLES)
        self._test = None if test is None else FixedSamples(noisy, *test, loss=loss, forward=forward, count=1)
        self._first = self._next = self._clean_next = step
        self._rows: list[dict[str, float]] = []
        self._norms, self._readings = [], []
        self._decay = 1.0  # the factor by which weight decay alone has shrunk |W_NI|
        self._spent, self._begun = 0.0, None
        self.diverged_at, self.kappas = math.nan, {"kappa_1": math.nan, "kappa_H": math.nan}
        self._ask_kappas = None
        if batch_size is not None:
            check_count("batch_size", batch_size)
            options = {"loss": loss, "optimizer": optimizer, "batch_size": batch_size, "forward": forward}
            self._ask_kappas = partial(kappas, noisy, x, y, **options)
        self._live = _live() if live else None
        self._versions = [parameter._version for parameter in noisy.parameters()]

    def __call__(self, loss: Tensor | float, *, step: int | None = None) -> None:
        """Record the present step, whose loss this is; step: its number, by default one more than the last.

        After a loss that is not finite nothing more is recorded: the run has diverged.
        """
        begun = time.perf_counter()
        self._begun = begun if self._begun is None else self._begun
        value = self._value(loss)
        step = self._step(step)
        if self._ask_kappas is not None:
            self.kappas, self._ask_kappas = self._ask_kappas(), None
        if math.isnan(self.diverged_at):
            if not math.isfinite(value):
                self.diverged_at = float(step)
            due = step - self._first <= EARLY or step % self.every == 0 or step >= self._clean_next
            if due or not math.isfinite(value):
                self._enter(step, value)
            if step in self.snapshots:
                self._ask(step)
            self._count_weight_decay(skipped=step - self._next)
        self._next = step + 1
        if self._live is not None and self._live.due():
            numbers = [f"{name} = {kappa:.3g}" for name, kappa in self.kappas.items() if not np.isnan(kappa)]
            self._live.draw(self.frame(), f"step {step}: {'; '.join([str(self.phase()), *numbers])}")
        self._spent += time.perf_counter() - begun

    @property
    def overhead(self) -> float:
        """The time that the record took, over the time of training without it, from the first call until now."""
        if self._begun is None:
            return 0.0
        return self._spent / max(time.perf_counter() - self._begun - self._spent, 1e-9)

    @property
    def last(self) -> dict[str, float] | None:
        """The last row that was recorded; None before the first."""
        return self._rows[-1] if self._rows else None

    def frame(self) -> pd.DataFrame:
        """One row for each recorded step: the columns of `Trajectories.frame` that a loop knows of.

        run (0), sigma, nodes, law, optimizer, step, lr, weight_decay, niw_decay (the factor by which weight decay
        alone has shrunk |W_NI|, NaN if it is not known or differs between layers), the CURVES, diverged_at, kappa_1 and
        kappa_H of the first step.
        """
        noisy = self.noisy
        table = pd.DataFrame(self._rows, columns=["step", "lr", "weight_decay", "niw_decay", "sigma", *CURVES])
        table.insert(0, "run", 0)
        nodes = max(len(weights) for weights in noisy.weights.values())
        kinds = {"nodes": nodes, "law": ", ".join(dict.fromkeys(noisy.laws)), "optimizer": self._name()}
        return table.assign(**kinds, diverged_at=self.diverged_at, **self.kappas)

    def norms(self) -> pd.DataFrame:
        """|W_NI| of each node: one row for each recorded step, layer and node, with the noise scale sigma there."""
        return pd.DataFrame(self._norms, columns=["step", "layer", "node", "sigma", "niw_norm"])

    def readings(self) -> pd.DataFrame:
        """The tables of the probes, with the columns probe and step."""
        return pd.concat(self._readings, ignore_index=True) if self._readings else pd.DataFrame()

    def phase(self) -> PhaseReading:
        """The phase of the run so far by `nin.phases.criteria`, the fall due to weight decay taken out of |W_NI|.

        None, with the reason, if it cannot be told: a record that begins late, ends within the first 50 steps, or has
        gaps where a catapult may lie, a weight decay whose effect on |W_NI| is not a known factor, a sigma that
        changed. A network that was trained before is named beside the phase.
        """
        return read_phase(self.frame(), self.norms(), first=self._first, at_start=self._samples.at_start)

    def state_dict(self) -> dict[str, Any]:
        """Everything recorded so far, for a checkpoint: lists and mappings of numbers and text only."""
        state = {name: copy.deepcopy(getattr(self, name)) for name in _STATE}
        state["readings"] = [table.to_dict("list") for table in self._readings]
        start = self._samples.start
        return state | {"start": None if start is None else start.tolist(), "at_start": list(self._samples.at_start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the weights must be those of the same checkpoint."""
        for name in _STATE:
            setattr(self, name, copy.deepcopy(state[name]))
        self._readings = [pd.DataFrame(table) for table in state["readings"]]
        self._samples.start = None if state["start"] is None else np.array(state["start"])
        self._samples.at_start = tuple(state["at_start"])
        self._versions = self._ask_kappas = None

    def _value(self, loss: Tensor | float) -> float:
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                raise ValueError(f"loss of shape {tuple(loss.shape)} must be one number, the loss of the batch.")
            loss = loss.detach().item()
        if isinstance(loss, bool) or not isinstance(loss, int | float | np.number):
            raise ValueError(f"loss={loss!r} must be a number, the loss of the batch.")
        return float(loss)

    def _step(self, step: int | None) -> int:
        """The number of this step; checks, before the first row, that nothing was trained in between."""
        if step is not None:
            check_count("step", step, minimum=0)
        if self._versions is not None:
            if self._versions != [parameter._version for parameter in self.noisy.parameters()]:
                raise ValueError(
                    "the weights changed since the record was made: call record(loss) before optimizer.step(), from "
                    "the first step on, and make a new record for training that goes on."
                )
            gradients = [niw.grad for niw in self.noisy.weights.values() if niw.requires_grad]
            if gradients and all(gradient is None for gradient in gradients):
                raise ValueError("no gradient has reached W_NI: call record(loss) after loss.backward().")
            self._versions = None
        if step is None:
            return self._next
        if step < self._next:
            raise ValueError(
                f"step={step} does not follow step {self._next - 1}; they must increase, one run a record."
            )
        return step

    @torch.no_grad()
    def _enter(self, step: int, value: float) -> None:
        """One row; the expected and clean losses where they are due."""
        noisy, lr = self.noisy, (self._groups[0] or self.optimizer.param_groups[0])["lr"]
        norm = torch.linalg.vector_norm
        nodes = {layer: norm(niw.flatten(1), dim=1).tolist() for layer, niw in noisy.weights.items()}
        row = dict.fromkeys(CURVES, np.nan) | {"step": step, "noisy_loss": value, "sigma": max(noisy.sigmas)}
        row |= {"lr": float(lr), "weight_decay": max(map(_weight_decay, self._groups))}
        row |= {"niw_norm": math.hypot(*itertools.chain(*nodes.values())), "niw_decay": self._decay}
        past, clean = step - self._first, step >= self._clean_next
        if np.isfinite(value) and (clean or past in EXPECTED):
            row["expected_loss"], row["ratio_stderr"] = self._samples.expected()
        if np.isfinite(value) and clean:
            row["train_loss"], row["train_accuracy"] = self._samples.clean()
            if self._test is not None:
                row["test_loss"], row["test_accuracy"] = self._test.clean()
            self._clean_next = self._first + max(1, 2 * past)
        self._rows.append(row)
        for (layer, norms), sigma in zip(nodes.items(), noisy.sigmas, strict=True):
            self._norms += [
                {"step": step, "layer": layer, "node": node, "sigma": sigma, "niw_norm": norm}
                for node, norm in enumerate(norms)
            ]

    def _ask(self, step: int) -> None:
        for name, probe in self.probes.items():
            table = ask(name, probe, self.noisy, *self._samples.shown(), seed=step)
            self._readings.append(table.assign(probe=name, step=step))

    def _count_weight_decay(self, skipped: int) -> None:
        """Multiply the factor of weight decay by that of the optimiser's next step, if it is one and known."""
        factors = {self._factor(group) if _weight_decay(group) else 1.0 for group in self._groups}
        if factors != {1.0}:
            self._decay *= factors.pop() if len(factors) == 1 and not skipped else np.nan

    def _factor(self, group: Mapping[str, Any]) -> float:
        """By which the weight decay of a group alone multiplies its weights in a step; NaN if it is no factor."""
        exact = self._name() in DECOUPLED or (self._name() in GRADUAL and not group.get("momentum", 0.0))
        return 1 - float(group["lr"]) * _weight_decay(group) if exact else np.nan

    def _name(self) -> str:
        return type(self.optimizer).__name__


def _live() -> Any:
    from nin.training.live import Live  # matplotlib only where it draws

    return Live()


_STATE = ("_first", "kappas", "_next", "_clean_next", "_rows", "_norms", "_decay", "_spent", "diverged_at")


def _groups_of(optimizer: torch.optim.Optimizer, noisy: NoisyNetwork) -> list[dict[str, Any] | None]:
    """The parameter group of each layer's W_NI, None if it is frozen; ValueError if it is trained by none."""
    held = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    missing = [layer for layer, niw in noisy.weights.items() if niw.requires_grad and id(niw) not in held]
    if missing or not held:
        raise ValueError(
            f"optimizer does not train the noise injection weights of {missing or list(noisy.layers)}; create it from "
            "noisy.parameters(), or from noisy.parameter_groups()."
        )
    return [held.get(id(niw)) for niw in noisy.weights.values()]


def _weight_decay(group: Mapping[str, Any] | None) -> float:
    return 0.0 if group is None else float(group.get("weight_decay", 0.0))

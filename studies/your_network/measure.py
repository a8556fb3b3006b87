"""Predict the phase of runs, train them in a loop of one's own with a record, and compare (notebook 12)."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import nin
from nin.model.nodes import NoisyNetwork
from nin.phases import of_kappa
from nin.probes.asking import Probe
from nin.probes.curvature import critical_rate
from nin.support.progress import ProgressBar
from nin.training.kappas import kappas

OPTIMISERS = ("SGD", "AdamW")
WARM_UP = 20  # steps in which AdamW's learning rate grows linearly to its value; of SGD it is constant
WEIGHT_DECAY = 0.01  # of AdamW, torch's default; not on the node
CATAPULT = 2.0  # kappa_1 above which a step raises the noisy loss
SPIKES = ("catapult", "divergent")
CALM = "calm"  # decoupled or decay


@dataclass(frozen=True)
class Case:
    """A network to read, and how it is trained.

    network     makes one, without arguments, from torch's random state
    layer, at   where the node is, as in `nin.inject`
    x, y        all training samples
    loss        (outputs, y) -> the mean loss
    lr          learning rate by optimiser, "SGD" or "AdamW"
    batch_size  samples of a step
    """

    network: Callable[[], nn.Module]
    layer: str
    at: str
    x: Tensor
    y: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    lr: Mapping[str, float]
    batch_size: int = 64

    def noisy(self, *, sigma: float, seed: int) -> NoisyNetwork:
        """A new network with its node; the seed fixes the weights of both and all that torch draws afterwards."""
        torch.manual_seed(seed)
        return nin.inject(self.network(), self.layer, at=self.at, sigma=sigma, example=self.x[:2])

    def optimiser(
        self, name: str, noisy: NoisyNetwork, *, lr: float | None = None, warm_up: int = WARM_UP
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimiser and its schedule: SGD at a constant rate, AdamW with a linear warm-up (0: none)."""
        lr = self.lr[name] if lr is None else lr
        if name == "SGD":
            optimizer, rises = torch.optim.SGD(noisy.parameters(), lr=lr), 0
        else:
            groups = noisy.parameter_groups(weight_decay=WEIGHT_DECAY)
            optimizer, rises = torch.optim.AdamW(groups, lr=lr), warm_up
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / max(rises, 1)))


def follow(
    case: Case, *, optimiser: str, sigma: float, seed: int, steps: int, lr: float | None = None, warm_up: int = WARM_UP,
    probes: Mapping[str, Probe] | None = None, snapshots: Sequence[int] = (),
) -> nin.Record:  # fmt: skip
    """Train one run in a plain loop, with a record; it ends where the loss is no longer finite."""
    noisy = case.noisy(sigma=sigma, seed=seed)
    optimizer, schedule = case.optimiser(optimiser, noisy, lr=lr, warm_up=warm_up)
    record = nin.Record(noisy, optimizer, case.x, case.y, loss=case.loss, probes=probes, snapshots=snapshots)
    for _ in range(steps + 1):
        batch = torch.randint(len(case.x), (case.batch_size,))
        loss = case.loss(noisy(case.x[batch]), case.y[batch])
        optimizer.zero_grad()
        loss.backward()
        record(loss)
        if not loss.isfinite():
            break
        optimizer.step()
        schedule.step()
    return record


def predict(case: Case, *, optimiser: str, sigma: float, seed: int, steps: int, ahead: int) -> dict[str, object]:
    """What is known of a run before it trains: predicted phase, kappa_1 = 2 lr / eta_1, and what rivals say.

    SGD    `nin.predict`, that many steps ahead; one_step: the same one step ahead; by_kappa_H: the borders 2 and 4 of
           the wide linear net for kappa_H = eta sigma^2 lambda_H
    AdamW  catapult or calm, by kappa_1 of one step of AdamW at the lr after warm-up
    """
    noisy = case.noisy(sigma=sigma, seed=seed)
    lr = case.lr[optimiser]
    options = {"loss": case.loss, "batch_size": case.batch_size}
    if optimiser != "SGD":
        kappa = kappa_of_adam(case, sigma=sigma, seed=seed)
        return {"predicted": SPIKES[0] if kappa > CATAPULT else CALM, "kappa_1": kappa}
    several, one = (
        nin.predict(
            noisy, case.x, case.y, lr=lr, steps=steps, ahead=count, **options,
            generator=torch.Generator().manual_seed(seed),
        )
        for count in (ahead, 1)
    )  # fmt: skip
    sgd = torch.optim.SGD(noisy.parameters(), lr=lr)
    kappa_h = kappas(noisy, case.x, case.y, optimizer=sgd, **options)["kappa_H"]
    return {
        "predicted": several.phase, "kappa_1": several.kappa, "one_step": one.phase, "kappa_H": kappa_h,
        "by_kappa_H": of_kappa(kappa_h),
    }  # fmt: skip


def kappa_of_adam(case: Case, *, sigma: float, seed: int, lr: float | None = None) -> float:
    """kappa_1 = 2 lr / eta_1 of a first step of AdamW at the learning rate after the warm-up."""
    noisy = case.noisy(sigma=sigma, seed=seed)
    rate = critical_rate(
        noisy, case.x, case.y, loss=case.loss, batch_size=case.batch_size,
        generator=torch.Generator().manual_seed(seed),
        optimizer=lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0),
    ).rate  # fmt: skip
    return 2 * (case.lr["AdamW"] if lr is None else lr) / rate


def over_sigma(
    cases: Mapping[str, Case],
    *,
    sigmas: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    ahead: int,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict every run, train it, and read its phase: one row for each run, and the logs of all.

    Columns of the runs: run, network, optimiser, sigma, seed, those of `predict`, then found (the phase of the record,
    or "cannot tell"), certainty, spike and kept (`nin.phases.criteria`). The logs are `nin.Record.frame` with the first
    five of these columns.
    """
    settings = list(itertools.product(cases, OPTIMISERS, sigmas, seeds))
    rows, logs = [], []
    for run, (name, optimiser, sigma, seed) in enumerate(ProgressBar(settings, progress=progress, desc="runs")):
        about = {"run": run, "network": name, "optimiser": optimiser, "sigma": sigma, "seed": seed}
        options = {"optimiser": optimiser, "sigma": sigma, "seed": seed, "steps": steps}
        foreseen = predict(cases[name], ahead=ahead, **options)
        record = follow(cases[name], **options)
        rows.append(about | foreseen | outcome(record))
        logs.append(record.frame().assign(**about))
    return pd.DataFrame(rows), pd.concat(logs, ignore_index=True)


def outcome(record: nin.Record) -> dict[str, object]:
    """found, certainty, spike and kept of a recorded run."""
    reading = record.phase()
    numbers = reading.criteria
    return {
        "found": reading.phase or "cannot tell", "certainty": reading.certainty, "spike": numbers.spike,
        "kept": numbers.kept,
    }  # fmt: skip


def spikes(phases: pd.Series) -> pd.Series:
    """Whether each phase is one with a spike: catapult or divergent."""
    return phases.isin(SPIKES)


def as_predicted(runs: pd.DataFrame) -> pd.Series:
    """Whether each run did what was predicted: SGD, the phase; AdamW, a spike or none."""
    same_kind = spikes(runs["predicted"]) == spikes(runs["found"])
    return same_kind.where(runs["optimiser"] != "SGD", runs["predicted"] == runs["found"])


def by_sigma_alone(runs: pd.DataFrame) -> float:
    """The rival: the share of SGD's runs whose phase is that of another network with the same sigma and seed.

    This is what one knows without measuring anything in the network. NaN with a single network.
    """
    found = runs[runs["optimiser"] == "SGD"].pivot(index=["sigma", "seed"], columns="network", values="found")
    same = [(found[a] == found[b]).mean() for a, b in itertools.combinations(found.columns, 2)]
    return float(np.mean(same)) if same else np.nan


def with_and_without_warm_up(
    case: Case, *, rates: Sequence[float], sigma: float, seeds: Sequence[int], steps: int, warm_up: int = WARM_UP
) -> pd.DataFrame:
    """AdamW at several learning rates, from the first step on or after a linear warm-up.

    Columns: lr, warm_up (steps), seed, kappa_1 of the first step, then those of `outcome`.
    """
    rows = []
    for lr, steps_up, seed in itertools.product(rates, (0, warm_up), seeds):
        kappa = kappa_of_adam(case, sigma=sigma, seed=seed, lr=lr / max(steps_up, 1))
        record = follow(case, optimiser="AdamW", sigma=sigma, seed=seed, steps=steps, lr=lr, warm_up=steps_up)
        rows.append({"lr": lr, "warm_up": steps_up, "seed": seed, "kappa_1": kappa} | outcome(record))
    return pd.DataFrame(rows)


def at_other_layers(
    case: Case, layers: Mapping[str, str], *, sigma: float, seeds: Sequence[int], steps: int, ahead: int
) -> pd.DataFrame:
    """Runs of SGD with the node at other layers, by name and side: layer, seed, kappa_1 and those of `outcome`."""
    rows = []
    for (layer, side), seed in itertools.product(layers.items(), seeds):
        options = {"optimiser": "SGD", "sigma": sigma, "seed": seed, "steps": steps}
        here = replace(case, layer=layer, at=side)
        kappa = predict(here, ahead=ahead, **options)["kappa_1"]
        rows.append({"layer": layer, "seed": seed, "kappa_1": kappa} | outcome(follow(here, **options)))
    return pd.DataFrame(rows)


def readings(
    cases: Mapping[str, Case], probes: Mapping[str, Mapping[str, Probe]], *, sigmas: Sequence[float],
    snapshots: Sequence[int], seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """The tables of the probes along one run of SGD for each network and noise scale, with network and sigma."""
    tables = []
    for name, case in cases.items():
        for sigma in sigmas:
            record = follow(
                case, optimiser="SGD", sigma=sigma, seed=seed, steps=max(snapshots), probes=probes[name],
                snapshots=snapshots,
            )  # fmt: skip
            tables.append(record.readings().assign(network=name, sigma=sigma))
    return pd.concat(tables, ignore_index=True)

"""Training changed at fixed sigma: does the rate of |W_NI| follow the curvature at the node, or the loss?"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.training.batches import StackedBatches
from nin.training.config import DTYPES, RunConfig
from nin.training.ensemble import Ensemble, member
from nin.training.start import members
from nin.training.updates import Updates
from studies.labels import flipped
from studies.nin_vs_loss import clock, pull


@dataclass(frozen=True, kw_only=True)
class Case:
    """One change of training that leaves sigma as it is.

    width        units of each hidden layer; None: those of the base
    samples      number of training samples (the first ones); None: all
    label_noise  fraction of the training samples whose labels are redrawn among the other classes
    at           step of a change during training; None: no such change
    slower       factor by which the learning rate falls there
    new_task     whether the classes are permuted there: every label c becomes c + 1
    """

    name: str
    width: int | None = None
    samples: int | None = None
    label_noise: float = 0.0
    at: int | None = None
    slower: float = 1.0
    new_task: bool = False


def cases(*, at: int, width: int, samples: int) -> tuple[Case, ...]:
    """The unchanged training and six changes of it; width and samples are those of two of the changes."""
    return (
        Case(name="unchanged"),
        Case(name="learning rate / 4", at=at, slower=4.0),
        Case(name="label noise .3", label_noise=0.3),
        Case(name=f"width {width}", width=width),
        Case(name=f"{samples} samples", samples=samples),
        Case(name="task switch", at=at, new_task=True),
        Case(name="task switch, rate / 4", at=at, slower=4.0, new_task=True),
    )


def changed(data: Dataset, case: Case, *, seed: int = 0) -> Dataset:
    """The training samples of a case, with its label noise; the seed chooses which labels are wrong."""
    x, y = data.x_train[: case.samples], data.y_train[: case.samples]
    generator = torch.Generator().manual_seed(seed)
    y, _ = flipped(y, case.label_noise, classes=data.classes, generator=generator)
    return dataclasses.replace(data, x_train=x, y_train=y)


def run(
    case: Case, base: RunConfig, data: Dataset, *, seeds: int, edges: Sequence[int], samples: int = 512, pairs: int = 4
) -> pd.DataFrame:
    """Train a case with noise of base.sigma and beside it without; one row per seed and window between two edges.

    Windows before the change at a step are left out: they are those of the unchanged training.
    step         the middle of the window, at which the network is measured; learning rate eta there, and loss, plain
                 (clean training loss of the network and of the unperturbed one), trace (tr <H> / d at the node)
    niw_norm, kappa, kappa_2, floor, jitter, stderr   as in `clock.record`, at the middle
    start, end, fall   the edges, and ln |W(start)| - ln |W(end)|
    Raises ValueError for edges that are not increasing or lie beyond base.steps.
    """
    if list(edges) != sorted(set(edges)) or edges[-1] > base.steps:
        raise ValueError(f"edges={list(edges)} must increase and end at {base.steps} or before.")
    data = changed(data, case).to(DTYPES[base.dtype])
    base = base if case.width is None else base.replace(widths=(case.width,) * len(base.widths))
    configs = [base.replace(sigma=s, seed=seed) for s in (base.sigma, 0.0) for seed in range(seeds)]
    windows = [(a, b) for a, b in itertools.pairwise(edges) if a >= (case.at or 0)]
    middles, norms, rows = [(a + b) // 2 for a, b in windows], {}, []
    for step, eta, now, ensemble in _train(case, configs, data):
        if step in edges:
            norms[step] = ensemble.niw.detach().double().flatten(1).norm(dim=1).numpy()[:seeds]
        if step in middles:
            state = ensemble.state()
            networks = [member(ensemble.template, state, place, config) for place, config in enumerate(configs)]
            measured = [
                _read(networks[seed], networks[seeds + seed], configs[seed].replace(lr=eta), now, samples, pairs)
                for seed in range(seeds)
            ]
            rows += [{"step": step, "eta": eta} | row for row in measured]
    table = pd.DataFrame(rows).assign(case=case.name)
    start, end = (table["step"].map(dict(zip(middles, side, strict=True))) for side in zip(*windows, strict=True))
    fall = [np.log(norms[a][k] / norms[b][k]) for a, b, k in zip(start, end, table["seed"], strict=True)]
    return table.assign(start=start, end=end, fall=fall)


def _train(case: Case, configs: Sequence[RunConfig], data: Dataset) -> Iterator[tuple[int, float, Dataset, Ensemble]]:
    """Each step before its update, with the learning rate and the data that hold there."""
    ensemble, feed = Ensemble(members(configs, data)[0]), StackedBatches(configs, data)
    updates = Updates(configs, ensemble)
    scale, eta = updates.scale.to(data.x_train), configs[0].lr
    switched = dataclasses.replace(data, y_train=(data.y_train + 1) % data.classes)
    now, moved = data, 0
    for step in range(configs[0].steps + 1):
        if step == case.at:
            scale, eta = scale / case.slower, eta / case.slower
            now, moved = (switched, 1) if case.new_task else (data, 0)
        yield step, eta, now, ensemble
        x, y, noise = feed.next()
        ensemble.backward(x, (y + moved) % data.classes, noise, loss=configs[0].loss, scale=scale)
        updates.step(step)


def _read(
    model: nn.Module, plain: nn.Module, config: RunConfig, data: Dataset, samples: int, pairs: int
) -> dict[str, float]:
    x, y, loss = data.x_train[:samples], data.y_train[:samples], LOSSES[config.loss]
    with torch.no_grad():
        losses = {name: float(loss(net.network(x), y).mean()) for name, net in (("loss", model), ("plain", plain))}
    trace = pull.trace_of_curvature(model, x, y, generator=config.generator("curvature")) / model.niw.shape[-1]
    return clock.moments(model, config, data, samples=samples, pairs=pairs) | losses | {"trace": trace}


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `run` with the measured rate and what it may follow, in the units of a curvature.

    rate       (-d ln|W|/dt + [floor / |W|^2 + kappa_2^2] / 2) / (eta sigma^2): the full law solved for kappa
    bare       -d ln|W|/dt / (eta sigma^2), the random walk not taken out
    curvature  kappa / (eta sigma^2), noise-averaged along W_NI: theory is rate = curvature
    time       1 / step, a clock that knows nothing of the network
    error      standard error of rate, from the gradient noise along W and the walk of one window (derived)
    """
    span, unit = table["end"] - table["start"], table["eta"] * table["sigma"] ** 2
    walk = table["floor"] / table["niw_norm"] ** 2 + table["kappa_2"].fillna(table["kappa"]) ** 2
    bare = table["fall"] / span
    return table.assign(
        rate=(bare + walk / 2) / unit,
        bare=bare / unit,
        curvature=table["kappa"] / unit,
        time=1 / table["step"],
        error=np.hypot(np.sqrt(table["jitter"].clip(lower=0) / span) / 2, table["stderr"]) / unit,
    )


def resolved(table: pd.DataFrame, *, limit: float = 1 / 3) -> pd.DataFrame:
    """The windows of `rates` whose predicted error is below `limit` of the curvature, so that a logarithm has sense.

    The choice does not depend on the measured rate. Windows whose rate is nevertheless not positive are left in.
    """
    return table[(table["curvature"] > 0) & (table["error"] < limit * table["curvature"])]


PREDICTORS = ("curvature", "trace", "loss", "plain", "time")


def collapse(table: pd.DataFrame) -> pd.DataFrame:
    """How well ln rate collapses on ln of each predictor, one row per seed and predictor.

    theory   rms of ln(rate / predictor): slope 1, no free parameter; meaningful for the curvature
    scatter  rms about the best power law, two parameters, one law for all cases: what a rival can do at best
    slope    exponent of that power law
    offsets  largest over smallest mean of rate / predictor (geometric) between cases: 1 if they share one law
    Windows with a rate that is not positive are left out.
    """
    rows = []
    for seed, runs in table[table["rate"] > 0].groupby("seed"):
        y = np.log(runs["rate"])
        for name in PREDICTORS:
            x = np.log(runs[name])
            slope, level = np.polyfit(x, y, 1)
            by_case = (y - x).groupby(runs["case"]).mean()
            rows.append(
                {"seed": seed, "predictor": name, "theory": float(np.sqrt(np.mean((y - x) ** 2))),
                 "scatter": float(np.sqrt(np.sum((y - slope * x - level) ** 2) / (len(x) - 2))),
                 "slope": slope, "offsets": float(np.exp(by_case.max() - by_case.min()))}
            )  # fmt: skip
    return pd.DataFrame(rows)

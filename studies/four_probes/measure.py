"""The four probes along the same training runs, one run for each phase and one without a node (notebook 10)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from nin.model.dataset import Dataset
from nin.phases import classify
from nin.probes.asking import Probe
from nin.sweeps.grid import sweep
from nin.training.config import RunConfig
from studies.four_probes.before import critical_rates
from studies.images import images_of
from studies.statistics import loglog_slope

NO_NODE = "no node"
RUN = ["run", "phase", "sigma", "seed"]
SERIES = [*RUN, "step", "probe", "quantity", "layer", "order", "value", "error"]
MAIN = {  # the quantities that are compared, and their labels in figures; they are those of the output, except HIDDEN
    "loss": "loss",
    "accuracy": "accuracy",
    "lambda": "curvature at the node",
    "sharpness": "sharpness",
    "self_kernel": "self-kernel",
    "response": "response",
    "effective_rank": "feature rank",
    "completeness": "completeness",
    "redundancy": "redundancy",
    "mean_order": "mean order",
    "D": "D of the output",
    "G": "G of the output",
    "R": "R of the output",
}
HIDDEN = ("completeness", "redundancy")  # taken at a hidden layer
RELATIVE = ("self_kernel", "response", "effective_rank")  # shown relative to step 0
CURVATURES = ("lambda", "sharpness")  # shown as eta times the curvature
LINEAR = ("accuracy", "completeness", "redundancy", "mean_order")  # bounded, or of either sign: not as logarithms


def square_images(data: Dataset) -> Dataset:
    """The data with images of at least 16 x 16 pixels, as rows; smaller ones are enlarged so that the patches fit."""
    x, x_test = images_of(data)
    return replace(data, x_train=x.flatten(1), x_test=x_test.flatten(1))


def read_runs(
    base: RunConfig,
    data: Dataset,
    sigmas: Sequence[float],
    *,
    seeds: Sequence[int],
    snapshots: Sequence[int],
    probes: Mapping[str, Probe],
    probe_samples: int,
    network: Callable[[], nn.Module] | None = None,
    store: str | Path | None = None,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a run without a node and one for each sigma, per seed, with all probes: trajectories and readings.

    Both tables have the columns run, phase, sigma (0 without a node), seed, step. The readings of all probes share one
    table, with probe, quantity, layer, order, value, error (`nin.probes.for_sweeps`). Runs without a node come first.
    Raises RuntimeError, with the probe's error, if a probe failed at a snapshot.
    """
    frames, tables, first = [], [], 0  # first: the number of the next run
    for case, over in ((base.replace(nodes=0), {}), (base, {"sigma": list(sigmas)})):
        frame, readings = sweep(
            case, over=over | {"seed": list(seeds)}, data=data, network=network, probes=probes, snapshots=snapshots,
            probe_samples=probe_samples, store=store, progress=progress,
        )  # fmt: skip
        for name, table in readings.items():
            if (failed := table["failure"].dropna()).size:
                raise RuntimeError(f"probe {name!r} failed at {len(failed)} snapshots: {failed.iloc[0]}")
        one = pd.concat([table.assign(probe=name) for name, table in readings.items()], ignore_index=True)
        about = frame.groupby("run").apply(_about, include_groups=False)
        frames.append(frame.drop(columns=["sigma", "seed"]).join(about, on="run").assign(run=frame["run"] + first))
        tables.append(one.join(about, on="run").assign(run=one["run"] + first))
        first += len(about)
    frame, table = pd.concat(frames, ignore_index=True), pd.concat(tables, ignore_index=True)
    return frame[[*RUN, *frame.columns.drop(RUN)]], table[SERIES]


def series(readings: pd.DataFrame) -> pd.DataFrame:
    """The readings without the kernel's entries, plus rows for quantities that compare several snapshots of a run.

    drift   |Theta - Theta_0|_F / |Theta_0|_F of the kernel, against step 0
    aging   d ln response / d ln step over three neighbouring snapshots (no row at the ends, NaN next to step 0)
    """
    entries = readings[readings["quantity"] == "kernel"]
    rest = readings[readings["quantity"] != "kernel"]
    made = []
    for (run, phase, sigma, seed), part in entries.groupby(RUN, sort=False):
        theta = part.pivot(index="step", columns="order", values="value")
        n = int(np.sqrt(theta.columns.max() + 1))
        weight = np.where(theta.columns % n == theta.columns // n, 1, 2)  # only the upper half is stored
        norm = np.sqrt((weight * theta**2).sum(axis=1))
        change = np.sqrt((weight * (theta - theta.loc[theta.index.min()]) ** 2).sum(axis=1))
        rows = {"step": theta.index, "quantity": "drift", "value": (change / norm.iloc[0]).to_numpy()}
        made.append(pd.DataFrame(rows).assign(run=run, phase=phase, sigma=sigma, seed=seed))
    for (run, phase, sigma, seed), part in rest[rest["quantity"] == "response"].groupby(RUN, sort=False):
        step, value = (part.sort_values("step")[name].to_numpy() for name in ("step", "value"))
        slope = [loglog_slope(step[k - 1 : k + 2], value[k - 1 : k + 2]).value for k in range(1, len(step) - 1)]
        rows = {"step": step[1:-1], "quantity": "aging", "value": slope}
        made.append(pd.DataFrame(rows).assign(run=run, phase=phase, sigma=sigma, seed=seed))
    added = pd.concat(made, ignore_index=True).assign(probe="response", layer="", order=0, error=np.nan)
    return pd.concat([rest, added[SERIES]], ignore_index=True)


def one_a_step(table: pd.DataFrame, *, layer: str) -> pd.DataFrame:
    """The quantities of MAIN and the drift, one value per run and step: HIDDEN at a layer, all others at the output.

    Columns: run, phase, sigma, seed, step, quantity, value.
    """
    of_layers = table["quantity"].isin([*HIDDEN, "mean_order", *"DGR"])
    wanted = table["quantity"].map(lambda name: layer if name in HIDDEN else "output")
    here = (table["layer"] == wanted) | ~of_layers
    kept = table[here & (table["order"] == 0) & table["quantity"].isin([*MAIN, "drift"])]
    return kept[[*RUN, "step", "quantity", "value"]].reset_index(drop=True)


def main_series(table: pd.DataFrame, *, layer: str) -> pd.DataFrame:
    """`one_a_step` without the drift, in the order of MAIN; logarithms, except for the quantities in LINEAR."""
    kept = one_a_step(table, layer=layer).query("quantity != 'drift'")
    kept = kept.sort_values("quantity", key=lambda name: name.map(list(MAIN).index), kind="stable", ignore_index=True)
    logarithm = np.log(kept["value"].where(kept["value"] > 0))
    return kept.assign(value=kept["value"].where(kept["quantity"].isin(LINEAR), logarithm))


def comparable(table: pd.DataFrame, *, layer: str, eta: float, patches: int) -> pd.DataFrame:
    """`one_a_step` made comparable: RELATIVE over step 0, eta times CURVATURES ("eta_..."), mean_order / patches.

    The drift is kept from its first step on.
    """
    kept = one_a_step(table, layer=layer)
    kept = kept[(kept["quantity"] != "drift") | (kept["step"] > 0)]
    fixed = {**dict.fromkeys(CURVATURES, 1 / eta), "mean_order": patches}
    scales = kept[kept["step"] == 0].pivot(index="run", columns="quantity", values="value")
    scales = scales.reindex(index=kept["run"].unique(), columns=kept["quantity"].unique())  # (runs, quantities)
    for quantity in scales.columns.difference(RELATIVE):
        scales[quantity] = fixed.get(quantity, 1.0)
    scale = kept.join(scales.stack().rename("scale"), on=["run", "quantity"])["scale"]
    names = {quantity: f"eta_{quantity}" for quantity in CURVATURES}
    return kept.assign(value=kept["value"] / scale, quantity=kept["quantity"].replace(names))


def at(shown: pd.DataFrame, step: int | None = None) -> pd.DataFrame:
    """The values at a step (None: the last of each run), with rows (quantity, seed) and one column per phase."""
    some = shown.dropna(subset=["value"]).sort_values("step", kind="stable")
    some = some.groupby(["run", "quantity"]).tail(1) if step is None else some[some["step"] == step]
    values = some.pivot_table(index=["quantity", "seed"], columns="phase", values="value")
    return values[[phase for phase in dict.fromkeys(shown["phase"]) if phase in values]]


def spread(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over seeds, as text; values: rows (quantity, seed), as returned by `at`."""
    seeds = values.groupby("quantity")
    parts = [table.map("{:.2g}".format) for table in (seeds.mean(), seeds.min(), seeds.max())]
    return parts[0] + " (" + parts[1] + " to " + parts[2] + ")"


def over_a_grid(
    base: RunConfig,
    data: Dataset,
    *,
    sigmas: Sequence[float],
    etas: Sequence[float],
    seeds: Sequence[int],
    probes: Mapping[str, Probe],
    probe_samples: int,
    network: Callable[[], nn.Module] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Readings at the end of runs over (sigma, eta): sigma, lr, seed, phase, kappa_1, quantity, value.

    kappa_1 = 2 lr / eta_1 of the run's own network, before training. The value is NaN if the run diverged.
    """
    frame, readings = sweep(
        base, over={"sigma": list(sigmas), "lr": list(etas), "seed": list(seeds)}, data=data, network=network,
        probes=probes, snapshots=[base.steps], probe_samples=probe_samples, progress=progress,
    )  # fmt: skip
    runs = frame.groupby("run")[["sigma", "lr", "seed"]].first()
    runs["phase"] = [classify(part) for _, part in frame.groupby("run")]
    rates = pd.concat(critical_rates(base, data, sigmas=sigmas, seeds=seeds, network=network), names=["seed"])
    runs = runs.join(rates.rename("rate"), on=["seed", "sigma"])
    table = pd.concat(readings.values(), ignore_index=True)
    chosen = table[(table["order"] == 0) & table["layer"].isin(["", "output", base.layer])]
    every = pd.MultiIndex.from_product([chosen["quantity"].unique(), runs.index], names=["quantity", "run"])
    values = chosen.groupby(["quantity", "run"])["value"].mean().reindex(every).reset_index().join(runs, on="run")
    values["kappa_1"] = 2 * values["lr"] / values["rate"]
    return values[["sigma", "lr", "seed", "phase", "kappa_1", "quantity", "value"]]


def _about(run: pd.DataFrame) -> pd.Series:
    node = bool(run["nodes"].iloc[0])
    phase, sigma = (classify(run), run["sigma"].iloc[0]) if node else (NO_NODE, 0.0)
    return pd.Series({"phase": phase, "sigma": float(sigma), "seed": int(run["seed"].iloc[0])})

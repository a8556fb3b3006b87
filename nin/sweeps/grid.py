"""Sweeps: a grid of runs -> groups -> executor -> store -> one tidy table."""

import dataclasses
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.probes.asking import Probe
from nin.support import paths
from nin.support.arguments import check_choice, check_count
from nin.support.numerics import own_numerics
from nin.support.progress import ProgressBar
from nin.support.threads import threads
from nin.sweeps.claims import Claims
from nin.sweeps.executors import check_executor, run_groups, workers
from nin.sweeps.groups import groups
from nin.sweeps.jobs import Group, Jobs
from nin.sweeps.keys import Keys
from nin.sweeps.readings import Probing
from nin.sweeps.results import Results
from nin.training.config import RunConfig
from nin.training.loop import check_own
from nin.training.objective import OwnLoss


# `| object`: where annotations are checked, values of other types must still reach our own errors.
@own_numerics()
def sweep(
    base: RunConfig | object,
    *,
    over: Mapping[str, Iterable[Any]] | object,
    data: Dataset | object | None = None,
    network: Callable[[], nn.Module] | None = None,
    loss: OwnLoss | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    executor: Executor | object | None = None,
    store: str | Path | None = None,
    device: str = "auto",
    at_once: int | None = None,
    progress: bool = False,
    probes: Mapping[str, Probe] | object | None = None,
    snapshots: Sequence[int] | None = None,
    probe_samples: int = 128,
) -> pd.DataFrame | tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Train every combination of the values in `over`, or read it from the store, and return one tidy table.

    base      the fields that all runs share; `over` sets the others, as in {"sigma": [0.1, 1.0], "seed": range(3)}
    data, network, loss, augment   user-defined, as in `nin.train`; they enter the key of a stored run
    executor  any concurrent.futures.Executor, whose workers train on one torch thread each while this process stores
              the results; None: train in this process. Workers must be able to import user-defined functions.
    store     folder of finished runs; None: NIN_STORE, or runs/store in the clone
    device    "auto": cuda if available, else cpu; part of a stored run's key
    at_once   runs trained as one ensemble, without effect on results; None: chosen by their size (nin.sweeps.groups)
    progress  show a bar on stderr
    probes    name -> function (model, x, y) -> DataFrame, called at the snapshots on the network of every run, without
              its node and in eval mode. A dict of tables, by name, is then returned as well: run, step, the probe's
              columns, and failure, the error if the probe raised one. They join the trajectories by run and step.
    snapshots steps at which probes are asked, as long as a run's noisy loss is finite; None: eight, log-spaced
    probe_samples   number of test samples, the first ones, that the probes get as x and y

    The rows are those of `Trajectories.frame`; `run` counts the grid, with the last field of `over` running fastest.
    Groups are formed from the whole grid and stored as they finish, so an interrupted sweep resumes where it stopped,
    with the same results. Sweeps of one store at the same time, in any number of processes and on all machines that
    share the folder, divide the runs among them: each is computed once. The probes' tables are stored with the runs;
    for a new probe or other snapshots, the runs are trained once more, to the same trajectories.

    Raises ValueError for an unknown field, a missing or empty list, a value that RunConfig rejects, an executor of
    another type, a store that is a file or holds a run of a newer schema, a snapshot beyond the last step; ProbeError
    for a probe that changes a network or does not return a DataFrame; OSError if the store cannot be written.
    Warns about duplicate values, which are dropped, and about probes that failed.
    """
    check_executor(executor)
    if at_once is not None:
        check_count("at_once", at_once)
    configs = expand(base, over)
    check_own(data, network, loss, augment)
    folder = paths.store() if store is None else paths.given("store", store)
    if probes is None and snapshots is not None:
        raise ValueError(f"snapshots={snapshots!r} are the steps at which probes are asked; pass probes as well.")
    probing = None if probes is None else Probing(probes, snapshots, probe_samples)
    keys = Keys(data, network, device, probing, loss=loss, augment=augment)
    jobs = Jobs(keys)
    results = Results(folder, keys, configs)
    if at_once is None:
        cut = groups(configs, jobs.group_size, workers=workers(executor))
    else:
        cut = groups(configs, lambda _: at_once)
    results.unpack()
    results.load(configs)
    left = [group for together in cut if (group := results.missing(together)).configs]
    bar = ProgressBar(total=len(configs), initial=len(results), progress=progress, desc="sweep", unit="run")
    try:
        if left:
            results.store.check_writable()
            jobs.try_runs([config for group in left for config in group.configs])
            if probing:
                jobs.try_probes(left[0].configs[0])
            work = jobs.work(progress) if executor is None else jobs.work_elsewhere(results.store)
            with threads(1 if executor else None), Claims(results.store) as claims:
                todo = _to_compute(left, results, claims, bar)
                with closing(run_groups(work, todo, executor)) as finished:
                    for group, computed in finished:
                        results.save(group, computed)
                        claims.release(map(results.key, group.configs))
                        bar.update(len(results) - bar.n)
    except KeyboardInterrupt:
        print(
            f"\nnin.sweep: interrupted; {results.stored()} of {len(configs)} runs are in {results.store.folder}, "
            "and the same call continues from there.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.close()
        results.pack()
    frame = results.frame()
    if probing is None:
        return frame
    readings = results.readings()
    _warn_of_failures(readings)
    return frame, readings


def _to_compute(groups: Sequence[Group], results: Results, claims: Claims, bar: ProgressBar) -> Iterator[Group | None]:
    """The groups, each without the runs that another process has stored or claimed by the time it is asked for.

    What others have claimed comes last, to be read when they have stored it, or computed if they did not: None until
    then.
    """
    while groups:
        later, idle = [], True
        for group in groups:
            results.load(group.configs)
            ours = set(claims.take(map(results.key, results.missing(group.configs).configs)))
            configs = [config for config in group.configs if results.key(config) in ours]
            results.load(configs)  # stored between the look and the claim
            mine = results.missing(configs)
            claims.release(ours - {results.key(config) for config in mine.configs})
            others = [config for config in group.configs if config not in set(mine.configs)]
            if (rest := results.missing(others)).configs:
                later.append(rest)
            bar.update(len(results) - bar.n)
            if mine.configs:
                idle = False
                yield mine
        groups = later
        if groups and idle:
            bar.set_postfix_str(f"{sum(len(group.configs) for group in groups)} at work in another process")
            yield None
            bar.set_postfix_str("")


def _warn_of_failures(readings: Mapping[str, pd.DataFrame]) -> None:
    """One warning with the number of failed readings and the first error of each probe."""
    failed = {name: table["failure"].dropna() for name, table in readings.items()}
    parts = [
        f"{name!r} at {len(errors)} snapshots, first {errors.iloc[0]}" for name, errors in failed.items() if len(errors)
    ]
    if parts:
        warnings.warn(f"probes failed: {'; '.join(parts)}. See the column failure of their tables.", stacklevel=3)


def expand(base: RunConfig | object, over: Mapping[str, Iterable[Any]] | object) -> list[RunConfig]:
    """All combinations of the values in `over`, the last field running fastest; duplicates dropped with a warning."""
    if not isinstance(base, RunConfig):
        raise ValueError(f"base={base!r} must be a nin.RunConfig.")
    if not isinstance(over, Mapping):
        raise ValueError(f"over={over!r} must map fields of RunConfig to lists, as in {{'sigma': [0.1, 1.0]}}.")
    fields = [field.name for field in dataclasses.fields(RunConfig)]
    values = {}
    for name, entries in over.items():
        check_choice("over: field", name, fields)
        try:
            values[name] = None if isinstance(entries, (str, bytes, Mapping, Set)) else list(entries)
        except TypeError:
            values[name] = None
        if values[name] is None:
            raise ValueError(f"over[{name!r}]={entries!r} must be a list of values, for example [{entries!r}].")
        if not values[name]:
            raise ValueError(f"over[{name!r}] is empty, so there are no runs. Give values, or leave the field out.")
    grid = [base.replace(**dict(zip(values, point, strict=True))) for point in itertools.product(*values.values())]
    unique = list(dict.fromkeys(grid))
    if len(unique) < len(grid):
        warnings.warn(
            f"over: {len(grid) - len(unique)} of {len(grid)} runs occur twice and were dropped.", stacklevel=3
        )
    return unique

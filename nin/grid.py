"""Sweeps: a grid of runs -> groups -> executor -> store -> one tidy table."""

import dataclasses
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from tqdm import tqdm

from nin import paths
from nin.arguments import check_choice, check_count
from nin.config import RunConfig
from nin.data import Dataset
from nin.executors import check_executor, run_groups, workers
from nin.grouping import groups
from nin.jobs import Jobs
from nin.store import Store
from nin.threads import threads
from nin.trajectories import tidy


def sweep(
    base: RunConfig,
    *,
    over: Mapping[str, Sequence[Any]],
    data: Dataset | None = None,
    network: Callable[[], nn.Module] | None = None,
    executor: Executor | None = None,
    store: str | Path | None = None,
    device: str = "auto",
    at_once: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train every combination of the values in `over`, or take it from the store, and return one tidy table.

    base      the run from which all others differ by the fields in `over`, {"sigma": [0.1, 1.0], "seed": range(3)}
    data, network   the user's own, as in `nin.train`; they enter the key of a stored run
    executor  any concurrent.futures.Executor; None: in this process. Its workers compute, each on one torch thread, and
              this process stores. Workers of a network of one's own must be able to import its factory.
    store     folder of finished runs; None: NIN_STORE, or runs/store in the clone
    device    "auto": cuda where there is one, else cpu; part of a stored run's key
    at_once   runs trained as one ensemble; None: by the size of the work (nin.grouping). It does not change results.
    progress  a bar on stderr

    The rows are those of `Trajectories.frame`, `run` counting the grid with the last field of `over` running fastest.
    Groups are cut from the whole grid and stored as they finish: what was interrupted goes on where it stopped, and
    whatever is computed again after that is computed as it would have been.

    Raises ValueError for an unknown field, an empty or no list, values that RunConfig refuses, an executor that is
    none, a store that is a file, one with a run of a newer schema; OSError where the store cannot be written. Values
    that occur twice are dropped with a warning.
    """
    check_executor(executor)
    if at_once is not None:
        check_count("at_once", at_once)
    configs = expand(base, over)
    archive = Store(paths.store() if store is None else store)
    jobs = Jobs(data, network, device)
    keys = {config: jobs.key(config) for config in configs}

    finished: dict[RunConfig, pd.DataFrame] = {}

    def collect(group: Sequence[RunConfig]) -> tuple[RunConfig, ...]:
        """Take what is stored, return the rest."""
        for config in group:
            if config not in finished and (stored := archive.load(keys[config])):
                finished[config] = stored[0]
        return tuple(config for config in group if config not in finished)

    def missing() -> Iterator[tuple[RunConfig, ...]]:
        for group in wanted:
            if rest := collect(group):  # another process may have been faster
                yield rest

    if at_once is None:
        cut = groups(configs, jobs.group_size, workers=workers(executor))
    else:
        cut = groups(configs, lambda _: at_once)
    wanted = [group for group in cut if collect(group)]
    bar = tqdm(total=len(configs), initial=len(finished), disable=not progress, desc="sweep", unit="run")
    try:
        if wanted:
            archive.check_writable()
            work = jobs.work(progress) if executor is None else jobs.work_elsewhere(archive)
            with threads(1 if executor else None), closing(run_groups(work, missing(), executor)) as results:
                for group, result in results:
                    for config, table in zip(group, result.tables, strict=True):
                        archive.save(keys[config], table, jobs.about(config, table, result))
                        finished[config] = table
                    bar.update(len(finished) - bar.n)
    except KeyboardInterrupt:
        kept = sum(keys[config] in archive for config in configs)  # it may come between a save and its count
        print(
            f"\nnin.sweep: interrupted; {kept} of {len(configs)} runs are in {archive.folder}, "
            "and the same call goes on from there.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.close()
    return tidy(configs, [finished[config] for config in configs])


def expand(base: RunConfig, over: Mapping[str, Sequence[Any]]) -> list[RunConfig]:
    """All combinations of the values of `over`, the last field running fastest; doubles dropped with a warning."""
    if not isinstance(base, RunConfig):
        raise ValueError(f"base={base!r} must be a nin.RunConfig.")
    if not isinstance(over, Mapping):
        raise ValueError(f"over={over!r} must map fields of RunConfig to lists, as in {{'sigma': [0.1, 1.0]}}.")
    fields = [field.name for field in dataclasses.fields(RunConfig)]
    values = {}
    for name, entries in over.items():
        check_choice("over: field", name, fields)
        try:
            values[name] = None if isinstance(entries, (str, bytes)) else list(entries)
        except TypeError:
            values[name] = None
        if values[name] is None:
            raise ValueError(f"over[{name!r}]={entries!r} must be a list of values, for example [{entries!r}].")
        if not values[name]:
            raise ValueError(f"over[{name!r}] is empty: a sweep of no runs. Give it values, or leave the field out.")
    grid = [base.replace(**dict(zip(values, point, strict=True))) for point in itertools.product(*values.values())]
    unique = list(dict.fromkeys(grid))
    if len(unique) < len(grid):
        warnings.warn(
            f"over: {len(grid) - len(unique)} of {len(grid)} runs occur twice and were dropped.", stacklevel=3
        )
    return unique

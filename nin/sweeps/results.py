"""The finished runs of one sweep: their tables and the readings of probes, in memory and in the store behind it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nin.probes.asking import OWN_COLUMNS
from nin.sweeps.jobs import Computed, Group, Jobs
from nin.sweeps.store import Store
from nin.training.config import RunConfig

READINGS = "probes"  # folder of the store that holds the probes' tables


def readings_of(store: Store) -> Store:
    """The store of the probes' tables, one for each run and probe, within the store of runs."""
    return Store(store.folder / READINGS)


class Archive:
    """What of a sweep is there: the tables of its runs and the readings of its probes, in memory once known."""

    def __init__(self, folder: Path, jobs: Jobs, configs: Sequence[RunConfig]) -> None:
        self.store, self.jobs = Store(folder), jobs
        self._probe_store = readings_of(self.store)
        self.names = tuple(jobs.probing.probes) if jobs.probing else ()
        self.keys = {config: jobs.key(config) for config in configs}
        self._probe_keys = {(c, name): jobs.reading_key(c, name) for c in configs for name in self.names}
        self._tables: dict[RunConfig, pd.DataFrame] = {}
        self._readings: dict[tuple[RunConfig, str], pd.DataFrame] = {}
        self._finished: set[RunConfig] = set()

    def __len__(self) -> int:
        """How many runs are finished, their readings with them."""
        return len(self._finished)

    def collect(self, configs: Sequence[RunConfig]) -> Group:
        """Take what is stored; return the runs that are left to train, with the probes that they lack."""
        left, lack = [], set()
        for config in configs:
            if config not in self._tables and (stored := self.store.load(self.keys[config])):
                self._tables[config] = stored[0]
            for name in self._missing(config):
                if stored := self._probe_store.load(self._probe_keys[config, name]):
                    self._readings[config, name] = stored[0]
            missing = self._missing(config)
            if missing or config not in self._tables:
                left.append(config)
                lack.update(missing)
            else:
                self._finished.add(config)
        return Group(tuple(left), tuple(name for name in self.names if name in lack))

    def save(self, group: Group, result: Computed) -> None:
        """Store a group's readings and runs, the run last, so that a run which is there has them."""
        for config, table, readings in zip(group.configs, result.tables, result.readings, strict=True):
            for name, reading in readings.items():
                about = self.jobs.about_reading(config, name, reading, result)
                self._probe_store.save(self._probe_keys[config, name], reading, about)
                self._readings[config, name] = reading
            self.store.save(self.keys[config], table, self.jobs.about(config, table, result))
            self._tables[config] = table
            if not self._missing(config):
                self._finished.add(config)

    def stored(self) -> int:
        """How many runs are on disk, their readings with them."""
        return sum(
            key in self.store and all(self._probe_keys[config, name] in self._probe_store for name in self.names)
            for config, key in self.keys.items()
        )

    def tables(self) -> list[pd.DataFrame]:
        """The tables of all runs, in their order."""
        return [self._tables[config] for config in self.keys]

    def readings(self) -> dict[str, pd.DataFrame]:
        """By probe, the tables of all runs as one: run, step, the probe's own columns, failure."""
        found = {}
        for name in self.names:
            parts = [self._readings[config, name] for config in self.keys]
            numbered = [part.assign(run=run) for run, part in enumerate(parts) if len(part)]
            table = pd.concat(numbered or [parts[0].assign(run=0)], ignore_index=True)
            own = [column for column in table.columns if column not in OWN_COLUMNS]
            found[name] = table[["run", "step", *own, "failure"]]
        return found

    def _missing(self, config: RunConfig) -> tuple[str, ...]:
        return tuple(name for name in self.names if (config, name) not in self._readings)

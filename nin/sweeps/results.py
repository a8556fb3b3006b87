"""The results of one sweep: the tables of its runs and the readings of its probes, in memory and on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from nin.probes.asking import OWN_COLUMNS
from nin.sweeps import packs
from nin.sweeps.jobs import Computed, Group
from nin.sweeps.keys import Keys
from nin.sweeps.packs import Rows
from nin.sweeps.readings import below_each_other
from nin.sweeps.store import Store
from nin.training.config import RunConfig

AT_A_TIME = 250  # runs that are read before their tables are joined
READINGS = "probes"  # folder of the store that holds the probes' tables


def readings_of(store: Store) -> Store:
    """The store of the probes' tables, one for each run and probe, within the store of runs."""
    return Store(store.folder / READINGS)


class Results:
    """The results of a sweep that exist so far (run tables and probe readings), cached in memory once loaded."""

    def __init__(self, folder: Path, keys: Keys, configs: Sequence[RunConfig]) -> None:
        self.store, self._keys = Store(folder), keys
        self._reading_store = readings_of(self.store)
        self.probes = tuple(keys.probing.probes) if keys.probing else ()
        self._run_keys = {config: keys.of_run(config) for config in configs}
        self._reading_keys = {(c, probe): keys.of_reading(c, probe) for c in configs for probe in self.probes}
        self._tables: dict[RunConfig, Rows] = {}
        self._readings: dict[tuple[RunConfig, str], pd.DataFrame] = {}
        self._packed = 0
        self._complete: set[RunConfig] = set()

    def __len__(self) -> int:
        """The number of complete runs: those whose table and readings are all in memory."""
        return len(self._complete)

    def key(self, config: RunConfig) -> str:
        """The key of a run in the store."""
        return self._run_keys[config]

    def load(self, configs: Sequence[RunConfig]) -> None:
        """Read from the store the results of these runs that it has and that are not yet in memory."""
        for start in range(0, len(configs), AT_A_TIME):
            some, read = configs[start : start + AT_A_TIME], {}
            for config in some:
                if config not in self._tables and (stored := self.store.load_columns(self._run_keys[config])):
                    read[config] = stored[0]
                for probe in self._unread(config):
                    if stored := self._reading_store.load(self._reading_keys[config, probe]):
                        self._readings[config, probe] = stored[0]
            self._keep(read)
            for config in some:
                self._note(config)

    def unpack(self) -> None:
        """Read what a former call of the same sweep has packed, as far as the store has not changed since."""
        configs = {key: config for config, key in self._run_keys.items()}
        self._tables |= {configs[key]: rows for key, rows in packs.read(self.store, list(configs)).items()}
        self._packed = len(self._tables)

    def pack(self) -> None:
        """Write a pack of the runs' tables, if at least PACKED of them had to be read or computed one by one."""
        if len(self._tables) - self._packed >= packs.PACKED:
            packs.write(self.store, list(self._run_keys.values()), {self.key(c): r for c, r in self._tables.items()})

    def missing(self, configs: Sequence[RunConfig]) -> Group:
        """The runs among these that are incomplete, and the probes whose readings at least one of them lacks."""
        left = tuple(config for config in configs if config not in self._complete)
        lacking = {probe for config in left for probe in self._unread(config)}
        return Group(left, tuple(probe for probe in self.probes if probe in lacking))

    def save(self, group: Group, result: Computed) -> None:
        """Store the readings of a group's runs, then the runs: a stored run thus has its readings."""
        for config, table, readings in zip(group.configs, result.tables, result.readings, strict=True):
            for probe, reading in readings.items():
                seconds = result.probe_seconds[probe] / len(result.tables)
                manifest = self._keys.reading_manifest(config, probe, reading, seconds)
                self._reading_store.save(self._reading_keys[config, probe], reading, manifest)
                self._readings[config, probe] = reading
            manifest = self._keys.run_manifest(config, table, result.cost)
            self.store.save(self._run_keys[config], table, manifest)
            self._keep({config: pa.Table.from_pandas(table, preserve_index=False)})
            self._note(config)

    def stored(self) -> int:
        """The number of runs that are on disk with all their readings."""
        return sum(
            key in self.store and all(self._reading_keys[config, p] in self._reading_store for p in self.probes)
            for config, key in self._run_keys.items()
        )

    def frame(self) -> pd.DataFrame:
        """The tidy table of all runs."""
        return packs.tidy(list(self._run_keys), [self._tables[config] for config in self._run_keys])

    def readings(self) -> dict[str, pd.DataFrame]:
        """By probe, the tables of all runs as one: run, step, the probe's columns, failure."""
        found = {}
        for probe in self.probes:
            parts = [self._readings[config, probe] for config in self._run_keys]
            numbered = [part.assign(run=run) for run, part in enumerate(parts) if len(part)]
            table = below_each_other(numbered or [parts[0].assign(run=0)])
            columns = [column for column in table.columns if column not in OWN_COLUMNS]
            found[probe] = table[["run", "step", *columns, "failure"]]
        return found

    def _keep(self, tables: Mapping[RunConfig, pa.Table]) -> None:
        """Keep tables in memory as one, which takes a tenth of the memory of many."""
        if tables:
            self._tables |= dict(zip(tables, packs.joined(list(tables.values())), strict=True))

    def _unread(self, config: RunConfig) -> tuple[str, ...]:
        """The probes whose readings of this run are not in memory."""
        return tuple(probe for probe in self.probes if (config, probe) not in self._readings)

    def _note(self, config: RunConfig) -> None:
        if config in self._tables and not self._unread(config):
            self._complete.add(config)

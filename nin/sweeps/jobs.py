"""A group of runs as a job that any process can do, and what a store has to know of its runs and readings."""

import dataclasses
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from nin.model.data import Dataset, load_data
from nin.phases import classify
from nin.probes.asking import ProbeError, ask
from nin.support import paths, provenance
from nin.sweeps.fingerprint import identity
from nin.sweeps.groups import group_size
from nin.sweeps.readings import Probing, Readings
from nin.sweeps.store import Store, key
from nin.training.config import RunConfig
from nin.training.loop import find_device, train
from nin.training.start import build

PACKAGES = ("nin", "torch", "numpy", "pandas", "pyarrow")
Factory = Callable[[], nn.Module]


@dataclass(frozen=True)
class Group:
    """Runs to train as one ensemble, and the names of the probes to ask about them."""

    configs: tuple[RunConfig, ...]
    probes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Computed:
    """The tables of a group's runs, and what it took: seconds for the whole group, torch threads.

    readings       for each run the tables of the probes, by name
    probe_seconds  what each probe took, all runs together; not part of seconds
    """

    tables: list[pd.DataFrame]
    readings: list[dict[str, pd.DataFrame]]
    seconds: float
    probe_seconds: dict[str, float]
    threads: int


def compute(
    group: Group,
    *,
    data: Dataset | Path | None,
    network: Factory | None,
    device: str,
    probing: Probing | None = None,
    one_thread: bool = False,
    progress: bool = False,
) -> Computed:
    """Train one group, here or in a worker, which loads data by name or from a file, once for all its groups."""
    configs = group.configs
    if one_thread and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    start = time.perf_counter()
    if not isinstance(data, Dataset):
        data = _read(data) if data else _named(configs[0].dataset, configs[0].n_train)
    options: dict[str, Any] = {"data": data, "network": network, "device": device, "progress": progress}
    asked = None
    if group.probes:
        asked = Readings(probing.only(group.probes), configs, *probing.probe_set(data, configs[0]))
        options |= {"snapshots": probing.due(configs[0]), "observe": asked}
    runs = train(configs, **options)
    each = range(len(configs))
    tables, readings = [runs.table(run) for run in each], [asked.tables(run) if asked else {} for run in each]
    probe_seconds = asked.seconds if asked else {}
    seconds = time.perf_counter() - start - sum(probe_seconds.values())
    return Computed(tables, readings, seconds, probe_seconds, torch.get_num_threads())


@lru_cache(maxsize=4)
def _named(name: str, n_train: int | None) -> Dataset:
    return load_data(name, n_train=n_train)


@lru_cache(maxsize=1)
def _read(path: Path) -> Dataset:
    return Dataset(**torch.load(path, mmap=True, weights_only=True))


class Jobs:
    """The runs of one sweep: their keys, the sizes of their groups, the function that trains a group."""

    def __init__(
        self, data: Dataset | None, factory: Factory | None, device: str, probing: Probing | None = None
    ) -> None:
        self.data, self.factory, self.device, self.probing = data, factory, find_device(device), probing
        self._built: dict[RunConfig, tuple[nn.Module, dict[str, Any]]] = {}
        self._versions, self._commit = provenance.versions(PACKAGES), provenance.commit()

    def dataset(self, config: RunConfig) -> Dataset:
        """The data that a run trains on."""
        return _named(config.dataset, config.n_train) if self.data is None else self.data

    def identity(self, config: RunConfig) -> dict[str, Any]:
        """What determines a run beside its config: data, device, and the user's own network."""
        return {"data": self.dataset(config).hash, "device": self.device.type} | self._network(config)[1]

    def key(self, config: RunConfig) -> str:
        """The key of a run in a store."""
        return key({"config": config.changes()} | self.identity(config))

    def reading_key(self, config: RunConfig, name: str) -> str:
        """The key of a probe's table in a store."""
        return key({"run": self.key(config)} | self.probing.identity(name, config))

    def try_probes(self, config: RunConfig) -> None:
        """Ask the probes about a run's network before anything is trained.

        Raises ProbeError for one that changes the network or returns no frame; another error may be that network's own,
        and comes again as a failure that is recorded.
        """
        x, y = self.probing.probe_set(self.dataset(config), config)
        for name, probe in self.probing.probes.items():
            try:
                ask(name, probe, self._network(config)[0], x, y, seed=config.seed)
            except ProbeError:
                raise
            except Exception:
                continue

    def group_size(self, config: RunConfig) -> int:
        """How many runs like this one to train at once."""
        return group_size(config, self._network(config)[0], self.device.type)

    def about(self, config: RunConfig, table: pd.DataFrame, result: Computed) -> dict[str, Any]:
        """What the manifest of a run says beside its key and its table."""
        return {
            "phase": classify(table) if config.nodes else None,
            "config": config.as_json(),
            **self.identity(config),
            "source": self.dataset(config).source,
            "seconds": result.seconds / len(result.tables),
            "trained_together": len(result.tables),
            "threads": result.threads,
            "versions": self._versions,
            "commit": self._commit,
        }

    def about_reading(self, config: RunConfig, name: str, reading: pd.DataFrame, result: Computed) -> dict[str, Any]:
        """What the manifest of a probe's table says beside its key."""
        return {
            "run": self.key(config),
            "name": name,
            **self.probing.identity(name, config),
            "failures": int(reading["failure"].notna().sum()),
            "seconds": result.probe_seconds[name] / len(result.tables),
            "versions": self._versions,
            "commit": self._commit,
        }

    def work(self, progress: bool) -> Callable[[Group], Computed]:
        """The function that trains a group in this process."""
        return partial(compute, data=self.data, progress=progress, **self._shared())

    def work_elsewhere(self, store: Store) -> Callable[[Group], Computed]:
        """The function that trains a group in another process, which finds the user's own data in the store."""
        path = None
        if self.data is not None:
            path = store.folder.resolve() / "data" / f"{self.data.hash}.pt"
            if not path.exists():
                buffer = io.BytesIO()
                torch.save({f.name: getattr(self.data, f.name) for f in dataclasses.fields(Dataset)}, buffer)
                paths.write(path, buffer.getvalue())
        return partial(compute, data=path, one_thread=True, **self._shared())

    def _shared(self) -> dict[str, Any]:
        """What all groups have in common, wherever they are trained."""
        return {"network": self.factory, "device": str(self.device), "probing": self.probing}

    def _network(self, config: RunConfig) -> tuple[nn.Module, dict[str, Any]]:
        """A network of the run's shape, and the identity of its factory if it is the user's own."""
        shape = config.replace(seed=0, sigma=1.0, lr=1.0, niw_std=None)
        if shape not in self._built:
            network = build(shape, self.dataset(config), self.factory)
            own = {} if self.factory is None else {"network": identity(self.factory, network)}
            self._built[shape] = network, own
        return self._built[shape]

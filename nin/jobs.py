"""A group of runs as a job that any process can do, and what a store has to know of its runs."""

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from nin import paths, provenance
from nin.config import RunConfig
from nin.data import Dataset, load_data
from nin.grouping import group_size
from nin.members import build, identity
from nin.phases import classify
from nin.store import Store, key
from nin.training import find_device, train

PACKAGES = ("nin", "torch", "numpy", "pandas", "pyarrow")
Factory = Callable[[], nn.Module]


@dataclass(frozen=True)
class Computed:
    """The tables of a group's runs, and what it took: seconds for the whole group, torch threads."""

    tables: list[pd.DataFrame]
    seconds: float
    threads: int


def compute(
    configs: Sequence[RunConfig],
    *,
    data: Dataset | Path | None,
    network: Factory | None,
    device: str,
    one_thread: bool = False,
    progress: bool = False,
) -> Computed:
    """Train one group, here or in a worker, which loads data by name or from a file, once for all its groups."""
    if one_thread and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    start = time.perf_counter()
    if not isinstance(data, Dataset):
        data = _read(data) if data else _named(configs[0].dataset, configs[0].n_train)
    runs = train(configs, data=data, network=network, device=device, progress=progress)
    tables = [runs.table(run) for run in range(len(configs))]
    return Computed(tables, time.perf_counter() - start, torch.get_num_threads())


@lru_cache(maxsize=4)
def _named(name: str, n_train: int | None) -> Dataset:
    return load_data(name, n_train=n_train)


@lru_cache(maxsize=1)
def _read(path: Path) -> Dataset:
    return Dataset(**torch.load(path, mmap=True, weights_only=True))


class Jobs:
    """The runs of one sweep: their keys, the sizes of their groups, the function that trains a group."""

    def __init__(self, data: Dataset | None, factory: Factory | None, device: str) -> None:
        self.data, self.factory, self.device = data, factory, find_device(device)
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

    def work(self, progress: bool) -> Callable[[Sequence[RunConfig]], Computed]:
        """The function that trains a group in this process."""
        return partial(compute, data=self.data, network=self.factory, device=str(self.device), progress=progress)

    def work_elsewhere(self, store: Store) -> Callable[[Sequence[RunConfig]], Computed]:
        """The function that trains a group in another process, which finds the user's own data in the store."""
        path = None
        if self.data is not None:
            path = store.folder.resolve() / "data" / f"{self.data.hash}.pt"
            if not path.exists():
                buffer = io.BytesIO()
                torch.save({f.name: getattr(self.data, f.name) for f in dataclasses.fields(Dataset)}, buffer)
                paths.write(path, buffer.getvalue())
        return partial(compute, data=path, network=self.factory, device=str(self.device), one_thread=True)

    def _network(self, config: RunConfig) -> tuple[nn.Module, dict[str, Any]]:
        """A network of the run's shape, and the identity of its factory if it is the user's own."""
        shape = config.replace(seed=0, sigma=1.0, lr=1.0, niw_std=None)
        if shape not in self._built:
            network = build(shape, self.dataset(config), self.factory)
            own = {} if self.factory is None else {"network": identity(self.factory, network)}
            self._built[shape] = network, own
        return self._built[shape]

"""A group of runs as a job for any process: train its runs as one ensemble and ask the probes about them."""

import dataclasses
import io
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from nin.model.dataset import Dataset
from nin.probes.asking import ProbeError, ask
from nin.support import paths
from nin.sweeps.groups import group_size
from nin.sweeps.keys import Factory, Keys, named_data
from nin.sweeps.readings import Probing, Readings
from nin.sweeps.store import Store
from nin.training.config import RunConfig
from nin.training.loop import check_run, train
from nin.training.objective import OwnLoss

WATCH = "nin sweep"  # the thread of a worker that waits for the end of its parent


@dataclass(frozen=True)
class Group:
    """Runs to train as one ensemble, and the names of the probes to ask about them."""

    configs: tuple[RunConfig, ...]
    probes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Computed:
    """The results of one group.

    tables         one for each run
    readings       for each run the tables of the probes, by name
    seconds        for the whole group, without the probes
    probe_seconds  of each probe, for the whole group
    threads        torch threads
    """

    tables: list[pd.DataFrame]
    readings: list[dict[str, pd.DataFrame]]
    seconds: float
    probe_seconds: dict[str, float]
    threads: int

    @property
    def cost(self) -> dict[str, float]:
        """Seconds per run, and under which conditions, for a run's manifest."""
        runs = len(self.tables)
        return {"seconds": self.seconds / runs, "trained_together": runs, "threads": self.threads}


def compute(
    group: Group,
    *,
    data: Dataset | Path | None,
    network: Factory | None,
    loss: OwnLoss | None,
    augment: Callable[[Tensor], Tensor] | None,
    device: str,
    probing: Probing | None = None,
    sweep: int | None = None,
    progress: bool = False,
) -> Computed:
    """Train one group, in this process or in a worker.

    data        the data set, or the file that holds it, or None: the one named in the config; a worker reads either
                once for all its groups
    sweep       in a worker, the process of its sweep: torch is set to one thread, and the worker ends with its parent
    """
    configs = group.configs
    if sweep is not None:
        end_with_the_sweep(sweep)
    if sweep is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    start = time.perf_counter()
    if data is None:
        data = named_data(configs[0].dataset, configs[0].n_train)
    elif not isinstance(data, Dataset):
        data = _read(data)
    own = {"data": data, "network": network, "loss": loss, "augment": augment}
    options: dict[str, Any] = own | {"device": device, "progress": progress}
    asked = None
    if group.probes:
        asked = Readings(probing.only(group.probes), configs, *probing.probe_set(data, configs[0]))
        options |= {"snapshots": probing.due(configs[0]), "observe": asked}
    runs = train(configs, **options)
    tables = [runs.table(run) for run in range(len(configs))]
    readings = [asked.tables(run) if asked else {} for run in range(len(configs))]
    probe_seconds = asked.seconds if asked else {}
    seconds = time.perf_counter() - start - sum(probe_seconds.values())
    return Computed(tables, readings, seconds, probe_seconds, torch.get_num_threads())


def end_with_the_sweep(sweep: int) -> None:
    """Let this process, a worker of multiprocessing, end as soon as its parent has ended, however it ended.

    A pool whose process is killed would wait for work for ever. In the process of the sweep itself nothing changes.
    """
    parent, watching = multiprocessing.parent_process(), {thread.name for thread in threading.enumerate()}
    if parent is None or os.getpid() == sweep or WATCH in watching:  # a forked process has none of its parent's threads
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name=WATCH, daemon=True).start()


@lru_cache(maxsize=1)
def _read(path: Path) -> Dataset:
    """The data set in a file that is named by its hash; DamagedData if it holds anything else."""
    try:
        data = Dataset(**torch.load(path, mmap=True, weights_only=True))
    except Exception as error:  # a zip, a pickle or a data set, each of which can be broken in its own ways
        raise DamagedData(
            f"{path} is damaged ({type(error).__name__}): remove it, and start the sweep again."
        ) from None
    if data.hash != path.stem:
        raise DamagedData(f"{path} is damaged: its hash is {data.hash[:12]}...; remove it, and start the sweep again.")
    return data


class DamagedData(ValueError):
    """A data set in a store that differs from what was written."""


def _holds(path: Path, data: Dataset) -> bool:
    """Whether the file holds this data set; a damaged one does not."""
    try:
        return path.exists() and _read.__wrapped__(path).hash == data.hash
    except DamagedData:
        return False


class Jobs:
    """The jobs of one sweep: how many runs go into one, and the function that computes it."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def group_size(self, config: RunConfig) -> int:
        """How many runs like this one to train at once."""
        return group_size(config, self.keys.network(config), self.keys.device.type)

    def try_runs(self, configs: Sequence[RunConfig]) -> None:
        """Try the network and the loss of each kind of run on some samples, before any run is trained."""
        tried = {}
        for config in configs:
            if (network := self.keys.network(config)) not in tried:
                tried[network] = check_run(config, network, self.keys.dataset(config), self.keys.objective(config))

    def try_probes(self, config: RunConfig) -> None:
        """Ask the probes about a run's network before any run is trained.

        Raises ProbeError for a probe that changes the network or does not return a DataFrame. Any other error may be
        due to this one network; if it comes again during training, it is recorded as a failure.
        """
        x, y = self.keys.probing.probe_set(self.keys.dataset(config), config)
        for name, probe in self.keys.probing.probes.items():
            try:
                ask(name, probe, self.keys.network(config), x, y, seed=config.seed)
            except ProbeError:
                raise
            except Exception:
                continue

    def work(self, progress: bool) -> Callable[[Group], Computed]:
        """The function that computes a group in this process."""
        return partial(compute, data=self.keys.data, progress=progress, **self._shared())

    def work_elsewhere(self, store: Store) -> Callable[[Group], Computed]:
        """The function that computes a group in another process, which reads user-defined data from the store."""
        path, data = None, self.keys.data
        if data is not None:
            path = store.folder.resolve() / "data" / f"{data.hash}.pt"
            if not _holds(path, data):
                buffer = io.BytesIO()
                torch.save({f.name: getattr(data, f.name) for f in dataclasses.fields(Dataset)}, buffer)
                with store.writing():
                    paths.write(path, buffer.getvalue())
        return partial(compute, data=path, sweep=os.getpid(), **self._shared())

    def _shared(self) -> dict[str, Any]:
        """The arguments that are the same in every process."""
        own = {"network": self.keys.factory, "loss": self.keys.loss, "augment": self.keys.augment}
        return own | {"device": str(self.keys.device), "probing": self.keys.probing}

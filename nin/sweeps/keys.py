"""The keys of stored runs and probe readings: everything that determines them; and their manifests."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import pandas as pd
from torch import Tensor, nn

from nin.model.data import load_data
from nin.model.dataset import Dataset
from nin.phases import VERSION, classify
from nin.support import provenance
from nin.support.devices import find_device
from nin.sweeps.fingerprint import fingerprint, identity
from nin.sweeps.manifests import key
from nin.sweeps.readings import Probing
from nin.training.config import RunConfig
from nin.training.objective import Objective, OwnLoss
from nin.training.start import build
from nin.training.trajectories import tidy

PACKAGES = ("nin", "torch", "numpy", "pandas", "pyarrow")
Factory = Callable[[], nn.Module]


@lru_cache(maxsize=4)
def named_data(name: str, n_train: int | None) -> Dataset:
    """`load_data`, once per process."""
    return load_data(name, n_train=n_train)


class Keys:
    """What the runs of one sweep share, and the keys and manifests that follow from it and from a run's config.

    data, factory   user-defined data set and network factory; None: those named in the config
    loss, augment   user-defined, as in `nin.train`; None: the config's loss, and no augmentation
    device          "auto", "cpu" or "cuda"
    probing         which probes are asked, and when; None: no probes
    """

    def __init__(
        self,
        data: Dataset | None,
        factory: Factory | None,
        device: str,
        probing: Probing | None = None,
        *,
        loss: OwnLoss | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.data, self.factory, self.device, self.probing = data, factory, find_device(device), probing
        self.loss, self.augment = loss, augment
        own = {"loss": loss, "augment": augment}
        self._functions = {name: fingerprint(name, value) for name, value in own.items() if value is not None}
        self._built: dict[tuple, tuple[nn.Module, dict[str, Any]]] = {}
        self._origin = {"versions": provenance.versions(PACKAGES), "commit": provenance.commit()}

    def dataset(self, config: RunConfig) -> Dataset:
        """The data that a run trains on."""
        return named_data(config.dataset, config.n_train) if self.data is None else self.data

    def network(self, config: RunConfig) -> nn.Module:
        """A network like the run's, built once for all runs of that shape."""
        return self._network(config)[0]

    def objective(self, config: RunConfig) -> Objective:
        """The loss that a run minimises."""
        return Objective(config.loss if self.loss is None else self.loss)

    def of_run(self, config: RunConfig) -> str:
        """The key of a run in a store."""
        return key({"config": config.changes()} | self._identity(config))

    def of_reading(self, config: RunConfig, probe: str) -> str:
        """The key in a store of the readings of a probe, given by its name, along a run."""
        return key({"run": self.of_run(config)} | self.probing.identity(probe, config))

    def run_manifest(self, config: RunConfig, table: pd.DataFrame, cost: Mapping[str, float]) -> dict[str, Any]:
        """The manifest of a run; the store adds the key, the date and the table's checksum."""
        return {
            "phase": classify(tidy([config], [table])) if config.nodes else None,
            "criteria": VERSION,
            "config": config.as_json(),
            **self._identity(config),
            "source": self.dataset(config).source,
            **cost,
            **self._origin,
        }

    def reading_manifest(self, config: RunConfig, probe: str, reading: pd.DataFrame, seconds: float) -> dict[str, Any]:
        """The manifest of a probe's table; the store adds the key, the date and the table's checksum."""
        return {
            "run": self.of_run(config),
            "name": probe,
            **self.probing.identity(probe, config),
            "failures": int(reading["failure"].notna().sum()),
            "seconds": seconds,
            **self._origin,
        }

    def _identity(self, config: RunConfig) -> dict[str, Any]:
        """What determines a run besides its config: data, device, and what is user-defined."""
        shared = {"data": self.dataset(config).hash, "device": self.device.type}
        return shared | self._network(config)[1] | self._functions

    def _network(self, config: RunConfig) -> tuple[nn.Module, dict[str, Any]]:
        """A network of the run's shape, and the identity of its factory if it is user-defined."""
        shape = tuple(value for name, value in vars(config).items() if name not in ("seed", "sigma", "lr", "niw_std"))
        if shape not in self._built:
            alike = config.replace(seed=0, sigma=1.0, lr=1.0, niw_std=None)
            network = build(alike, self.dataset(config), self.factory)
            own = {} if self.factory is None else {"network": identity(self.factory, network)}
            self._built[shape] = network, own
        return self._built[shape]

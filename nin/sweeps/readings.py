"""Probes along training: any function (model, x, y) -> table, asked at the snapshots of every run."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from nin import probes as our_probes
from nin.model.dataset import Dataset
from nin.probes.asking import Probe, ask, check_probes
from nin.support.arguments import check_count, check_steps
from nin.support.threads import threads
from nin.sweeps.fingerprint import fingerprint
from nin.training.config import DTYPES, RunConfig
from nin.training.schedule import log_spaced

POINTS = 8  # snapshots of a run if none are given


@dataclass(frozen=True)
class Probing:
    """Which probes are asked, at which steps, on how many samples.

    probes     name -> function (model, x, y) -> DataFrame, see `nin.probes.asking.ask`
    snapshots  steps; None: POINTS of them, log-spaced, with 0 and the last step
    samples    size of the probe set: the first test samples
    Raises ValueError for an empty mapping, a name that is not text, a probe that cannot be called, or an invalid step.
    """

    probes: Mapping[str, Probe] | object  # other types reach the errors below
    snapshots: Sequence[int] | None = None
    samples: int = 128

    def __post_init__(self) -> None:
        check_probes(self.probes)
        check_count("probe_samples", self.samples)
        if self.snapshots is not None:
            object.__setattr__(self, "snapshots", check_steps("snapshots", self.snapshots))
            if not self.snapshots:
                raise ValueError("snapshots is empty: the probes would never be asked; give steps, or None.")

    def due(self, config: RunConfig) -> tuple[int, ...]:
        """The snapshots of a run; ValueError for one beyond its last step."""
        if self.snapshots is None:
            return tuple(log_spaced(config.steps, POINTS))
        if self.snapshots[-1] > config.steps:
            raise ValueError(f"snapshots={self.snapshots!r} goes beyond the last step of a run (steps={config.steps}).")
        return self.snapshots

    def probe_set(
        self, data: Dataset, config: RunConfig
    ) -> tuple[Shaped[Tensor, "samples ..."], Shaped[Tensor, "samples ..."]]:
        """The first test samples in the run's dtype; ValueError if there are too few."""
        if self.samples > len(data.x_test):
            raise ValueError(f"probe_samples={self.samples} is more than the {len(data.x_test)} test samples.")
        data = data.to(DTYPES[config.dtype])
        return data.x_test[: self.samples], data.y_test[: self.samples]

    def identity(self, name: str, config: RunConfig) -> dict[str, Any]:
        """What determines the table of a probe besides the run."""
        known = {"probe": self._fingerprints[name], "nin.probes": probe_sources()}
        return known | {"snapshots": list(self.due(config)), "probe_samples": self.samples}

    @cached_property
    def _fingerprints(self) -> dict[str, dict[str, str]]:
        return {name: fingerprint(f"probes[{name!r}]", probe) for name, probe in self.probes.items()}

    def only(self, names: Sequence[str]) -> "Probing":
        """A copy with only some of the probes."""
        return Probing({name: self.probes[name] for name in names}, self.snapshots, self.samples)


@cache
def probe_sources() -> str:
    """A sha256 of all code in nin.probes, which user-defined probes are likely to call."""
    return _hash_of(Path(our_probes.__file__).parent)


def _hash_of(folder: Path) -> str:
    """A sha256 of all Python files under a folder, with their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


@dataclass
class Readings:
    """Asks the probes at every snapshot of an ensemble, and keeps the tables: an `observe` for `nin.train`.

    seconds    time that each probe took, over all runs
    """

    probing: Probing
    configs: Sequence[RunConfig]
    x: Shaped[Tensor, "samples ..."]
    y: Shaped[Tensor, "samples ..."]
    seconds: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = dict.fromkeys(self.probing.probes, 0.0)
        self._tables: dict[tuple[int, str], list[pd.DataFrame]] = {}
        self._failures: dict[tuple[int, str], list[tuple[int, str]]] = {}
        self._threads = torch.get_num_threads()  # training may set another number

    def __call__(self, run: int, step: int, model: nn.Module) -> None:
        """Ask all probes about one network. If one raises, its error is recorded and the others are still asked."""
        for name, probe in self.probing.probes.items():
            start = time.perf_counter()
            with threads(self._threads):
                try:
                    table = ask(name, probe, model, self.x, self.y, seed=self.configs[run].seed * 1_000_003 + step)
                except Exception as error:
                    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    self._failures.setdefault((run, name), []).append((step, what))
                else:
                    table.insert(0, "step", step)
                    self._tables.setdefault((run, name), []).append(table)
            self.seconds[name] += time.perf_counter() - start

    def tables(self, run: int) -> dict[str, pd.DataFrame]:
        """By probe: step, the probe's columns, and failure: the error if the probe raised at that step, else NaN."""
        return {name: self._table(run, name) for name in self.probing.probes}

    def _table(self, run: int, name: str) -> pd.DataFrame:
        parts = self._tables.get((run, name), [])
        failures = pd.DataFrame(self._failures.get((run, name), []), columns=["step", "failure"]).astype(
            {"failure": "str"}
        )
        table = below_each_other(parts) if parts else failures[["step"]].iloc[:0]
        table = table.assign(failure=pd.Series(np.nan, index=table.index, dtype="str"))
        if len(failures):
            table = pd.concat([table, failures], ignore_index=True).sort_values("step", kind="stable")
        return table.astype({"step": int}).reset_index(drop=True)


def below_each_other(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other; a column without a value in some of them has the type that it has in the others."""
    parts = list(parts)
    for column in dict.fromkeys(name for part in parts for name in part.columns):
        having = [number for number, part in enumerate(parts) if column in part]
        if len({parts[number][column].dtype for number in having}) == 1:
            continue
        empty = [number for number in having if parts[number][column].isna().all()]
        types = {parts[number][column].dtype for number in having if number not in empty}
        if not types:
            types = {pd.Series([np.nan], dtype="str").dtype}
        kind = types.pop()
        if not types and kind.kind not in "b":
            for number in empty:
                parts[number] = parts[number].astype({column: float if kind.kind in "iu" else kind})
    return pd.concat(parts, ignore_index=True)

"""Probes along training: any function (model, x, y) -> table, asked at the snapshots of every run."""

import copy
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from nin import probes as our_probes
from nin.arguments import check_count
from nin.config import DTYPES, RunConfig
from nin.data import Dataset
from nin.fingerprint import fingerprint
from nin.nodes import NoisyNetwork
from nin.probes.response_law import log_spaced
from nin.threads import threads

Probe = Callable[[nn.Module, Tensor, Tensor], pd.DataFrame]
POINTS = 8  # snapshots of a run where none are named
OWN_COLUMNS = ("run", "step", "failure")
_one_at_a_time = threading.Lock()  # the threads of a process share the generators


class ProbeError(ValueError):
    """What a probe must not do: change its network, or return something else than a table."""


@dataclass(frozen=True)
class Probing:
    """Which probes are asked, at which steps, on how many samples.

    probes     name -> function (model, x, y) -> DataFrame, see `read`
    snapshots  steps; None: 0, the last one and six between, log-spaced
    samples    of the test set, the first ones: the fixed probe set
    Raises ValueError for no probes, names that are not text, what cannot be called, steps that are none.
    """

    probes: Mapping[str, Probe]
    snapshots: tuple[int, ...] | None = None
    samples: int = 128

    def __post_init__(self) -> None:
        if not isinstance(self.probes, Mapping) or not self.probes:
            raise ValueError(f"probes={self.probes!r} must map names to functions, as in {{'rank': rank}}.")
        for name, probe in self.probes.items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"probes: the name {name!r} must be text.")
            if not callable(probe):
                raise ValueError(f"probes[{name!r}]={probe!r} must be a function (model, x, y) -> DataFrame.")
        check_count("probe_samples", self.samples)
        if self.snapshots is not None:
            for step in self.snapshots:
                check_count("snapshots", step, minimum=0)
            if not self.snapshots:
                raise ValueError("snapshots is empty: probes would never be asked; name steps, or None.")
            object.__setattr__(self, "snapshots", tuple(sorted({int(step) for step in self.snapshots})))

    def due(self, config: RunConfig) -> tuple[int, ...]:
        """The snapshots of a run; ValueError for one beyond its last step."""
        if self.snapshots is None:
            return tuple(log_spaced(config.steps, POINTS))
        if self.snapshots[-1] > config.steps:
            raise ValueError(f"snapshots={self.snapshots!r} goes beyond steps={config.steps} of a run.")
        return self.snapshots

    def probe_set(self, data: Dataset, config: RunConfig) -> tuple[Tensor, Tensor]:
        """The first test samples in the run's dtype; ValueError where there are fewer."""
        if self.samples > len(data.x_test):
            raise ValueError(f"probe_samples={self.samples} is more than the test set of {len(data.x_test)} has.")
        data = data.to(DTYPES[config.dtype])
        return data.x_test[: self.samples], data.y_test[: self.samples]

    def identity(self, name: str, config: RunConfig) -> dict[str, Any]:
        """What determines the table of a probe beside the run."""
        known = {"probe": self._fingerprints[name], "nin.probes": probe_sources()}
        return known | {"snapshots": list(self.due(config)), "probe_samples": self.samples}

    @cached_property
    def _fingerprints(self) -> dict[str, dict[str, str]]:
        return {name: fingerprint(f"probes[{name!r}]", probe) for name, probe in self.probes.items()}

    def only(self, names: Sequence[str]) -> "Probing":
        """The same with some of the probes."""
        return Probing({name: self.probes[name] for name in names}, self.snapshots, self.samples)


@cache
def probe_sources() -> str:
    """A sha256 of all code in nin.probes, on which probes are likely to be built."""
    files = sorted(Path(our_probes.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def read(name: str, probe: Probe, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> pd.DataFrame:
    """Ask a probe about a network, and make sure that it only looked.

    The probe gets copies of the network without its node, in eval mode, and of the probe set; it returns a DataFrame
    whose columns have names, none of them run, step or failure, and hold numbers, text or truth values. What it draws
    from the global generators of torch, NumPy and Python is fixed by the seed, and does not move them; gradients are
    enabled, and whether they are is again as it was behind it.
    Raises ProbeError for a probe that changed the network (what of it is named) or returned no such frame; what the
    probe itself raises passes through.
    """
    model = model.network if isinstance(model, NoisyNetwork) else model
    before = copy.deepcopy(model).eval()
    given = copy.deepcopy(before)
    own_x, own_y = x.clone(), y.clone()
    with _one_at_a_time, own_randomness(seed), torch.enable_grad():
        table = probe(given, own_x, own_y)
    changed = _differences(before, given)
    changed += [n for n, a, b in (("x", x, own_x), ("y", y, own_y)) if not torch.equal(a, b)]
    if changed:
        raise ProbeError(f"probe {name!r} changed what it was given: {', '.join(changed)}. Let it work on a copy.")
    return _checked(name, table)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Global generators of torch, NumPy and Python seeded inside, as they were behind."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - a probe may draw from it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def _differences(before: nn.Module, after: nn.Module) -> list[str]:
    """What of a network is not as it was: names of parameters and buffers, modes, gradients, hooks, modules."""
    found = []
    tensors = [dict([*m.named_parameters(), *m.named_buffers()]) for m in (before, after)]
    modules = [dict(m.named_modules()) for m in (before, after)]
    for kind, (old, new) in (("tensor", tensors), ("module", modules)):
        found += [f"{kind} {name!r} {'added' if name in new else 'gone'}" for name in sorted(set(old) ^ set(new))]
    for name, old in tensors[0].items():
        new = tensors[1].get(name)
        if new is None:
            continue
        if old.shape != new.shape or old.dtype != new.dtype or not torch.equal(old.nan_to_num(), new.nan_to_num()):
            found.append(name)
        if old.requires_grad != new.requires_grad:
            found.append(f"requires_grad of {name}")
        if new.grad is not None:
            found.append(f"gradient of {name}")
    for name, old in modules[0].items():
        new = modules[1].get(name)
        if new is None:
            continue
        where = f" of {name!r}" if name else ""
        if new.training:
            found.append(f"train mode{where}")
        if _hooks(old) != _hooks(new):
            found.append(f"hooks{where}")
    return found


def _hooks(module: nn.Module) -> list[int]:
    """How many hooks of each kind a module has."""
    return [len(value) for name, value in sorted(vars(module).items()) if name.endswith("_hooks")]


def _checked(name: str, table: Any) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        raise ProbeError(
            f"probe {name!r} returned {type(table).__name__}, not a pandas DataFrame; "
            "for one number: pd.DataFrame({'quantity': ['rank'], 'value': [3.0]})."
        )
    if not all(isinstance(column, str) for column in table.columns) or not table.columns.is_unique:
        raise ProbeError(f"probe {name!r} returned columns {list(table.columns)}; each needs a name of its own.")
    if taken := [column for column in OWN_COLUMNS if column in table.columns]:
        raise ProbeError(f"probe {name!r} returned a column {taken[0]!r}, which is added for it; give it another name.")
    try:
        pa.Table.from_pandas(table, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ProbeError(f"probe {name!r} returned a table that cannot be stored: {what}.") from None
    return table.reset_index(drop=True)


@dataclass
class Readings:
    """Asks the probes at every snapshot of an ensemble, and keeps the tables: an `observe` for `nin.train`.

    seconds    what each probe took, all runs together
    """

    probing: Probing
    configs: Sequence[RunConfig]
    x: Tensor
    y: Tensor
    seconds: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = dict.fromkeys(self.probing.probes, 0.0)
        self._tables: dict[tuple[int, str], list[pd.DataFrame]] = {}
        self._failures: dict[tuple[int, str], list[tuple[int, str]]] = {}
        self._threads = torch.get_num_threads()  # training may set its own

    def __call__(self, run: int, step: int, model: nn.Module) -> None:
        """Ask all probes about one network. What one raises is recorded; the others and the rest go on."""
        for name, probe in self.probing.probes.items():
            start = time.perf_counter()
            with threads(self._threads):
                try:
                    table = read(name, probe, model, self.x, self.y, seed=self.configs[run].seed * 1_000_003 + step)
                except Exception as error:
                    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    self._failures.setdefault((run, name), []).append((step, what))
                else:
                    table.insert(0, "step", step)
                    self._tables.setdefault((run, name), []).append(table)
            self.seconds[name] += time.perf_counter() - start

    def tables(self, run: int) -> dict[str, pd.DataFrame]:
        """By probe: step, the probe's columns, and failure, the error of a snapshot that has no reading, else None."""
        return {name: self._table(run, name) for name in self.probing.probes}

    def _table(self, run: int, name: str) -> pd.DataFrame:
        parts = self._tables.get((run, name), [])
        failures = pd.DataFrame(self._failures.get((run, name), []), columns=["step", "failure"]).astype(
            {"failure": "str"}
        )
        table = pd.concat(parts, ignore_index=True) if parts else failures[["step"]].iloc[:0]
        table = table.assign(failure=pd.Series(np.nan, index=table.index, dtype="str"))
        if len(failures):
            table = pd.concat([table, failures], ignore_index=True).sort_values("step", kind="stable")
        return table.astype({"step": int}).reset_index(drop=True)

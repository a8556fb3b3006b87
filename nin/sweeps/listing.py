"""The contents of a store, as a readable list and as one table."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from nin.phases import VERSION, classify
from nin.support import paths
from nin.sweeps.records import FURTHER, records_of
from nin.sweeps.results import readings_of
from nin.sweeps.store import DamagedRun, NewerSchema, Store
from nin.training.config import RunConfig
from nin.training.trajectories import tidy

AT_A_TIME = 500  # runs in memory while a table is exported
UNITS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Listing:
    """The runs of a store.

    rows      for each run (phase, key, config fields that differ between runs, age, size)
    common    config fields that all runs share and that are not the default
    phases    number of runs in each phase
    seconds, bytes   time to compute the runs, and their size on disk
    readings  number of stored tables of each probe; not counted in seconds and bytes
    records   for each record of one's own loop (phase, key, name, settings, age, size); not counted either
    problems  one sentence for each file that cannot be read
    """

    rows: list[tuple[str, str, str, str, str]]
    common: str
    phases: Counter
    seconds: float
    bytes: int
    readings: Counter
    records: list[tuple[str, str, str, str, str, str]]
    problems: list[str]


def listing(store: Store, *, verify: bool = False) -> Listing:
    """List all runs from their manifests; with verify, also check every table against its checksum."""
    manifests, problems = _manifests(store, verify)
    problems += _relabel(store, manifests)
    readings, more = _manifests(readings_of(store), verify)
    problems += more
    logs, more = _manifests(records_of(store), verify)
    problems += more
    for part in FURTHER if verify else ():
        problems += _manifests(Store(records_of(store).folder / part), verify)[1]
    fields = [_fields(manifest) for manifest in manifests]
    names = list(dict.fromkeys(name for entry in fields for name in entry))
    differ = [name for name in names if len({_text(entry.get(name)) for entry in fields}) > 1]
    order = sorted(range(len(fields)), key=lambda i: [_sortable(fields[i].get(name)) for name in differ])
    defaults = _fields({"config": RunConfig().as_json()})
    shared = [name for name in names if name not in differ and fields[0][name] != defaults.get(name)]
    return Listing(
        rows=[
            (
                manifests[i]["phase"] or "no node",
                manifests[i]["key"][:12],
                " ".join(f"{name}={_text(fields[i].get(name))}" for name in differ),
                *_age_and_size(manifests[i]),
            )
            for i in order
        ],
        common=" ".join(f"{name}={_text(fields[0][name])}" for name in shared),
        phases=Counter(manifest["phase"] or "no node" for manifest in manifests),
        seconds=sum(manifest["seconds"] for manifest in manifests),
        bytes=sum(manifest["table"]["bytes"] for manifest in manifests),
        readings=Counter(manifest["name"] for manifest in readings),
        records=[
            (
                manifest["phase"] or "cannot tell",
                manifest["key"][:12],
                manifest["name"],
                " ".join(f"{name}={_text(value)}" for name, value in manifest["settings"].items()),
                *_age_and_size(manifest),
            )
            for manifest in sorted(logs, key=lambda manifest: (manifest["name"], manifest["created"]))
        ],
        problems=problems,
    )


def _manifests(store: Store, verify: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The manifests of a store, and one sentence for each that cannot be read."""
    manifests, problems = [], []
    for key in store:
        try:
            manifest = store.manifest(key)
            if verify:
                store.table(key, manifest)
        except (DamagedRun, NewerSchema) as error:
            problems.append(str(error))
        else:
            manifests.append(manifest)
    return manifests, problems


def _relabel(store: Store, manifests: list[dict[str, Any]]) -> list[str]:
    """Give runs whose label comes from other criteria the present one, in memory; a sentence for each damaged table."""
    problems = []
    for manifest in manifests:
        if manifest.get("criteria") != VERSION and manifest["config"]["nodes"]:
            try:
                table = store.table(manifest["key"], manifest)
            except DamagedRun as error:
                problems.append(str(error))
            else:
                manifest["phase"] = classify(tidy([RunConfig(**manifest["config"])], [table]))
    return problems


def export(store: Store, path: Path) -> int:
    """Write the tidy table of all runs as CSV, a few hundred runs at a time; return their number.

    Raises ValueError for a store without runs or a run that is damaged or of a newer schema, naming its file.
    """
    done = 0
    with paths.replacing(path) as file:
        for configs, tables in _batches(store):
            frame = tidy(configs, tables)
            frame["run"] += done
            buffer = io.StringIO()
            frame.to_csv(buffer, index=False, header=not done)
            file.write(buffer.getvalue().encode())
            done += len(configs)
        if not done:
            raise ValueError(f"there are no runs in {store.folder}; nothing was exported.")
    return done


def _batches(store: Store) -> Iterator[tuple[list[RunConfig], list[pd.DataFrame]]]:
    configs, tables = [], []
    for key in store:
        manifest = store.manifest(key)
        configs.append(RunConfig(**manifest["config"]))
        tables.append(store.table(key, manifest))
        if len(configs) == AT_A_TIME:
            yield configs, tables
            configs, tables = [], []
    if configs:
        yield configs, tables


def _fields(manifest: dict[str, Any]) -> dict[str, Any]:
    """The config and what else distinguishes runs: the source of the data, the device, the network."""
    own = {"network": manifest["network"]["name"]} if "network" in manifest else {}
    beside = {name: manifest[name] for name in ("source", "device") if manifest.get(name, "cpu") != "cpu"}
    return manifest["config"] | beside | own


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sortable(value: Any) -> tuple[str, Any]:
    return ("", value) if isinstance(value, (int, float)) else (type(value).__name__, str(value))


def _age_and_size(manifest: dict[str, Any]) -> tuple[str, str]:
    return _age(manifest["created"]), f"{manifest['table']['bytes'] / 1024:.0f} KiB"


def _age(created: str) -> str:
    seconds = max((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds(), 0)
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), UNITS[-1])
    return f"{seconds / size:.0f} {unit}"

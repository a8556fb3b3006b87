"""The contents of a store, as a readable list and as one table."""

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from nin.phases import VERSION, classify
from nin.support import paths
from nin.sweeps import packs
from nin.sweeps.manifests import DamagedRun, NewerSchema
from nin.sweeps.records import FURTHER, records_of
from nin.sweeps.results import readings_of
from nin.sweeps.store import MANIFEST, Store
from nin.training.config import RunConfig
from nin.training.trajectories import tidy

# What the manifest of each kind must hold besides the store's own entries.
OF_A_RUN = {"config": (dict,), "seconds": (int, float), "phase": (str, type(None)), "created": (str,)}
OF_A_READING = {"name": (str,)}
OF_A_RECORD = {"name": (str,), "settings": (dict,), "phase": (str, type(None)), "created": (str,)}
AT_A_TIME = 500  # runs in memory while a table is exported
FIELDS = frozenset(field.name for field in dataclasses.fields(RunConfig))
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
    manifests, problems = _manifests(store, OF_A_RUN, verify)
    problems += _relabel(store, manifests)
    readings, more = _manifests(readings_of(store), OF_A_READING, verify)
    problems += more
    logs, more = _manifests(records_of(store), OF_A_RECORD, verify)
    problems += more
    for part in FURTHER if verify else ():
        problems += _manifests(Store(records_of(store).folder / part), {}, verify)[1]
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


def _manifests(
    store: Store, needed: Mapping[str, tuple[type, ...]], verify: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """The manifests of a store that hold what is needed, and one sentence for each that cannot be read."""
    manifests, problems = [], [str(problem) for problem in store.strays()]
    for key in store:
        try:
            manifest = _complete(store, key, needed)
            if verify:
                store.content(key, manifest)
        except (DamagedRun, NewerSchema) as error:
            problems.append(str(error))
        else:
            manifests.append(manifest)
    return manifests, problems


def _complete(store: Store, key: str, needed: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """A manifest that holds what is needed. Raises DamagedRun or NewerSchema, naming its file."""
    manifest, path = store.manifest(key), store.path(key) / MANIFEST
    for name, types in needed.items():
        valid = isinstance(manifest.get(name, ...), types)
        if valid and name == "created":
            valid = _moment(manifest["created"]) is not None
        if not valid:
            raise DamagedRun(f"{path} is damaged: it has no valid {name!r}.")
    if "config" in needed:
        if unknown := [name for name in manifest["config"] if name not in FIELDS]:
            raise NewerSchema(
                f"{path} has the config field {unknown[0]!r}, which this nin does not know: update nin, or "
                "name another store."
            )
    return manifest


def _config(store: Store, manifest: dict[str, Any]) -> RunConfig:
    """The config of a run. Raises DamagedRun, naming the file, for values that this nin does not take."""
    try:
        return RunConfig(**manifest["config"])
    except (ValueError, TypeError) as error:
        path = store.path(manifest["key"]) / MANIFEST
        raise DamagedRun(f"{path} holds a config that this nin does not take: {error}") from None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _relabel(store: Store, manifests: list[dict[str, Any]]) -> list[str]:
    """Give runs whose label comes from other criteria the present one, in memory; a sentence for each damaged table."""
    problems = []
    for manifest in manifests:
        if manifest.get("criteria") != VERSION and manifest["config"].get("nodes"):
            try:
                config = _config(store, manifest)
                table = store.table(manifest["key"], manifest)
            except DamagedRun as error:
                problems.append(str(error))
            else:
                manifest["phase"] = classify(tidy([config], [table]))
    return problems


def export(store: Store, path: Path) -> int:
    """Write the tidy table of all runs as CSV, a few hundred runs at a time; return their number.

    Raises ValueError for a store without runs or a run that is damaged or of a newer schema, naming its file.
    """
    done = 0
    with paths.replacing(path) as file:
        for configs, tables in _batches(store):
            frame = packs.tidy(configs, packs.joined(tables))
            frame["run"] += done
            buffer = io.StringIO()
            frame.to_csv(buffer, index=False, header=not done)
            file.write(buffer.getvalue().encode())
            done += len(configs)
        if not done:
            raise ValueError(f"there are no runs in {store.folder}; nothing was exported.")
    return done


def _batches(store: Store) -> Iterator[tuple[list[RunConfig], list[pa.Table]]]:
    configs, tables = [], []
    for key in store:
        manifest = _complete(store, key, OF_A_RUN)
        configs.append(_config(store, manifest))
        tables.append(store.columns(key, manifest))
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

"""The tables of many runs as one: joined in memory, and in one file for a sweep, which reads it many times faster.

STORE/packs/SWEEP.arrow     a copy of what the runs' own files hold, for the sweep of these runs

A pack is a copy and never asked whether a run is stored: of each run it is used only if both files of the run are there
and as they were when it was packed, by their sizes and times. It may be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from nin.support import paths
from nin.sweeps.store import MANIFEST, TABLE, Store
from nin.training.config import RunConfig
from nin.training.trajectories import labelled

PACKED = 100  # runs; fewer are read fast enough one by one
ABOUT = b"runs"  # in the metadata: for each run its key, number of rows, and the state of its files


@dataclass(frozen=True, slots=True)
class Rows:
    """The table of a run within that of many."""

    table: pa.Table
    first: int
    count: int


def joined(tables: Sequence[pa.Table]) -> list[Rows]:
    """Several tables as parts of one."""
    table = _concatenated(tables).combine_chunks()
    ends = pd.Series([0, *map(len, tables)]).cumsum()
    return [Rows(table, int(first), len(one)) for first, one in zip(ends, tables, strict=False)]


def tidy(configs: Sequence[RunConfig], rows: Sequence[Rows]) -> pd.DataFrame:
    """`nin.training.trajectories.tidy` of joined tables."""
    return labelled(configs, _table(rows).to_pandas(), [part.count for part in rows])


def read(store: Store, keys: Sequence[str]) -> dict[str, Rows]:
    """The tables of the sweep of these runs that a pack has, by key; without those whose files have changed."""
    try:
        content = _path(store, keys).read_bytes()
        if hashlib.sha256(content[64:]).hexdigest().encode() != content[:64]:
            return {}
        table = pa.ipc.open_file(pa.BufferReader(content).read_buffer()[64:]).read_all()
        about = json.loads(table.schema.metadata[ABOUT])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return {}
    found, first, asked = {}, 0, set(keys)
    for key, count, state in about:
        if key in asked and state == _state(store, key):
            found[key] = Rows(table, first, count)
        first += count
    return found


def write(store: Store, keys: Sequence[str], tables: Mapping[str, Rows]) -> None:
    """Pack the tables of the sweep of these runs, as far as they are there; nothing if the store cannot be written."""
    there = [key for key in keys if key in tables]
    states = [_state(store, key) for key in there]
    about = [(key, tables[key].count, state) for key, state in zip(there, states, strict=True) if state]
    table = _table([tables[key] for key, *_ in about]) if about else None
    if table is None:
        return
    sink = pa.BufferOutputStream()
    metadata = {**(table.schema.metadata or {}), ABOUT: json.dumps(about)}
    schema = table.schema.with_metadata(metadata)
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table.replace_schema_metadata(metadata))
    content = sink.getvalue().to_pybytes()
    with contextlib.suppress(OSError):
        paths.write(_path(store, keys), hashlib.sha256(content).hexdigest().encode() + content)


def _path(store: Store, keys: Sequence[str]) -> Path:
    return store.folder / "packs" / f"{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:32]}.arrow"


def _state(store: Store, key: str) -> list[int] | None:
    """Sizes and times of a run's two files; None if one is missing."""
    folder, state = os.fspath(store.path(key)), []
    for name in (MANIFEST, TABLE):
        try:
            found = os.stat(f"{folder}/{name}")
        except OSError:
            return None
        state += [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    return state


def _table(rows: Sequence[Rows]) -> pa.Table:
    """The tables of several runs, one below the other."""
    return _concatenated([table.slice(first, count) for table, first, count in _stretches(rows)])


def _stretches(rows: Sequence[Rows]) -> Iterator[tuple[pa.Table, int, int]]:
    """Neighbours within the same table as one."""
    table, first, count = rows[0].table, rows[0].first, 0
    for part in rows:
        if part.table is table and part.first == first + count:
            count += part.count
        else:
            yield table, first, count
            table, first, count = part.table, part.first, part.count
    yield table, first, count


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="permissive")

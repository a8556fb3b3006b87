"""Records of one's own training loops, kept in the store of a sweep beside its runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nin.phases import VERSION
from nin.support import paths, provenance
from nin.support.arguments import check_kind
from nin.sweeps.keys import PACKAGES
from nin.sweeps.manifests import key
from nin.sweeps.readings import below_each_other
from nin.sweeps.store import Store
from nin.training.record import Record

RECORDS = "records"  # folder of the store that holds the logs, and in it one for each further table
FURTHER = ("norms", "readings")  # tables of a record beside its log
OWN = ("record", "name", "phase")  # columns that `read` adds


def records_of(store: Store) -> Store:
    """The store of the logs of records within the store of runs."""
    return Store(store.folder / RECORDS)


def keep(record: Record, store: str | Path, *, name: str, settings: Mapping[str, Any] | None = None) -> str:
    """Keep a record in a store, as swept runs are kept: written whole or not at all, verified when read. Its key.

    store     the folder, for example that of a sweep
    name      of the run, for example of its network
    settings  numbers and texts that distinguish it from others of that name, such as its seed; they become columns
    The key is that of name, settings and everything recorded: the same record again changes nothing, and another one
    of the same name is kept beside it.
    Raises ValueError for a record without rows, for settings that are not numbers or texts or have a column's name, and
    for a probe's column record, name or phase; OSError, saying what to do, if the folder cannot be written.
    """
    check_kind("record", record, Record, "a nin.Record")
    check_kind("name", name, str, "a text")
    store = paths.given("store", store)
    tables = {"log": record.frame(), "norms": record.norms(), "readings": record.readings()}
    if tables["log"].empty:
        raise ValueError("record has no rows yet: keep it after training.")
    settings = {
        setting: value.item() if isinstance(value, np.generic) else value for setting, value in (settings or {}).items()
    }
    for part, table in tables.items():
        if twice := [column for column in OWN if column in table]:
            raise ValueError(f"the {part} have the column {twice[0]!r}, which a store adds: rename it in the probe.")
        if twice := [setting for setting in settings if setting in (*table.columns, *OWN)]:
            raise ValueError(f"settings[{twice[0]!r}] has the name of a column of the {part}; choose another.")
    for setting, value in settings.items():
        if not isinstance(value, str | int | float | bool):
            raise ValueError(f"settings[{setting!r}]={value!r} must be a number or a text.")
    content = {part: table.to_csv(index=False) for part, table in tables.items()}
    identity = {"record": name, "settings": settings, "content": content}
    reading, here = record.phase(), records_of(Store(store))
    here.check_writable()
    own = key(identity)
    for part in FURTHER:
        if len(tables[part]):
            Store(here.folder / part).save(own, tables[part], {"record": own, "name": part})
    about = {
        "name": name,
        "settings": settings,
        "phase": reading.phase,
        "why": reading.why,
        "criteria": VERSION,
        "overhead": record.overhead,
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
    }
    here.save(own, tables["log"], about)  # last: a record that is listed has its other tables
    return own


def read(store: str | Path, part: str = "log") -> pd.DataFrame:
    """The logs of all records in a store as one table; or their "norms", or the "readings" of their probes.

    Columns: record (its number, in the order of the keys), name, phase (None: it cannot be told), the settings, then
    those of `Record.frame`, `norms` or `readings`. Empty if there are none. Damaged records are moved aside, with a
    warning.
    Raises ValueError for another part.
    """
    if part != "log" and part not in FURTHER:
        raise ValueError(f"part={part!r} must be one of log, {', '.join(FURTHER)}.")
    logs = records_of(Store(paths.given("store", store)))
    tables = []
    for number, own in enumerate(logs):
        stored = logs.load(own)
        if stored and part != "log":
            further = Store(logs.folder / part).load(own)
            stored = further and (further[0], stored[1])
        if stored:
            table, manifest = stored
            columns = {"record": number, "name": manifest["name"], "phase": manifest["phase"], **manifest["settings"]}
            rows = table.drop(columns="run", errors="ignore")
            tables.append(rows.assign(**columns)[[*columns, *rows.columns]])
    return below_each_other(tables) if tables else pd.DataFrame(columns=[*OWN])

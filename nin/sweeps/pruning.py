"""What a store holds in vain: damaged runs, and readings of probes as an older version of nin took them."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nin.sweeps.manifests import DamagedRun, NewerSchema
from nin.sweeps.readings import probe_sources
from nin.sweeps.records import FURTHER, records_of
from nin.sweeps.results import readings_of
from nin.sweeps.store import MANIFEST, Store


@dataclass(frozen=True)
class Entry:
    """Something to remove: a run's folder or a file, and why."""

    path: Path
    why: str

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return sum(file.stat().st_size for file in (self.path, *self.path.rglob("*")) if file.is_file())


def prunable(store: Store) -> Iterator[Entry]:
    """What no sweep will ever read; every table is compared with its checksum.

    damaged   runs, readings and records whose files differ from what was written, and what was moved aside as such
    outdated  readings taken by another version of the code in nin.probes, on which their keys depend: a sweep with
              these probes takes them anew
    What a newer version of nin wrote is kept.
    """
    logs, readings = records_of(store), readings_of(store)
    for part in (store, readings, logs, *(Store(logs.folder / name) for name in FURTHER)):
        for path in sorted(part.folder.glob("damaged/*")):
            yield Entry(path, "damaged, moved aside")
        for path in sorted(part.folder.glob("runs/??/*")):
            if why := _why(part, path, outdated=part is readings):
                yield Entry(path, why)


def remove(store: Store, entry: Entry) -> bool:
    """Remove an entry, unless another process has mended or removed it meanwhile; whether it is gone.

    Raises OSError, saying what to do, if the store cannot be written.
    """
    path = entry.path
    if path.parent.name != "damaged":
        part = Store(path.parents[2])
        if not _why(part, path, outdated=part.folder == readings_of(store).folder):
            return not path.exists()
    with store.writing(), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            if (path / MANIFEST).is_file():
                (path / MANIFEST).unlink()  # first: a folder without it is no run
            shutil.rmtree(path)
        else:
            path.unlink()
    return True


def _why(part: Store, path: Path, *, outdated: bool) -> str | None:
    """Why what is in the place of a run is to be removed; None if it is not."""
    if path.is_file():
        return "damaged: a file, and not the folder of a run"
    if not (path / MANIFEST).exists():
        return None  # another process may be writing it
    try:
        manifest = part.manifest(path.name)
        part.content(path.name, manifest)
    except (DamagedRun, NewerSchema, FileNotFoundError) as error:
        return "damaged" if isinstance(error, DamagedRun) else None
    if outdated and manifest.get("nin.probes") != probe_sources():
        return f"outdated: {manifest.get('name')}, taken by another version of nin.probes"
    return None

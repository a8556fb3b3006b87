"""Finished runs on disk: content-addressed, written whole or not at all, verified when read.

STORE/runs/ab/abcdef.../table.parquet, manifest.json     one folder per run, named by its key
STORE/damaged/                                           runs that failed their checksum
STORE/data/                                              user-defined data sets, for workers in other processes
STORE/claims/                                            which sweep computes which run (nin.sweeps.claims)
"""

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nin.support import paths

SCHEMA = 1  # increase it if the same config gives a different trajectory, or its table different columns
STALE = 86400  # seconds after which incomplete files are assumed to be left from a crash
TABLE, MANIFEST = "table.parquet", "manifest.json"


class DamagedRun(ValueError):
    """A stored run whose files differ from what was written."""


class NewerSchema(ValueError):
    """A stored run that a newer version of nin wrote."""


def key(identity: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON (sorted keys, no spaces) of what determines a run and of the schema version.

    Raises ValueError for an identity that is not JSON.
    """
    try:
        text = json.dumps({"schema": SCHEMA, **identity}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"identity={identity!r} must hold JSON values only: {error}.") from None
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder of finished runs. Any number of processes may read and write it at once.

    Raises ValueError if the folder's path is a file.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder).expanduser())
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"store={str(self.folder)!r} is a file; name a folder.")

    def path(self, key: str) -> Path:
        """The folder of a run, whether it exists or not."""
        return self.folder / "runs" / key[:2] / key

    def __contains__(self, key: str) -> bool:
        return (self.path(key) / MANIFEST).exists()

    def __iter__(self) -> Iterator[str]:
        """The keys of all runs, sorted."""
        return (path.parent.name for path in sorted(self.folder.glob(f"runs/??/*/{MANIFEST}")))

    def manifest(self, key: str) -> dict[str, Any]:
        """Everything stored about a run except its table.

        Raises DamagedRun if the file differs from what was written, NewerSchema if a newer nin wrote it,
        FileNotFoundError if the run is not stored.
        """
        path = self.path(key) / MANIFEST
        content = path.read_bytes()
        try:
            manifest = json.loads(content)
            schema, checksum = manifest["schema"], manifest.pop("sha256")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedRun(f"{path} is damaged: it is not a manifest.") from None
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerSchema(
                f"{path} has schema version {schema}, and this nin reads up to {SCHEMA}: "
                "update nin, or name another store."
            )
        if content != _serialised(manifest) or manifest["key"] != key:
            raise DamagedRun(f"{path} is damaged: its sha256 is not {checksum}.")
        return manifest

    def table(self, key: str, manifest: Mapping[str, Any]) -> pd.DataFrame:
        """The table of a run, one row per recorded step. Raises DamagedRun if it is missing or its checksum differs."""
        path = self.path(key) / TABLE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DamagedRun(f"{path} is missing.") from None
        found, expected = hashlib.sha256(content).hexdigest(), manifest["table"]["sha256"]
        if found != expected:
            raise DamagedRun(f"{path} is damaged: its sha256 is {found[:12]}..., not {expected[:12]}...")
        return pq.read_table(pa.BufferReader(content)).to_pandas()

    def load(self, key: str) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        """The table and the manifest of a run, or None if it is not stored.

        A damaged run is moved aside, with one warning that names the file, and counts as not stored.
        Raises NewerSchema if a newer nin wrote it.
        """
        try:
            manifest = self.manifest(key)
            return self.table(key, manifest), manifest
        except FileNotFoundError:
            return None
        except DamagedRun as error:
            warnings.warn(f"{error} {self._move_aside(key)}", stacklevel=2)
            return None

    def save(self, key: str, table: pd.DataFrame, about: Mapping[str, Any]) -> None:
        """Store a run: both files are written, flushed to the disk, and appear together by one rename.

        If another process has stored the run in the meantime, its copy is kept and this one is dropped.
        Raises OSError, saying what to do, if the folder cannot be written; runs that are stored are not touched.
        """
        buffer = io.BytesIO()
        numbers = [name for name in table.columns if table[name].dtype.kind == "f"]
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False),
            buffer,
            compression="zstd",
            use_dictionary=False,
            use_byte_stream_split=numbers,
        )
        content = buffer.getvalue()
        manifest = {
            "schema": SCHEMA,
            "key": key,
            **about,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "table": {
                "file": TABLE,
                "rows": len(table),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            },
        }
        self._commit(key, {TABLE: content, MANIFEST: _serialised(manifest)})

    def check_writable(self) -> None:
        """Raise OSError, saying what to do, if the store cannot be written; delete leftovers of crashed processes."""
        with self.writing():
            self._scratch().rmdir()
        for left in (self.folder / "writing").iterdir():
            with contextlib.suppress(OSError):  # another process may be deleting it too
                if time.time() - left.stat().st_mtime > STALE:
                    shutil.rmtree(left)

    def _commit(self, key: str, files: Mapping[str, bytes]) -> None:
        with self.writing():
            scratch = self._scratch()
            try:
                for name, content in files.items():
                    paths.write(scratch / name, content)
                paths.sync(scratch)
                self._publish(scratch, self.path(key))
            finally:
                shutil.rmtree(scratch, ignore_errors=True)  # already renamed unless something failed

    def _publish(self, scratch: Path, target: Path) -> None:
        """Give a complete folder its final name; a run that is already there is kept."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.rename(target)
        except OSError:  # a folder that is not empty is never replaced
            if target.name in self:
                return
            self._move_aside(target.name)
            scratch.rename(target)
        paths.sync(target.parent)

    def _scratch(self) -> Path:
        """A new folder on the store's own file system, for files that are not yet complete."""
        waiting = self.folder / "writing"
        waiting.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=waiting))
        scratch.chmod(0o777 & ~paths.umask())
        return scratch

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Let an OSError say what to do."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"the store {self.folder} cannot be written ({error.strerror or error}); the runs in it are intact. "
                "Free space, make it writable or name another store; the same call then continues from there",
            ) from error

    def _move_aside(self, key: str) -> str:
        aside = self.folder / "damaged"
        try:
            aside.mkdir(exist_ok=True)
            target = Path(tempfile.mkdtemp(dir=aside, prefix=f"{key[:12]}-"))
            self.path(key).rename(target)
        except OSError as error:
            return f"It cannot be moved aside ({error.strerror}); a sweep that asks for it will have it computed again."
        return f"It was moved to {target}; a sweep that asks for it will have it computed again."


def _serialised(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as indented JSON, with the sha256 of everything else as its last entry."""
    plain = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return (json.dumps({**manifest, "sha256": hashlib.sha256(plain.encode()).hexdigest()}, indent=2) + "\n").encode()

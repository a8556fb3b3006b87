"""Finished runs on disk: content-addressed, written whole or not at all, verified when read.

STORE/runs/ab/abcdef.../table.parquet, manifest.json     one folder per run, named by its key
STORE/damaged/                                           runs that failed their checksum
STORE/data/                                              user-defined data sets, for workers in other processes
STORE/claims/                                            which sweep computes which run (nin.sweeps.claims)
"""

import contextlib
import hashlib
import io
import os
import secrets
import shutil
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
from nin.sweeps import writers
from nin.sweeps.manifests import SCHEMA, DamagedRun, parsed, serialised

STALE = 7 * 86400  # seconds after which what a process on another machine left unfinished counts as left by a crash
TABLE, MANIFEST = "table.parquet", "manifest.json"


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
        return (entry.name for entry in self._entries() if os.path.exists(f"{entry.path}/{MANIFEST}"))

    def strays(self) -> Iterator[DamagedRun]:
        """Files that are in the place of a run's folder."""
        for entry in self._entries():
            if not entry.is_dir():
                yield DamagedRun(f"{entry.path} is damaged: it is a file, and not the folder of a run.")

    def _entries(self) -> Iterator[os.DirEntry]:
        """What is in the place of a run's folder, sorted."""
        for folder in sorted(self.folder.glob("runs/??")):
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    yield from sorted(entries, key=lambda entry: entry.name)

    def manifest(self, key: str) -> dict[str, Any]:
        """Everything stored about a run except its table.

        Raises DamagedRun if the file differs from what was written, NewerSchema if a newer nin wrote it,
        FileNotFoundError if the run is not stored.
        """
        path = self.path(key) / MANIFEST
        try:
            content = path.read_bytes()
        except NotADirectoryError as error:
            if not path.parent.exists():  # something else is in the way: `save` says what
                raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
            raise DamagedRun(f"{path.parent} is damaged: it is a file, and not the folder of a run.") from None
        except IsADirectoryError:
            raise DamagedRun(f"{path} is damaged: it is a folder.") from None
        return parsed(content, key, path)

    def table(self, key: str, manifest: Mapping[str, Any]) -> pd.DataFrame:
        """The table of a run, one row per recorded step. Raises DamagedRun if it is missing or its checksum differs."""
        return self.columns(key, manifest).to_pandas()

    def columns(self, key: str, manifest: Mapping[str, Any]) -> pa.Table:
        """The table of a run as Arrow columns, of which many are joined fast. Raises as `table`."""
        content = self.content(key, manifest)
        try:
            return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        except pa.ArrowException as error:
            raise DamagedRun(f"{self.path(key) / TABLE} is damaged: {' '.join(str(error).split())}") from None

    def content(self, key: str, manifest: Mapping[str, Any]) -> bytes:
        """The file of a run's table, compared with its checksum. Raises as `table`."""
        path = self.path(key) / TABLE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DamagedRun(f"{path} is missing.") from None
        except IsADirectoryError:
            raise DamagedRun(f"{path} is damaged: it is a folder.") from None
        found, expected = hashlib.sha256(content).hexdigest(), manifest["table"]["sha256"]
        if found != expected:
            raise DamagedRun(f"{path} is damaged: its sha256 is {found[:12]}..., not {expected[:12]}...")
        return content

    def load(self, key: str) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        """The table and the manifest of a run, or None if it is not stored.

        A damaged run is moved aside, with one warning that names the file, and counts as not stored.
        Raises NewerSchema if a newer nin wrote it.
        """
        found = self.load_columns(key)
        return found and (found[0].to_pandas(), found[1])

    def load_columns(self, key: str) -> tuple[pa.Table, dict[str, Any]] | None:
        """As `load`, the table as Arrow columns."""
        try:
            manifest = self.manifest(key)
            return self.columns(key, manifest), manifest
        except FileNotFoundError:
            return None
        except DamagedRun as error:
            warnings.warn(f"{error} {self._move_aside(key)}", stacklevel=3)
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
        self._commit(key, {TABLE: content, MANIFEST: serialised(manifest)})

    def check_writable(self) -> None:
        """Raise OSError, saying what to do, if the store cannot be written; delete leftovers of crashed processes.

        A process on this machine is asked whether it lives. What others left is judged by the clock of the file system.
        """
        with self.writing():
            scratch = self._scratch()
            now = scratch.stat().st_mtime
            scratch.rmdir()
        for folder in ("writing", "claims/writers"):
            for left in (self.folder / folder).glob("*"):
                with contextlib.suppress(OSError):  # another process may be deleting it too
                    alive = writers.lives(left.name)
                    if alive is False or (alive is None and now - left.stat().st_mtime > STALE):
                        shutil.rmtree(left) if left.is_dir() else left.unlink()

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
            os.rename(scratch, target)
        except OSError:  # a folder that is not empty is never replaced
            if target.name in self:
                return
            if target.exists():
                self._move_aside(target.name)
            try:
                os.rename(scratch, target)
            except OSError:  # some file systems cannot rename a folder: without its manifest it is no run yet
                for name in (TABLE, MANIFEST):
                    paths.write(target / name, (scratch / name).read_bytes())
                paths.sync(target)
        paths.sync(target.parent)

    def _scratch(self) -> Path:
        """A new folder on the store's own file system, for files that are not yet complete."""
        scratch = self.folder / "writing" / writers.new_name()
        scratch.mkdir(parents=True)
        return scratch

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Let an OSError say what to do."""
        try:
            yield
        except OSError as error:
            in_the_way = isinstance(error, FileExistsError | NotADirectoryError) and error.filename
            what = f"{error.strerror or error}{f': {in_the_way}' if in_the_way else ''}"
            raise OSError(
                error.errno,
                f"the store {self.folder} cannot be written ({what}); the runs in it are intact. "
                "Free space, make it writable or name another store; the same call then continues from there",
            ) from error

    def _move_aside(self, key: str) -> str:
        aside = self.folder / "damaged"
        try:
            aside.mkdir(exist_ok=True)
            target = aside / f"{key[:12]}-{secrets.token_hex(4)}"
            shutil.move(self.path(key), target)
        except OSError as error:
            return f"It cannot be moved aside ({error.strerror}); a sweep that asks for it will have it computed again."
        return f"It was moved to {target}; a sweep that asks for it will have it computed again."

"""Claims of a sweep on the runs that it computes, so that no two sweeps of one store compute the same run.

STORE/claims/KEY.0           the name of the writer that computes the run KEY
STORE/claims/KEY.1, ...      of the one that took the claim over, since the writer of the former is dead
STORE/claims/writers/NAME    one file for each writer, touched every BEAT seconds

A writer that ends gives its claims back. One that crashed is known by its process on the same machine, and on any other
by its file, which nobody touches any more: no clock is asked, so none needs to be right.
"""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from nin.sweeps import writers
from nin.sweeps.store import Store

BEAT = 5  # seconds between the signs of life of a writer
LEASE = 60  # seconds without a sign of life after which a writer on another machine counts as dead
_here: dict[str, int] = {}  # the writers of this process, and their threads


class Claims:
    """The claims of one sweep, to be used in a `with` statement; OSError if the store cannot be written."""

    def __init__(self, store: Store) -> None:
        self._store, self._folder = store, store.folder.absolute() / "claims"
        self._name = writers.new_name()
        self._own: dict[str, int] = {}  # the runs that are claimed, and how often they were taken over
        self._seen: dict[Path, tuple[int, float]] = {}  # file -> its last sign of life, and when it was first seen
        self._stop = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="nin claims", daemon=True)

    def __enter__(self) -> "Claims":
        with self._store.writing():
            self._sign()
        self._tidy()
        _here[self._name] = threading.get_ident()
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._beating.join()
        self.release(list(self._own))
        with contextlib.suppress(OSError):
            self._file(self._name).unlink()
        del _here[self._name]

    def take(self, keys: Iterable[str]) -> list[str]:
        """Claim these runs, and return those that are now ours.

        None of them if the first one is another's: two sweeps that come upon the same group do not divide it.
        """
        taken: list[str] = []
        with self._store.writing():
            for key in keys:
                if self._take(key):
                    taken.append(key)
                elif not taken:
                    break
        return taken

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back: the runs are stored, or will not be computed."""
        for key in keys:
            for number in range(self._own.pop(key, -1) + 1):  # the former ones first, see `_take`
                with contextlib.suppress(OSError):
                    self._path(key, number).unlink()

    def _tidy(self) -> None:
        """Delete the claims of dead writers on runs that are stored: nobody will ask for those again."""
        for path in self._folder.glob("*.*"):
            name = _content(path)
            if name and path.stem in self._store and writers.lives(name) is False:
                path.unlink(missing_ok=True)

    def _take(self, key: str) -> bool:
        former: tuple[Path, str] | None = None
        for number in itertools.count():
            path = self._path(key, number)
            if self._create(path):
                # If the former one is gone, its run was given back while we looked: another may have begun anew.
                if former and _content(former[0]) != former[1]:
                    path.unlink(missing_ok=True)
                    return False
                self._own[key] = number
                return True
            name = _content(path)
            if name == self._name:
                return True
            if name is None or self._lives(path, name):
                return False
            former = path, name
        raise AssertionError("unreachable")

    def _lives(self, path: Path, name: str) -> bool:
        """Whether the writer that holds a claim is alive; for all we know, until its LEASE is over."""
        if _here.get(name) == threading.get_ident():
            return False  # a sweep within which this one runs: it goes on when this one has ended
        alive = writers.lives(name)
        return self._touched(self._file(name) if name else path) if alive is None else alive

    def _touched(self, file: Path) -> bool:
        """Whether a file is there, and touched within the last LEASE seconds or not yet watched for that long."""
        try:
            with file.open() as opened:  # opened, since network file systems may answer from memory otherwise
                sign = os.fstat(opened.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        last, since = self._seen.get(file, (None, 0.0))
        if sign != last:
            last, since = self._seen[file] = sign, time.monotonic()
        return time.monotonic() - since < LEASE

    def _create(self, path: Path) -> bool:
        """Create a claim with our name in it; False if there is one."""
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        except FileNotFoundError:  # the folder was removed meanwhile
            self._sign()
            return self._create(path)
        try:
            os.write(handle, self._name.encode())
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(handle)
        return True

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):
                self._sign()

    def _sign(self) -> None:
        """Touch our file."""
        file = self._file(self._name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def _file(self, name: str) -> Path:
        return self._folder / "writers" / name

    def _path(self, key: str, number: int) -> Path:
        return self._folder / f"{key}.{number}"


def _content(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None

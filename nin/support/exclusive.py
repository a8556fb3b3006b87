"""One process at a time in a folder: a lock that ends with its process, however that ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other block of any process holds this folder, which exists, and hold it until the block ends.

    A process that is killed holds nothing. NFS locks files alone, so there it is the file .lock in the folder. On a
    disk that knows no locks nobody waits.
    """
    handle = _locked(folder, os.O_RDONLY) if fcntl else None
    if fcntl and handle is None:
        handle = _locked(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(path: Path, flags: int) -> int | None:
    """A handle that holds the lock of a path, or None if it has none."""
    try:
        handle = os.open(path, flags, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        os.close(handle)
        return None
    return handle

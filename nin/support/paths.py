"""The folders that nin reads and writes, and the one way to write a file: whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

WRITTEN = "NIN_WRITTEN"  # the variable that names the journal of a kernel


def root() -> Path:
    """Return the folder of the clone, or the working directory if nin was installed without one."""
    beside_package = Path(__file__).resolve().parents[2]
    return beside_package if (beside_package / "notebooks").is_dir() else Path.cwd()


def notebooks() -> Path:
    """Return the folder of the notebooks."""
    return root() / "notebooks"


def figures(profile: str) -> Path:
    """Return the folder for the figures of a profile: NIN_FIGURES/profile, or figures/profile in the clone."""
    return Path(os.environ.get("NIN_FIGURES") or root() / "figures") / profile


def data() -> Path | None:
    """Return the folder of user-defined data sets (NIN_DATA), or None if the variable is not set."""
    folder = os.environ.get("NIN_DATA")
    return Path(folder).expanduser() if folder else None


def cache() -> Path:
    """Return the folder for downloads, data/cache in the clone; git ignores it."""
    return root() / "data" / "cache"


def store() -> Path:
    """Return the folder of finished runs: NIN_STORE, or runs/store in the clone; git ignores it."""
    return Path(os.environ.get("NIN_STORE") or root() / "runs" / "store").expanduser()


def is_plain(name: str | object) -> bool:
    """Whether this names a file or folder within a folder: no separators, no dot in front, not empty."""
    plain = isinstance(name, str) and bool(name) and not name.startswith(".")
    return plain and name == Path(name).name and not set(name) & set("\\\0\n")


def given(name: str, folder: str | Path) -> Path:
    """The folder or file that an argument names; ValueError for an empty text, or what is not a path."""
    if not isinstance(folder, (str, Path)) or folder == "":
        raise ValueError(f"{name}={folder!r} must be a path that is not empty; '.' is the working directory.")
    return Path(folder).expanduser()


def write(path: Path, content: bytes) -> None:
    """Write content to path whole or not at all; OSError as in `replacing`."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces path on success, so that no reader ever sees half a file.

    Raises OSError, naming the folder and what to do, if it cannot be written.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        file = temporary.open("xb")  # with the permissions of any new file: the system knows the umask
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        note(path)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def note(path: Path) -> None:
    """Add a file that is about to be written to the journal of its notebook: the runner reads whose it is."""
    if journal := os.environ.get(WRITTEN):
        with open(journal, "a") as file:
            file.write(f"{path.absolute()}\n")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Let an OSError of the block say that path cannot be written, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path.name} into {path.parent}: {error.strerror or error}. "
            "Make the folder writable, or name another one (NIN_FIGURES for figures).",
        ) from error


def sync(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut, if the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

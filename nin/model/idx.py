"""IDX files of bytes, as MNIST is published: believed only as far as they go."""

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

MOST = 2**28  # bytes that a gzip file is unpacked to; those known here have 47 million


def read_idx(path: Path, *, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of bytes, gzip or plain: magic 0 0 8 ndim, big-endian sizes, data.

    No more is unpacked than the header announces, and of a gzip file no more than MOST bytes.
    Raises ValueError, naming the file and what was found, for a truncated file, a wrong magic number or a wrong hash of
    the decompressed bytes, and OSError for a path that is not a file; the file is not changed.
    """
    if not path.is_file():
        raise OSError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; it must be an IDX file.")
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            header, shape = _header(path, file)
            announced, implied = math.prod(shape), 4 + 4 * len(shape) + math.prod(shape)
            if packed and implied > MOST:
                raise ValueError(
                    f"{path}: its header {shape} implies {implied} bytes, and {MOST} are allowed; replace it."
                )
            content = b"" if not packed and path.stat().st_size != implied else file.read(announced)
            more = packed and bool(file.read(1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a truncated or damaged gzip file ({error}); replace it.") from error
    if len(content) != announced or more or len(header) + announced != implied:
        held = f"{'more than ' * more}{len(header) + len(content)}" if packed else path.stat().st_size
        raise ValueError(f"{path} holds {held} bytes, but its header {shape} implies {implied}; replace it.")
    if not content:
        raise ValueError(f"{path}: its header {shape} announces no data; replace it.")
    digest = hashlib.sha256(header)
    digest.update(content)
    if sha256 not in (None, digest.hexdigest()):
        raise ValueError(f"{path} has sha256 {digest.hexdigest()} (decompressed), expected {sha256}; replace it.")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _header(path: Path, file: io.BufferedIOBase) -> tuple[bytes, tuple[int, ...]]:
    """The header of an IDX file, and the sizes in it; those that are cut off count as 0."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] not in (1, 3):
        raise ValueError(
            f"{path} begins with {magic.hex(' ') or 'nothing'}, "
            "expected an IDX file of bytes: 00 00 08 01 or 00 00 08 03."
        )
    sizes = file.read(4 * magic[3])
    return magic + sizes, tuple(np.frombuffer(sizes.ljust(4 * magic[3], b"\0"), dtype=">u4").tolist())

"""The IDX files of MNIST and Fashion-MNIST: where they may be, what they must hold; downloaded if they are missing."""

import os
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nin.model.downloads import download
from nin.model.idx import read_idx
from nin.support import paths

FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
FOLDERS = {
    "mnist": ("mnist", "MNIST/raw", "."),
    "fashion_mnist": ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "."),
}
SOURCES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
SHA256 = {  # of the decompressed bytes; the gzip wrapper differs from mirror to mirror
    "mnist": {
        "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "x_train": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "y_train": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "x_test": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "y_test": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}


def folder(name: str) -> Path | None:
    """The folder of user-defined data; OSError if it does not exist."""
    here = paths.data()
    if here is not None and not here.is_dir():
        raise OSError(f"NIN_DATA={here} is not a folder; unset it, or set it to a folder with {name}'s IDX files.")
    return here


def at_hand(name: str) -> bool:
    """Whether all files of "mnist" or "fashion_mnist" are in the folder of NIN_DATA, or all in the cache."""
    here = paths.data()
    local = here is not None and all(_local(here, name, file) for file in FILES.values())
    return local or all(_cached(name, part).exists() for part in FILES)


def located(name: str) -> dict[str, Path]:
    """The file of each part of a data set: in the folder of NIN_DATA, else in the cache, after a download if need be.

    Raises OSError if NIN_DATA is not a folder, or if there is neither a file nor a network, and ValueError if what
    arrives is not the data set. A data set that needs no file has none here.
    """
    if name not in FOLDERS:
        return {}
    here, found = folder(name), {}
    for part, file in FILES.items():
        found[part] = _local(here, name, file) or _cached(name, part)
        if not found[part].exists():
            _download(name, part, found[part])
    return found


def read(name: str) -> dict[str, np.ndarray]:
    """The arrays of each part, from the files that `located` finds; ValueError, naming it, for one that is damaged."""
    arrays = {}
    for part, path in located(name).items():
        try:
            arrays[part] = read_idx(path, sha256=SHA256[name][part])
        except ValueError as error:
            if path != _cached(name, part):
                raise
            told = str(error).removesuffix("replace it.")
            raise ValueError(f"{told}delete it, and it is downloaded again.") from error
    return arrays


def _cached(name: str, part: str) -> Path:
    return paths.cache() / name / f"{FILES[part]}.gz"


def _candidates(folder: Path | None, name: str, file: str) -> Iterator[Path]:
    """Where a file may be: as it is published, or as it unpacks on some systems, with a dot for the second dash."""
    dotted = file.replace("-idx", ".idx")
    for below in FOLDERS[name] if folder is not None else ():
        for spelt in (file, dotted):
            for suffix in (".gz", ""):
                yield folder / below / f"{spelt}{suffix}"


def _local(folder: Path | None, name: str, file: str) -> Path | None:
    return next((path for path in _candidates(folder, name, file) if path.is_file()), None)


def _download(name: str, part: str, target: Path) -> None:
    """Put a file into the cache, whole and with the right hash or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            arrived = Path(scratch) / target.name
            download(SOURCES[name] + target.name, arrived)
            read_idx(arrived, sha256=SHA256[name][part])
            os.replace(arrived, target)
    except ValueError as error:
        raise ValueError(f"{name}: what {SOURCES[name]} sent is not the data set: {error}") from error
    except Exception as error:  # requests, urllib3 and the system each raise their own
        raise OSError(
            f"{name}: {target.name} is neither in NIN_DATA nor in {target.parent}, and the download failed "
            f"({textwrap.shorten(str(error), 120)}). Connect to a network, or set NIN_DATA to a folder that holds "
            f"{name}'s four IDX files."
        ) from error

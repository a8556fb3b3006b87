"""Data sets by name: real images in IDX files or bundled with scikit-learn, and the teacher of the linear test case."""

import os
import tempfile
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nin.model.dataset import Dataset
from nin.model.downloads import download
from nin.model.idx import read_idx
from nin.support import paths
from nin.support.arguments import check_choice, check_count, check_number, check_seed

DATASETS = ("digits", "mnist", "fashion_mnist", "linear_teacher")
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


def load_data(name: str, *, n_train: int | None = None, n_test: int | None = None, seed: int = 0) -> Dataset:
    """Load a data set by name: "digits", "mnist", "fashion_mnist", "linear_teacher".

    n_train, n_test  sizes of balanced subsets (class counts differ by at most one); None: all samples, in the original
                     order (1024 each for the linear teacher)
    seed             chooses the subset, or the draws of the linear teacher; smaller subsets lie within larger ones

    Images are rows (n, pixels) of float32, standardised by the mean and standard deviation over all pixels of the
    full training set together: pixels keep their proportions, and E x^2 = 1 makes learning rates comparable between
    data sets.
    digits: scikit-learn's bundled 8 x 8 images, in a fixed stratified split of 1437 / 360. mnist, fashion_mnist:
    IDX files, gzip or plain, in the folder NIN_DATA, else downloaded into data/cache/; the sha256 of the
    decompressed bytes is checked.

    Raises ValueError for an unknown name, impossible sizes, or a file that is truncated or has a wrong magic
    number or hash; OSError if there is neither a file nor a network.
    """
    check_choice("name", name, DATASETS)
    for argument, count in (("n_train", n_train), ("n_test", n_test)):
        if count is not None:
            check_count(argument, count)
    check_seed("seed", seed)
    if name == "linear_teacher":
        return linear_teacher(n_train=n_train or 1024, n_test=n_test or 1024, seed=seed)
    arrays, source = _digits() if name == "digits" else _images(name, _folder(name))
    x_train, y_train = _subset(arrays["x_train"], arrays["y_train"], n_train, "n_train", seed)
    x_test, y_test = _subset(arrays["x_test"], arrays["y_test"], n_test, "n_test", seed)
    return Dataset(x_train, y_train, x_test, y_test, classes=10, source=source)


def available(name: str) -> bool:
    """Whether a data set is available without a download: bundled, in the folder of NIN_DATA, or in the cache."""
    check_choice("name", name, DATASETS)
    if name not in FOLDERS:
        return True
    folder = paths.data()
    local = folder is not None and all(_local(folder, name, file) for file in FILES.values())
    return local or all((paths.cache() / name / f"{file}.gz").exists() for file in FILES.values())


def linear_teacher(
    *,
    n_train: int = 1024,
    n_test: int = 1024,
    seed: int = 0,
    target: float = 1.0,
    x_std: float = 1.0,
    label_noise: float = 0.0,
    inputs: int = 1,
) -> Dataset:
    """x ~ N(0, x_std^2), y = target sum_j x_j + label_noise xi, xi ~ N(0, 1): data of the linear test case, float64.

    x (n, inputs), y (n, 1). Raises ValueError for sizes below 1, negative x_std or label_noise, or values not finite.
    """
    for argument, count in (("n_train", n_train), ("n_test", n_test), ("inputs", inputs)):
        check_count(argument, count)
    check_number("target", target, minimum=float("-inf"))
    check_number("x_std", x_std)
    check_number("label_noise", label_noise)
    check_seed("seed", seed)
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        x = x_std * torch.randn(count, inputs, dtype=torch.float64, generator=generator)
        xi = torch.randn(count, 1, dtype=torch.float64, generator=generator)
        return x, target * x.sum(1, keepdim=True) + label_noise * xi

    (x_train, y_train), (x_test, y_test) = draw(n_train), draw(n_test)
    source = f"linear teacher, target {target:g}, x_std {x_std:g}, label_noise {label_noise:g}, seed {seed}"
    return Dataset(x_train, y_train, x_test, y_test, classes=1, source=source)


@lru_cache(maxsize=1)
def _digits() -> tuple[dict[str, Tensor], str]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.data, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return _standardised(arrays), "scikit-learn digits"


@lru_cache(maxsize=2)
def _images(name: str, folder: Path | None) -> tuple[dict[str, Tensor], str]:
    arrays = {}
    for part, file in FILES.items():
        path = _local(folder, name, file)
        arrays[part] = _cached(name, part) if path is None else read_idx(path, sha256=SHA256[name][part])
    return _standardised(arrays), f"{name}, IDX files with published sha256"


def _standardised(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    mean, std = arrays["x_train"].mean(), arrays["x_train"].std()
    x = {part: (arrays[part].reshape(len(arrays[part]), -1) - mean) / std for part in ("x_train", "x_test")}
    y = {part: torch.from_numpy(arrays[part].astype(np.int64)) for part in ("y_train", "y_test")}
    return {part: torch.from_numpy(values.astype(np.float32)) for part, values in x.items()} | y


def _subset(x: Tensor, y: Tensor, count: int | None, argument: str, seed: int) -> tuple[Tensor, Tensor]:
    """The first `count` samples of a seeded order that takes one sample of each class in turn."""
    if count is None or count == len(x):
        return x.clone(), y.clone()
    if count > len(x):
        raise ValueError(f"{argument}={count} is more than the {len(x)} samples available.")
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    labels = y[shuffled]
    rank = torch.empty_like(labels)
    for label in labels.unique():
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    order = shuffled[torch.argsort(rank, stable=True)][:count]
    return x[order], y[order]


def _folder(name: str) -> Path | None:
    """The folder of user-defined data; OSError if it does not exist."""
    folder = paths.data()
    if folder is not None and not folder.is_dir():
        raise OSError(f"NIN_DATA={folder} is not a folder; unset it, or set it to a folder with {name}'s IDX files.")
    return folder


def _candidates(folder: Path | None, name: str, file: str) -> Iterator[Path]:
    """Where a file may be: as it is published, or as it unpacks on some systems, with a dot for the second dash."""
    dotted = file.replace("-idx", ".idx")
    for below in FOLDERS[name] if folder is not None else ():
        for spelt in (file, dotted):
            for suffix in (".gz", ""):
                yield folder / below / f"{spelt}{suffix}"


def _local(folder: Path | None, name: str, file: str) -> Path | None:
    return next((path for path in _candidates(folder, name, file) if path.is_file()), None)


def _cached(name: str, part: str) -> np.ndarray:
    """A file of the cache, downloaded if it is not there; ValueError, naming it, if it is damaged."""
    target = paths.cache() / name / f"{FILES[part]}.gz"
    if not target.exists():
        _download(name, part, target)
    try:
        return read_idx(target, sha256=SHA256[name][part])
    except ValueError as error:
        raise ValueError(f"{str(error).removesuffix('replace it.')}delete it, and it is downloaded again.") from error


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


def as_images(x: Float[Tensor, "n pixels"]) -> Float[Tensor, "n 1 side side"]:
    """Rows of pixels as square images with one channel."""
    side = int(x.shape[1] ** 0.5)
    return x.unflatten(1, (1, side, side))

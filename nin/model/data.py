"""Data sets by name: real images in IDX files or bundled with scikit-learn, and the teacher of the linear test case."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nin.model import image_files
from nin.model.dataset import Dataset
from nin.support.arguments import check_choice, check_count, check_number, check_seed

DATASETS = ("digits", "mnist", "fashion_mnist", "linear_teacher")
AT_ONCE = 4096  # images that are standardised at once


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
    arrays, source = _digits() if name == "digits" else _images(name, image_files.folder(name))
    x_train, y_train = _subset(arrays["x_train"], arrays["y_train"], n_train, "n_train", seed)
    x_test, y_test = _subset(arrays["x_test"], arrays["y_test"], n_test, "n_test", seed)
    return Dataset(x_train, y_train, x_test, y_test, classes=10, source=source)


def available(name: str) -> bool:
    """Whether a data set is available without a download: bundled, in the folder of NIN_DATA, or in the cache."""
    check_choice("name", name, DATASETS)
    return name not in image_files.FOLDERS or image_files.at_hand(name)


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
    """Of files in this folder of NIN_DATA, or of downloads."""
    return _standardised(image_files.read(name)), f"{name}, IDX files with published sha256"


def _standardised(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    mean, std = arrays["x_train"].mean(), arrays["x_train"].std()
    found = {part: torch.from_numpy(arrays[part].astype(np.int64)) for part in ("y_train", "y_test")}
    for part in ("x_train", "x_test"):
        rows = arrays[part].reshape(len(arrays[part]), -1)
        values = np.empty(rows.shape, dtype=np.float32)
        for start in range(0, len(rows), AT_ONCE):  # in float64, which takes eight times the memory of a file
            values[start : start + AT_ONCE] = (rows[start : start + AT_ONCE] - mean) / std
        found[part] = torch.from_numpy(values)
    return found


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


def as_images(x: Float[Tensor, "n pixels"]) -> Float[Tensor, "n 1 side side"]:
    """Rows of pixels as square images with one channel."""
    side = int(x.shape[1] ** 0.5)
    return x.unflatten(1, (1, side, side))

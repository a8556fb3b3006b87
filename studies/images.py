"""Images for the studies: real ones if they are available, synthetic ones otherwise."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nin.model.data import as_images, available, load_data
from nin.model.dataset import Dataset
from nin.support.arguments import check_count

SCALE = "scale_detection"
SMALLEST = 16  # pixels of a side that LeNet needs; the digits are enlarged to it


def first_at_hand(names: Sequence[str], *, n_train: int, n_test: int) -> tuple[str, Dataset]:
    """The first of these data sets that is available without a download, with its name; else scale-detection images."""
    for name in names:
        if name == SCALE:
            break
        if available(name):
            return name, load_data(name, n_train=n_train, n_test=n_test)
    return SCALE, scale_images(n_train, n_test)


def scale_images(n_train: int, n_test: int, *, side: int = 28, xi: int = 7, gap: int = 2, seed: int = 0) -> Dataset:
    """Two active pixels on a square, labelled 1 if their distance is < xi - gap and 0 if it is >= xi + gap.

    The two-dimensional version of Task 1 (ours), for image networks when no real images are available: rows of side^2
    pixels, standardised as by `nin.load_data`; the classes are balanced.
    """
    for name, count in (("n_train", n_train), ("n_test", n_test), ("side", side), ("xi", xi)):
        check_count(name, count, minimum=2)
    generator = torch.Generator().manual_seed(seed)
    count, chosen = n_train + n_test, []
    for label, size in ((1, count // 2), (0, count - count // 2)):
        found = torch.empty(0, 2, 2, dtype=torch.long)
        while len(found) < size:
            places = torch.randint(side, (8 * size, 2, 2), generator=generator)  # (pairs, pixels, coordinates)
            distance = (places[:, 0] - places[:, 1]).double().norm(dim=1)
            fits = (distance < xi - gap) & (distance > 0) if label else distance >= xi + gap
            found = torch.cat([found, places[fits]])
        chosen.append(found[:size])
    order = torch.randperm(count, generator=generator)
    places = torch.cat(chosen)[order]  # (count, 2, 2)
    y = torch.tensor([1] * (count // 2) + [0] * (count - count // 2))[order]
    x = F.one_hot(places[..., 0] * side + places[..., 1], side**2).sum(1).float()
    mean, std = 2 / side**2, (2 / side**2 * (1 - 2 / side**2)) ** 0.5
    x = (x - mean) / std
    source = f"scale detection, two pixels on {side} x {side}, xi {xi}, gap {gap}, seed {seed}"
    return Dataset(x[:n_train], y[:n_train], x[n_train:], y[n_train:], classes=2, source=source)


def images_of(data: Dataset) -> tuple[Float[Tensor, "train 1 side side"], Float[Tensor, "test 1 side side"]]:
    """Training and test images (n, 1, side, side), enlarged bilinearly to 16 x 16 pixels if smaller."""
    found = []
    for x in (as_images(data.x_train), as_images(data.x_test)):
        small = x.shape[-1] < SMALLEST
        found.append(F.interpolate(x, SMALLEST, mode="bilinear", align_corners=False) if small else x)
    return found[0], found[1]

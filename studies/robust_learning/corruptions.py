"""Corrupted test images, of kinds that a network was not trained on."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from nin.model.dataset import Dataset
from nin.support.arguments import check_choice, check_number


@dataclass(frozen=True)
class Pixels:
    """How the standardised rows of a Dataset become images: side in pixels, and the values of black and white."""

    side: int
    low: float
    high: float

    @classmethod
    def of(cls, data: Dataset) -> "Pixels":
        """Those of a data set of square images; ValueError if the rows do not have a square number of pixels."""
        side = math.isqrt(data.x_train.shape[1])
        if side**2 != data.x_train.shape[1]:
            raise ValueError(
                f"data has rows of {data.x_train.shape[1]} values; pass square images, side * side values per row."
            )
        return cls(side, data.x_train.min().item(), data.x_train.max().item())

    def images(self, x: Float[Tensor, "n pixels"]) -> Float[np.ndarray, "n side side"]:
        """(n, side, side) in [0, 1], black 0."""
        return ((x.double().cpu().numpy() - self.low) / (self.high - self.low)).reshape(-1, self.side, self.side)

    def rows(self, images: Float[np.ndarray, "n side side"]) -> Float[Tensor, "n pixels"]:
        """Standardised rows of images, clipped to [0, 1]."""
        clipped = np.clip(images, 0, 1).reshape(len(images), -1)
        return torch.from_numpy((self.low + clipped * (self.high - self.low)).astype(np.float32))


def _gaussian(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return images + strength * rng.standard_normal(images.shape)


def _uniform(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return images + rng.uniform(-strength, strength, images.shape)


def _salt_and_pepper(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    hit = rng.random(images.shape) < strength
    return np.where(hit, rng.integers(0, 2, images.shape), images)


def _blur(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, strength, strength))


def _contrast(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + (1 - strength) * (images - mean)


def _translation(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    angles = rng.uniform(0, 2 * np.pi, len(images))
    shifts = strength * np.stack([np.sin(angles), np.cos(angles)], 1)
    return np.stack([ndimage.shift(image, shift, order=1) for image, shift in zip(images, shifts, strict=True)])


CORRUPTIONS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "gaussian": _gaussian,
    "uniform": _uniform,
    "salt_and_pepper": _salt_and_pepper,
    "blur": _blur,
    "contrast": _contrast,
    "translation": _translation,
}
UNSTRUCTURED = ("gaussian", "uniform", "salt_and_pepper")


def corrupt(
    x: Float[Tensor, "n pixels"], kind: str, strength: float, *, pixels: Pixels, seed: int = 0
) -> Float[Tensor, "n pixels"]:
    """Corrupt standardised images; pixels stay between black and white.

    gaussian         adds N(0, strength^2), in units of the range from black to white
    uniform          adds U(-strength, strength), in the same units
    salt_and_pepper  the fraction `strength` of the pixels becomes black or white
    blur             Gaussian filter with a standard deviation of `strength` pixels
    contrast         each pixel's distance from the mean of its image shrinks by the fraction `strength`
    translation      by `strength` pixels in a random direction for each image, black beyond the edge
    The kinds are those of MNIST-C and arXiv 2210.15764 as far as they are known; the strengths are ours.
    Raises ValueError for an unknown kind, a negative strength, or a fraction above 1.
    """
    check_choice("kind", kind, CORRUPTIONS)
    check_number("strength", strength)
    if kind in ("salt_and_pepper", "contrast") and strength > 1:
        raise ValueError(f"strength={strength!r} of {kind} is a fraction and must be at most 1.")
    return pixels.rows(CORRUPTIONS[kind](pixels.images(x), strength, np.random.default_rng(seed))).to(x)

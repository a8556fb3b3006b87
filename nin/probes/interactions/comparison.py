"""What of the final interactions a layer has already, what it will forget, what is still to come (arXiv 2409.08712).

All arrays are (..., images, 2, 2^n): AND and OR interactions of every coalition, of every image. They are divided by
the layer's scale, order 1 of OR is merged into AND, what is weak is set to 0, and only then are layers compared: so
all = overlap + forget holds exactly.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nin.probes.interactions.games import by_order, orders
from nin.support.arguments import check_choice

KINDS = ("and", "or", "both")
PER = ("layer", "image")


@dataclass(frozen=True)
class Ratio:
    """sum of `above` over images / sum of `below`, for every layer, kind and order: both (images, ..., 3, n + 1).

    Kinds: AND, OR, both. Orders: all together at 0, then 1 to n. Where there is nothing below, the ratio is NaN.
    """

    above: np.ndarray
    below: np.ndarray

    def interval(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ratio, and the 2.5 and 97.5 percentiles of its values under resampled weights (draws, images)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            value = self.above.sum(0) / self.below.sum(0)
            draws = np.tensordot(weights, self.above, 1) / np.tensordot(weights, self.below, 1)
        low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
        known = np.isfinite(value) & np.isfinite(draws).any(0)
        if known.any():
            low[known], high[known] = np.nanquantile(draws[:, known], (0.025, 0.975), axis=0)
        return value, low, high


def salient(values: Tensor, threshold: float = 0.05, per: str = "layer") -> Tensor:
    """I 1[|I| > tau], tau = threshold max |I| over S and both kinds, and over all x of the layer or of the one image.

    The paper's tau is 0.05 max |I|; over what the maximum goes it leaves open.
    """
    return torch.where(values.abs() > tau(values, threshold, per), values, 0)


def tau(values: Tensor, threshold: float, per: str) -> Tensor:
    """The threshold of `salient`, which broadcasts against the values."""
    check_choice("per", per, PER)
    return threshold * values.abs().amax((-3, -2, -1) if per == "layer" else (-2, -1), keepdim=True)


def shared(now: Tensor, final: Tensor) -> Tensor:
    """sign min(|I^(l)|, |I^(L)|) where the signs agree, else 0: what both layers encode."""
    return torch.where(now * final > 0, now.sign() * torch.minimum(now.abs(), final.abs()), 0)


def changes(now: Tensor, final: Tensor) -> dict[str, Ratio]:
    """strength, overlap, forget, new, completeness, redundancy of layers against the final one; both already salient.

    strength = overlap + forget = E_x sum_S |I^(l)|, overlap + new that of the final layer;
    completeness = overlap / (overlap + new), redundancy = forget / (overlap + forget).
    """
    common = shared(now, final)
    overlap, forget, new = (_by_order(part.abs()) for part in (common, now - common, final - common))
    images = np.ones_like(overlap)
    return {
        "strength": Ratio(overlap + forget, images),
        "overlap": Ratio(overlap, images),
        "forget": Ratio(forget, images),
        "new": Ratio(new, images),
        "completeness": Ratio(overlap, overlap + new),
        "redundancy": Ratio(forget, overlap + forget),
    }


def agreement(one: Tensor, other: Tensor) -> Ratio:
    """IoU of two networks' salient sets on the same images, mean over the images where the union is not empty."""
    both, either = (_by_order(part.double()) for part in ((one != 0) & (other != 0), (one != 0) | (other != 0)))
    some = either > 0
    return Ratio(both / np.where(some, either, 1), some.astype(float))


def steadiness(draws: Tensor, tau: Tensor) -> Ratio:
    """E |E_eps I| / sqrt(Var_eps I) over images and the interactions whose mean is salient.

    draws (K, ..., images, 2, 2^n) under noise on the images, tau (..., 1, 1, 1) the layer's threshold.
    Interactions that the noise does not change at all are left out.
    """
    mean, std = draws.mean(0), draws.std(0)
    known = (mean.abs() > tau) & (std > 0)
    ratio = torch.where(known, mean.abs() / torch.where(known, std, 1), 0)
    return Ratio(_by_order(ratio), _by_order(known.double()))


def permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's interactions permuted among the coalitions of the same order, AND and OR apart: the chance level."""
    order = orders(values.shape[-1]).to(values)  # (2^n,)
    places = order.argsort(stable=True)  # (2^n,), the coalitions one order after another
    noise = torch.rand(values.shape, generator=generator, dtype=values.dtype)  # in [0, 1)
    sources = (order + 0.5 * noise).argsort(-1)  # (..., images, 2, 2^n), likewise, but shuffled within each order
    result = torch.empty_like(values)
    result[..., places] = values.gather(-1, sources)
    return result


def mean_ratio(ratios: list[Ratio]) -> Ratio:
    """Ratios of several permutations as one: their sums are averaged."""
    return Ratio(np.mean([r.above for r in ratios], 0), np.mean([r.below for r in ratios], 0))


def _by_order(values: Tensor) -> np.ndarray:
    """Sums over the coalitions of each order: (..., images, 2, 2^n) -> (images, ..., 3, n + 1)."""
    sums = by_order(values)
    sums = torch.cat([sums.sum(-1, keepdim=True), sums], -1)
    sums = torch.cat([sums, sums.sum(-2, keepdim=True)], -2)
    return sums.movedim(-3, 0).numpy()

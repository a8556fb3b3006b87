"""Layers against the final one: interactions shared, later forgotten, and still to come (arXiv 2409.08712).

All arrays are (..., images, 2, 2^n): AND and OR interactions of every coalition, for every image. They are divided by
the layer's scale, order-1 OR is merged into AND, and weak interactions are set to 0 before layers are compared, so that
strength = overlap + forget holds exactly.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from nin.probes.interactions.games import by_order, orders
from nin.support.arguments import check_choice

KINDS = ("and", "or", "both")
PER = ("layer", "image")

Cells = Float[np.ndarray, "*layers kinds orders"]
Interactions = Float[Tensor, "... images 2 coalitions"]


@dataclass(frozen=True)
class Ratio:
    """sum of `above` over images / sum of `below`, for every layer, kind and order: both (images, ..., 3, n + 1).

    Kinds: AND, OR, both. Orders: 0 for all together, then 1 to n. The ratio is NaN where the sum of `below` is 0.
    """

    above: Float[np.ndarray, "images *layers kinds orders"]
    below: Float[np.ndarray, "images *layers kinds orders"]

    def interval(self, weights: Num[np.ndarray, "draws images"]) -> tuple[Cells, Cells, Cells]:
        """The ratio, and the 2.5 and 97.5 percentiles of its values under resampled weights (draws, images)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            value = self.above.sum(0) / self.below.sum(0)  # (..., 3, n + 1)
            above, below = (np.tensordot(weights, part, 1) for part in (self.above, self.below))
            draws = above / below  # (draws, ..., 3, n + 1)
        low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
        known = np.isfinite(value) & np.isfinite(draws).any(0)
        if known.any():
            low[known], high[known] = np.nanquantile(draws[:, known], (0.025, 0.975), axis=0)
        return value, low, high


def salient(values: Interactions, threshold: float = 0.05, per: str = "layer") -> Interactions:
    """I 1[|I| > tau], tau = threshold max |I| over S, both kinds and all images of the layer (per="image": one image).

    threshold   0.05, as in the paper, which does not say over what the maximum is taken; per="layer" is ours
    """
    return torch.where(values.abs() > tau(values, threshold, per), values, 0)


def tau(values: Interactions, threshold: float, per: str) -> Float[Tensor, "... #images 1 1"]:
    """tau of `salient`, in a shape that broadcasts against the values."""
    check_choice("per", per, PER)
    return threshold * values.abs().amax((-3, -2, -1) if per == "layer" else (-2, -1), keepdim=True)


def shared(now: Interactions, final: Interactions) -> Interactions:
    """sign min(|I^(l)|, |I^(L)|) where the signs agree, else 0: what both layers encode."""
    return torch.where(now * final > 0, now.sign() * torch.minimum(now.abs(), final.abs()), 0)


def changes(now: Interactions, final: Interactions) -> dict[str, Ratio]:
    """strength, overlap, forget, new, completeness, redundancy of layers against the final layer; both already salient.

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


def agreement(one: Interactions, other: Interactions) -> Ratio:
    """IoU of two networks' salient sets on the same images, averaged over the images whose union is not empty."""
    both, either = (_by_order(part.double()) for part in ((one != 0) & (other != 0), (one != 0) | (other != 0)))
    some = either > 0
    return Ratio(both / np.where(some, either, 1), some.astype(float))


def steadiness(draws: Float[Tensor, "K ... images 2 coalitions"], tau: Float[Tensor, "... #images 1 1"]) -> Ratio:
    """E |E_eps I| / sqrt(Var_eps I) over images and the interactions whose mean is salient.

    draws (K, ..., images, 2, 2^n) under noise on the images, tau (..., 1, 1, 1) the layer's threshold.
    Interactions that the noise leaves unchanged are excluded.
    """
    mean, std = draws.mean(0), draws.std(0)  # (..., images, 2, 2^n)
    known = (mean.abs() > tau) & (std > 0)
    ratio = torch.where(known, mean.abs() / torch.where(known, std, 1), 0)
    return Ratio(_by_order(ratio), _by_order(known.double()))


def permuted(values: Interactions, generator: torch.Generator) -> Interactions:
    """Each image's interactions permuted among coalitions of equal order, AND and OR separately: the chance level."""
    order = orders(values.shape[-1]).to(values)  # (2^n,)
    places = order.argsort(stable=True)  # (2^n,), the coalitions one order after another
    noise = torch.rand(values.shape, generator=generator, dtype=values.dtype)  # in [0, 1)
    sources = (order + 0.5 * noise).argsort(-1)  # (..., images, 2, 2^n), likewise, but shuffled within each order
    result = torch.empty_like(values)
    result[..., places] = values.gather(-1, sources)
    return result


def mean_ratio(ratios: list[Ratio]) -> Ratio:
    """One ratio from those of several permutations, whose `above` and `below` are averaged."""
    return Ratio(np.mean([r.above for r in ratios], 0), np.mean([r.below for r in ratios], 0))


def _by_order(values: Interactions) -> Float[np.ndarray, "images ... kinds orders"]:
    """Sums over the coalitions of each order: (..., images, 2, 2^n) -> (images, ..., 3, n + 1)."""
    sums = by_order(values)  # (..., images, 2, n)
    sums = torch.cat([sums.sum(-1, keepdim=True), sums], -1)
    sums = torch.cat([sums, sums.sum(-2, keepdim=True)], -2)
    return sums.movedim(-3, 0).numpy()

"""The table of layers against the final one and against another network, beside interactions permuted in order."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Num

from nin.probes.interactions import comparison
from nin.probes.interactions.comparison import Ratio
from nin.probes.interactions.games_of_layers import LayerInteractions

QUANTITIES = (
    "strength", "overlap", "forget", "new", "completeness", "redundancy", "generalisation", "stability"
)  # fmt: skip
PERMUTATIONS = 10  # of each image's interactions; their mean is the chance level
PARTNERS = {"model": "second", "second": "model", "untrained": "untrained second"}  # whose IoU is taken

Ratios = dict[tuple[str, str], Ratio]  # by network and quantity


def compared(found: Mapping[str, LayerInteractions], threshold: float, per: str, generator: torch.Generator) -> Ratios:
    """Each network against the final layer of "model", and its IoU with its partner (see PARTNERS) or with "second".

    Networks that were read on the first few images only have weight 0 on the others.
    """
    strong = {name: comparison.salient(one.scaled, threshold, per) for name, one in found.items()}
    final = strong["model"][-1:]
    images, ratios = final.shape[1], {}
    for name, now in strong.items():
        few = now.shape[1]
        changes = comparison.changes(now, final[:, :few])
        other = strong.get(PARTNERS.get(name, "second"), strong.get("second"))
        if other is not None:
            changes["generalisation"] = comparison.agreement(now, other[:, :few])
        ratios |= {(name, quantity): _on_all(ratio, images) for quantity, ratio in changes.items()}
    shuffles = []
    for _ in range(PERMUTATIONS):
        now = comparison.permuted(strong["model"], generator)
        chance = comparison.changes(now, final)
        if "second" in strong:
            chance["generalisation"] = comparison.agreement(now, strong["second"])
        shuffles.append(chance)
    for quantity in shuffles[0]:
        ratios["permuted", quantity] = comparison.mean_ratio([chance[quantity] for chance in shuffles])
    return ratios


def steady(
    clean: LayerInteractions,
    draws: LayerInteractions,
    count: int,
    images: int,
    threshold: float,
    per: str,
    generator: torch.Generator,
    names: tuple[str, str] = ("model", "permuted"),
) -> Ratios:
    """The stability and its chance level (each draw permuted separately), under these names of networks.

    draws      the interactions of the first images under noise, once for each of `count` draws
    images     of the table; those without draws have weight 0
    """
    few = draws.values.shape[1] // count
    tau = comparison.tau(clean.scaled, threshold, per)[:, :few]
    values = draws.values / clean.scale[:, None, None, None]  # in units of the images without noise
    values = values.unflatten(1, (count, few)).movedim(1, 0)  # (draws, L, images, 2, 2^n)
    ratios = {}
    for name, these in zip(names, (values, comparison.permuted(values, generator)), strict=True):
        ratios[name, "stability"] = _on_all(comparison.steadiness(these, tau), images)
    return ratios


def _on_all(ratio: Ratio, images: int) -> Ratio:
    """The same ratio, with weight 0 on the further images."""
    missing = [(0, images - len(ratio.above))] + [(0, 0)] * (ratio.above.ndim - 1)
    return Ratio(np.pad(ratio.above, missing), np.pad(ratio.below, missing))


def table(
    network: str,
    layers: Sequence[str],
    accuracy: Sequence[float],
    ratios: Ratios,
    weights: Num[np.ndarray, "draws images"],
) -> pd.DataFrame:
    """One row for each layer, kind and order of a network, with the columns that `layerwise` describes."""
    kinds, orders = len(comparison.KINDS), ratios["model", "overlap"].above.shape[-1]
    index = pd.MultiIndex.from_product(
        [enumerate(layers, 1), comparison.KINDS, range(orders)], names=["layer", "kind", "order"]
    )
    depth, names = zip(*index.get_level_values("layer"), strict=True)
    columns = {
        "network": network,
        "layer": names,
        "depth": depth,
        "order": index.get_level_values("order"),
        "kind": index.get_level_values("kind"),
        "accuracy": np.repeat(accuracy, kinds * orders),
    }
    missing = np.full(len(index), np.nan)
    for quantity in QUANTITIES:
        ratio = ratios.get((network, quantity))
        found = (missing,) * 3 if ratio is None else [part.ravel() for part in ratio.interval(weights)]
        columns |= dict(zip((quantity, f"{quantity}_low", f"{quantity}_high"), found, strict=True))
    return pd.DataFrame(columns)


def resampled(images: int, resamples: int, seed: int) -> Num[np.ndarray, "draws images"]:
    """How often each image is drawn in each bootstrap sample of the images."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)

"""Checks of notebook 06 on trained networks, each with what the same number is in a case without the effect."""

from collections.abc import Sequence

import pandas as pd

from nin.checks import Check
from studies.spatial_stability.claims import (
    CHANNELS,
    D_FALLS,
    D_LOWER,
    DATA,
    G_GROWS,
    G_HIGHER,
    R_LOWER,
    SPACE,
)
from studies.statistics import geometric_band, mean_interval

PAPER = "2210.01506"
CHANCE = 0.025  # of a 95 % interval on one side of 1, without an effect


def count_checks(table: pd.DataFrame) -> list[Check]:
    """In how many networks a claim of the paper is reproduced; it says in all.

    table: `claims`. Rivals: the number of controls whose interval lies on the claim's side of 1, which is the same
    number before training, of the common factor of D and G, or of the roughest filters; without a control, chance.
    """
    where = {
        "D falls with depth up to the last hidden layer, trained: networks": (D_FALLS, "last hidden"),
        "D falls with depth up to the output, trained: networks": (D_FALLS, "output"),
        "training lowers D of the output: networks": (D_LOWER, "output"),
        "G rises with depth up to the last hidden layer, trained: networks": (G_GROWS, "last hidden"),
        "training raises G of the first layer: networks": (G_HIGHER, "first"),
        "training raises G of the last hidden layer: networks": (G_HIGHER, "last hidden"),
        "training lowers R of the output: networks": (R_LOWER, "output"),
        "channel pooling, shuffling raises D of the output: networks": (CHANNELS, "output"),
        "spatial pooling, filters become homogeneous: networks": (SPACE, "filters"),
        "R of the output falls with the training set: networks": (DATA, "output"),
    }
    checks = []
    for name, (claim, at) in where.items():
        rows = table[(table["claim"] == claim) & (table["at"] == at)]
        if rows.empty:
            continue
        found = float((rows["verdict"] == "reproduced").sum())
        falls = claim in (D_FALLS, D_LOWER, R_LOWER, DATA)
        same = float((rows["rival_high"] < 1).sum() if falls else (rows["rival_low"] > 1).sum())
        rival = same if rows["rival"].notna().any() else CHANCE * len(rows)
        checks.append(Check(name, PAPER, found, float(len(rows)), 0, ">=", rival=rival))
    return checks


def deep_checks(table: pd.DataFrame, *, deep: str = "vgg9", flat: str = "fully_connected") -> list[Check]:
    """Claims on the deepest network, by the end of the 95 % interval that is nearer to 1.

    Rivals: the same end before training, and the fully connected network, which has no filters.
    """

    def row(claim: str, at: str, architecture: str = deep) -> pd.Series:
        return table.set_index(["claim", "at", "architecture"]).loc[(claim, at, architecture)]

    falls, grows = row(D_FALLS, "last hidden"), row(CHANNELS, "output")
    first, other = (row(G_HIGHER, "first", architecture) for architecture in (deep, flat))
    return [
        Check("D falls up to the last hidden layer, nine convolutions (upper end)", PAPER, falls["high"], 1, 0, "<=",
              rival=falls["rival_high"]),
        Check("training raises G of the first layer, nine convolutions (lower end)", PAPER, first["low"], 1, 0, ">=",
              rival=other["ratio"]),
        Check("training raises G of the first layer more than D, nine convolutions (lower end)", PAPER, first["beyond"],
              1, 0, ">=", rival=other["beyond"]),
        Check("shuffled channels raise D of the output, nine convolutions (lower end)", PAPER, grows["low"], 1, 0, ">=",
              rival=grows["rival_low"]),
    ]  # fmt: skip


def small_scale_checks(measured: pd.DataFrame) -> list[Check]:
    """R of the outputs of small networks, as the reference says: 1 at initialisation without global average pooling.

    measured: the table of `before_and_after`. Rivals: the pooled network before training, and the network before
    training.
    """
    output = measured[measured["at"] == "output"]
    R = output.groupby(["architecture", "state"])["R"].agg(lambda values: mean_interval(values).mean)
    start, pooled = {name: R[name, "initial"] for name in ("fully_connected", "strided")}, R["vgg_gap", "initial"]
    trained = output.set_index(["architecture", "state", "seed"])["R"].sort_index()["fully_connected", "trained"]
    interval = mean_interval(trained)
    source = "stability section 5"
    return [
        Check("R at initialisation, fully connected", source, start["fully_connected"], 1, 0.25, rival=pooled),
        Check("R at initialisation, strided", source, start["strided"], 1, 0.25, rival=pooled),
        Check("R of a trained fully connected network (lower end)", source, interval.mean - interval.half, 2, 0, ">=",
              rival=start["fully_connected"]),
    ]  # fmt: skip


def noise_checks(kept: dict[float, pd.DataFrame]) -> list[Check]:
    """Which share of the claims that hold without noise in training still hold with noise as large as a deformation.

    kept: tables of `still_hold` by level of the noise, at least two; the lowest is compared with the highest (rival).
    """
    share = {level: (table["verdict_noisy"] == "reproduced").mean() for level, table in kept.items()}
    low, high = min(share), max(share)
    name = f"noise in training, {low:g} x the deformation: claims that still hold, share"
    return [Check(name, PAPER, share[low], 1, 0, ">=", rival=share[high])]


def levels(measured: pd.DataFrame, names: Sequence[str] = ("first", "last hidden", "output")) -> pd.DataFrame:
    """D and G before and after training, geometric means over seeds with 95 % intervals: architecture, layer; text."""
    shown = measured[measured["at"].isin(names) & measured["state"].isin(["initial", "trained"])]
    grouped = shown.groupby(["architecture", "at", "state"], sort=False)[["D", "G"]]
    text = grouped.agg(lambda v: "{0.mean:.2g} ({0.low:.2g}-{0.high:.2g})".format(geometric_band(v)))
    return text.unstack("state").reindex(columns=pd.MultiIndex.from_product([["D", "G"], ["initial", "trained"]]))

"""Small tables for the figures of notebook 09 that have not been saved at full size yet."""

from functools import partial

import numpy as np
import pandas as pd

from studies.layerwise_interactions import figures, layer_figures

LAYERS = {
    "MLP": ("dense1", "dense2", "dense3", "output"),
    "LeNet-like": ("conv1", "conv2", "dense1", "dense2", "output"),
    "residual": ("stem", "block1", "block2", "block3", "pool", "output"),
}
NETWORKS = ("model", "permuted", "untrained", "second", "untrained, permuted")


def by_layer() -> pd.DataFrame:
    """Two seeds, orders 0 (all) to 4, both kinds; completeness rises to .7 at the last hidden layer."""
    rows = []
    for name, layers in LAYERS.items():
        for k, network in enumerate(NETWORKS):
            for seed in (0, 1):
                for depth, layer in enumerate(layers, 1):
                    whole = 0.7 * depth / (len(layers) - 1) / (1 + k) + 0.01 * seed
                    for order in range(5):
                        fall = (1 + depth / 9 + seed / 10) / max(order, 1) / (1 + k)
                        rows.append({
                            "architecture": name, "network": network, "seed": seed, "layer": layer, "depth": depth,
                            "order": order, "strength": 0.8 * fall, "overlap": 0.5 * whole, "forget": 0.5 - 0.3 * whole,
                            "new": 0.5 - 0.5 * whole, "completeness": whole, "redundancy": 1 - whole,
                            "generalisation": 0.4 * fall, "stability": 9 * fall,
                        })  # fmt: skip
    table = pd.DataFrame(rows)
    for quantity in ("completeness", "redundancy"):
        table[f"{quantity}_low"], table[f"{quantity}_high"] = table[quantity] - 0.02, table[quantity] + 0.02
    table.loc[table["network"] == "untrained, permuted", "generalisation"] = np.nan
    return table


def strength() -> pd.DataFrame:
    table = by_layer()
    table = table[(table["network"] == "model") & (table["order"] > 0)]
    return pd.concat([table.assign(kind="and"), table.assign(kind="or", strength=0.5 * table["strength"])])


def hidden() -> pd.DataFrame:
    table = by_layer()
    return table[(table["order"] == 0) & (table["layer"] != "output") & (table["network"] != NETWORKS[-1])]


def changes() -> pd.DataFrame:
    table = hidden()
    return table[table["network"] == "model"]


def of_orders() -> pd.DataFrame:
    table = by_layer()
    return table[(table["order"] > 0) & table["network"].isin(["model", "permuted"])]


def of_layers() -> pd.DataFrame:
    table = by_layer()
    return table[(table["order"] == 0) & (table["network"] != "second")]


def planted() -> pd.DataFrame:
    values = {"hidden1": 0.7, "hidden2": 0.8, "hidden3": 0.9, "head": 0.95, "output": 0.95}
    rows = [
        (seed, state, layer, (0.1 if layer.startswith("hidden") else 1.0) * scale, value * scale - seed / 100)
        for seed in (0, 1, 2)
        for state, scale in (("initial", 0.5), ("trained", 1.0))
        for layer, value in values.items()
    ]
    return pd.DataFrame(rows, columns=["seed", "state", "layer", "iou", "completeness"])


def terms() -> list[dict]:
    sizes = {("and", "012"): 3.0, ("or", "34"): 2.5, ("and", "56"): -2.0, ("and", "7"): 1.5}
    return [
        {"seed": seed, "kind": kind, "coalition": name, "found": (0.95 - seed / 100) * size, "planted": size}
        for seed in (0, 1, 2) for (kind, name), size in sizes.items()
    ]  # fmt: skip


def probes() -> pd.DataFrame:
    table = changes()
    last = table.groupby("architecture")["depth"].transform("max") == table["depth"]
    head = table[last].assign(probe="head", completeness=1.0, redundancy=0.0)
    better = table.assign(probe="logits", completeness=np.sqrt(table["completeness"]))
    untrained = table.assign(probe="untrained", completeness=0.5 * table["completeness"])
    return pd.concat([table.assign(probe="labels"), better, head, untrained])


def phases() -> pd.DataFrame:
    rows = [
        (phase, sigma, seed, step, 0.5 + step / 300, 3.0 - step / 200 + seed / 10, 0.4 + step / 400, 0.6 + step / 400)
        for phase, sigma in (("no node", 0.0), ("decay", 3.0), ("catapult", 30.0))
        for seed in (0, 1) for step in (0, 10, 100)
    ]  # fmt: skip
    columns = ["phase", "sigma", "seed", "step", "accuracy", "mean_order", "completeness", "last"]
    return pd.DataFrame(rows, columns=columns)


MADE = {
    "09a_planted": (partial(figures.planted, terms=terms()), planted),
    "09b_strength": (figures.strength, strength),
    "09c_changes": (figures.changes, changes),
    "09d_with_depth": (figures.with_depth, hidden),
    "09e_by_order": (layer_figures.by_order, of_orders),
    "09i_phases": (figures.phases, phases),
    "09j_by_layer": (layer_figures.by_layer, of_layers),
    "09k_probes": (layer_figures.probes, probes),
}

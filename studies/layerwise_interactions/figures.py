"""Figures of notebook 09: how much of a network's final interactions its layers encode, beside the controls."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nin.figures import PHASE_COLORS, panels
from studies.drawing import line_with_interval, line_with_range
from studies.statistics import mean_interval

NETWORKS = {
    "model": ("C0", "trained"),
    "second": ("C2", "another seed"),
    "untrained": ("C1", "untrained"),
    "permuted": ("0.5", "permuted in order"),
}
PARTS = {"overlap": "C0", "forget": "C3", "new": "C2"}
NO_NODE = "k"


def strength(data: pd.DataFrame) -> Figure:
    """Strength by order, one line per layer, mean and range over seeds.

    data: architecture, seed, layer, depth, kind, order, strength.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(2, len(names), height=0.8, sharex=True, sharey="col")
    for column, name in enumerate(names):
        part = data[data["architecture"] == name]
        deepest = part["depth"].max()
        for row, kind in enumerate(("and", "or")):
            ax = axes[row, column]
            for (depth, layer), rows in part[part["kind"] == kind].groupby(["depth", "layer"]):
                color = colormaps["viridis"](0.9 * (1 - depth / deepest))
                look = {"color": color, "marker": "o", "ms": 2, "lw": 0.9, "label": layer}
                line_with_range(ax, rows["order"], rows["strength"], **look)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, column].set_title(name)
        axes[0, column].legend(fontsize=5)
        axes[1, column].set_xlabel("order")
    axes[0, 0].set_ylabel("AND strength")
    axes[1, 0].set_ylabel("OR strength")
    return figure


def changes(data: pd.DataFrame) -> Figure:
    """Overlap, forget, new of each layer, bars with 95 % intervals over seeds; data: architecture, seed, layer, ..."""
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(1, len(names), height=0.9)
    for ax, name in zip(axes[0], names, strict=True):
        part = data[data["architecture"] == name]
        layers = list(dict.fromkeys(part["layer"]))
        for number, (quantity, color) in enumerate(PARTS.items()):
            estimates = part.groupby("layer", sort=False)[quantity].agg(mean_interval)
            places = np.arange(len(layers)) + 0.27 * (number - 1)
            ax.bar(places, [e.mean for e in estimates], 0.27, color=color, label=quantity,
                   yerr=[e.half for e in estimates], error_kw={"lw": 0.6})  # fmt: skip
        ax.set_xticks(np.arange(len(layers)), layers, rotation=45, fontsize=6)
        ax.set(title=name, ylim=(0, None))
    axes[0, 0].set_ylabel("strength")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def with_depth(data: pd.DataFrame) -> Figure:
    """Completeness and redundancy of the hidden layers with 95 % bands over images, and their controls.

    data: architecture, network, seed, layer, depth, completeness, redundancy and both with _low and _high.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(2, len(names), height=0.8, sharex="col", sharey=True)
    for column, name in enumerate(names):
        part = data[data["architecture"] == name]
        for row, quantity in enumerate(("completeness", "redundancy")):
            ax = axes[row, column]
            for network, (color, label) in NETWORKS.items():
                rows = part[part["network"] == network].groupby("depth")
                means = rows[[quantity, f"{quantity}_low", f"{quantity}_high"]].mean()
                if len(means):
                    ax.plot(means.index, means[quantity], "o-", ms=2.5, lw=1, color=color, label=label)
                    ends = (means[f"{quantity}_low"], means[f"{quantity}_high"])
                    ax.fill_between(means.index, *ends, color=color, alpha=0.15, lw=0)
            ax.set_ylim(0, 1)
        layers = part.drop_duplicates("depth")
        axes[1, column].set_xticks(layers["depth"], layers["layer"], rotation=45, fontsize=6)
        axes[0, column].set_title(name)
    axes[0, 0].set_ylabel("completeness")
    axes[1, 0].set_ylabel("redundancy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def by_order(data: pd.DataFrame) -> Figure:
    """IoU with another seed and stability under noise at the output, by order, beside permuted interactions.

    Means over seeds; bands: the range without permutation, cut at the lowest mean because a logarithmic axis has no 0.
    data: architecture, network ("model", "permuted"), seed, order, generalisation, stability.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(1, 2, height=0.9)
    labels = {"generalisation": "IoU of two seeds", "stability": "stability"}
    for ax, (quantity, label) in zip(axes[0], labels.items(), strict=True):
        for number, name in enumerate(names):
            for network, style in (("model", "o-"), ("permuted", ":")):
                rows = data[(data["architecture"] == name) & (data["network"] == network)].dropna(subset=[quantity])
                spread = rows.groupby("order")[quantity].agg(["mean", "min", "max"])
                spread = spread[spread["mean"] > 0]
                means, low = spread["mean"], spread["min"].clip(lower=spread["mean"].min())
                text = name if network == "model" else f"{name}, permuted"
                ax.plot(means.index, means, style, ms=2.5, lw=1, color=f"C{number}", label=text)
                if network == "model":
                    ax.fill_between(spread.index, low, spread["max"], color=f"C{number}", alpha=0.15, lw=0)
        ax.set(yscale="log", xlabel="order", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].legend(fontsize=5)
    return figure


def planted(data: pd.DataFrame, *, terms: list[dict]) -> Figure:
    """Left: how much of the planted interactions each layer encodes. Right: their sizes, and those found at the output.

    data: seed, state, layer, iou, completeness; terms: records seed, kind, coalition, found, planted.
    """
    figure, axes = panels(1, 3, height=1.1)
    layers = list(dict.fromkeys(data["layer"]))
    for ax, quantity in zip(axes[0], ("completeness", "iou"), strict=False):
        for number, (state, rows) in enumerate(data.groupby("state", sort=False)):
            look = {"color": f"C{1 - number}", "marker": "o", "lw": 0.9, "label": state}
            line_with_interval(ax, rows["layer"].map(layers.index) + 0.1 * number, rows[quantity], **look)
        ax.set_xticks(range(len(layers)), layers, rotation=45, fontsize=6)
        ax.set(title={"iou": "IoU with the planted"}.get(quantity, quantity), ylim=(-0.05, 1.05))
    axes[0, 0].legend(fontsize=6)
    ax, table = axes[0, 2], pd.DataFrame(terms)
    names, labels = {"and": "AND", "or": "OR"}, []
    for place, ((kind, name, size), rows) in enumerate(table.groupby(["kind", "coalition", "planted"], sort=False)):
        ax.plot([place - 0.3, place + 0.3], [size, size], "k-", lw=1, label="planted" if place == 0 else None)
        ax.plot(np.full(len(rows), place), rows["found"], "o", color="C0", mfc="w", ms=3,
                label="found" if place == 0 else None)  # fmt: skip
        labels.append(f"{names[kind]} {name}")
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    ax.set_xticks(range(len(labels)), labels, rotation=45, fontsize=6)
    ax.set_title("at the output")
    ax.legend(fontsize=6)
    return figure


def ledger(data: pd.DataFrame) -> Figure:
    """The contribution of each entry to the strength of the output's AND interactions, by order, as a fraction.

    data: seed, entry, depth, order, share, strength.
    """
    figure, axes = panels(1, 2, height=0.9, width_ratios=[1, 0.3])
    ax = axes[0, 0]
    whole = data[data["entry"] == "output"].pivot(index="order", columns="seed", values="strength")
    entries = [name for name in dict.fromkeys(data["entry"]) if name != "output"]
    for number, name in enumerate(entries):
        runs = data[data["entry"] == name].pivot(index="order", columns="seed", values="share")
        estimates = [mean_interval(row) for row in (runs / whole).to_numpy()]
        places = whole.index + 0.16 * (number - (len(entries) - 1) / 2)
        ax.bar(places, [e.mean for e in estimates], 0.16, color="0.5" if name == "remainder" else f"C{number}",
               yerr=[e.half for e in estimates], error_kw={"lw": 0.6}, label=name)  # fmt: skip
    ax.axhline(0, color="k", lw=0.6)
    ax.set(xlabel="order", ylabel="part of the output's strength")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 1].set_axis_off()
    axes[0, 1].legend(*ax.get_legend_handles_labels(), loc="center left")
    return figure


def artefact(data: pd.DataFrame) -> Figure:
    """Shares of the AND strength by order, log-odds and margin; data: readout, value, order, share."""
    figure, axes = panels(1, 2, height=0.8, sharey=True)
    titles = {"pixels": "a linear readout of the pixels", "output": "the network"}
    for ax, (readout, title) in zip(axes[0], titles.items(), strict=True):
        for color, (value, rows) in zip(("C0", "C1"), data[data["readout"] == readout].groupby("value"), strict=True):
            ax.plot(rows["order"], rows["share"], "o-", ms=3, lw=1, color=color, label=value.replace("_", "-"))
        ax.set(xlabel="order", title=title)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("share of AND strength")
    axes[0, 0].legend()
    return figure


def choices(data: pd.DataFrame) -> Figure:
    """Completeness, redundancy and mean order by layer under several definitions; data: choice, layer, depth, ..."""
    figure, axes = panels(1, 3, height=1.0)
    for ax, quantity in zip(axes[0], ("completeness", "redundancy", "mean_order"), strict=True):
        for number, (choice, rows) in enumerate(data.groupby("choice", sort=False)):
            shown = rows if quantity == "mean_order" else rows.iloc[:-1]
            ax.plot(shown["depth"], shown[quantity], "o-", ms=2.5, lw=0.9, color=f"C{number}", label=choice)
        _layer_ticks(ax, data)
        ax.set(title=quantity.replace("_", " "), ylim=(0, None))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def phases(data: pd.DataFrame) -> Figure:
    """Mean order of the output's interactions, completeness of the last hidden layer, accuracy; one colour per phase.

    data: phase, sigma, seed, step, accuracy, mean_order, completeness.
    """
    figure, axes = panels(1, 3, height=0.9)
    labels = {"mean_order": "mean order", "completeness": "completeness", "accuracy": "test accuracy"}
    for ax, (quantity, label) in zip(axes[0], labels.items(), strict=True):
        seen = set()
        for (sigma, phase, _), rows in data.groupby(["sigma", "phase", "seed"], sort=False):
            color = PHASE_COLORS.get(phase, NO_NODE)
            name = phase if phase not in PHASE_COLORS else rf"{phase}, $\sigma={sigma:g}$"
            ax.plot(rows["step"] + 1, rows[quantity], "o-", ms=2.5, lw=0.9, color=color, mfc="w", alpha=0.8,
                    label=None if name in seen else name)  # fmt: skip
            seen.add(name)
        ax.set(xscale="log", xlabel="step + 1", title=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _layer_ticks(ax: Axes, data: pd.DataFrame) -> None:
    layers = data.drop_duplicates("depth")
    ax.set_xticks(layers["depth"], layers["layer"], rotation=45, fontsize=6)

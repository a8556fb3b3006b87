"""Figures of notebook 09: how much of a network's final interactions its layers encode, beside the controls.

The last hidden layer feeds a linear head, so that it encodes exactly the interactions of the output. Where a fitted
readout reads it otherwise, the difference is the floor of the probe; the figures of layers show it as a red band.
"""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nin.figures import PHASE_COLORS, panels
from studies.drawing import legend_below, line_with_interval, line_with_range
from studies.statistics import mean_interval

NETWORKS = {
    "model": ("C0", "trained"),
    "second": ("C2", "another seed"),
    "untrained": ("C1", "untrained"),
    "permuted": ("0.5", "permuted in order"),
}
FLOOR = {"color": "C3", "alpha": 0.13, "lw": 0, "zorder": 0, "label": "floor of the probe"}
TRUTH = {"color": "k", "marker": "*", "ms": 6, "ls": "none", "label": "the head as probe", "clip_on": False}
PARTS = {"overlap": "C0", "forget": "C3", "new": "C2"}
NO_NODE = "k"


def strength(data: pd.DataFrame) -> Figure:
    """Strength by order, one line per layer, mean and range over seeds; floor: last hidden layer against the output.

    data: architecture, seed, layer, depth, kind, order, strength.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(3, len(names), height=0.7, sharex=True, height_ratios=[1, 1, 0.6])
    for column, name in enumerate(names):
        part = data[data["architecture"] == name]
        deepest = part["depth"].max()
        for row, kind in enumerate(("and", "or")):
            ax = axes[row, column]
            for (depth, layer), rows in part[part["kind"] == kind].groupby(["depth", "layer"]):
                color = colormaps["viridis"](0.9 * (1 - depth / deepest))
                look = {"color": color, "marker": "o", "ms": 2, "lw": 0.9, "label": layer}
                line_with_range(ax, rows["order"], rows["strength"], **look)
            rows = part[part["kind"] == kind].groupby(["depth", "order"])["strength"].mean().unstack("depth")
            ax.fill_between(rows.index, rows.iloc[:, -2], rows.iloc[:, -1], **FLOOR)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, column].set_title(name)
        axes[1, column].sharey(axes[0, column])
        legend_of_column(axes[:, column])
    axes[0, 0].set_ylabel("AND strength")
    axes[1, 0].set_ylabel("OR strength")
    return figure


def changes(data: pd.DataFrame) -> Figure:
    """Overlap, forget, new of each layer, bars with 95 % intervals over seeds; data: architecture, seed, layer, ...

    Dashed: forget and new of the last hidden layer, which must be 0.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(1, len(names), height=1.2)
    for ax, name in zip(axes[0], names, strict=True):
        part = data[data["architecture"] == name]
        layers = list(dict.fromkeys(part["layer"]))
        for number, (quantity, color) in enumerate(PARTS.items()):
            estimates = part.groupby("layer", sort=False)[quantity].agg(mean_interval)
            places = np.arange(len(layers)) + 0.27 * (number - 1)
            ax.bar(places, [e.mean for e in estimates], 0.27, color=color, label=quantity,
                   yerr=[e.half for e in estimates], error_kw={"lw": 0.6})  # fmt: skip
            if quantity != "overlap":
                label = f"floor of {quantity}"
                ax.axhline(estimates.iloc[-1].mean, color=color, ls="--", lw=0.8, label=label, zorder=0)
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
            last = part[part["network"] == "model"].groupby("depth")[quantity].mean().iloc[-1]
            truth = float(quantity == "completeness")
            ax.axhspan(*sorted((last, truth)), **FLOOR)
            ax.plot(part["depth"].max(), truth, **TRUTH)
            ax.set_ylim(0, 1)
        layers = part.drop_duplicates("depth")
        axes[1, column].set_xticks(layers["depth"], layers["layer"], rotation=45, fontsize=6)
        axes[0, column].set_title(name)
    axes[0, 0].set_ylabel("completeness")
    axes[1, 0].set_ylabel("redundancy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def planted(data: pd.DataFrame, *, terms: list[dict]) -> Figure:
    """Left: how much of the planted interactions each layer encodes. Right: their sizes, and those found at the output.

    Floor: the last hidden layer by a fitted readout against the same layer by the head.
    data: seed, state, layer, iou, completeness; terms: records seed, kind, coalition, found, planted.
    """
    figure, axes = panels(1, 3, height=1.2)
    layers = list(dict.fromkeys(data["layer"]))
    for ax, quantity in zip(axes[0], ("completeness", "iou"), strict=False):
        for number, (state, rows) in enumerate(data.groupby("state", sort=False)):
            look = {"color": f"C{1 - number}", "marker": "o", "lw": 0.9, "label": state}
            line_with_interval(ax, rows["layer"].map(layers.index) + 0.1 * number, rows[quantity], **look)
        means = data[data["state"] == "trained"].groupby("layer")[quantity].mean()
        ax.axhspan(*sorted(means[layers[-3:-1]]), **FLOOR)
        ax.set_xticks(range(len(layers)), layers, rotation=45, fontsize=6)
        ax.set(title={"iou": "IoU with the planted"}.get(quantity, quantity), ylim=(-0.05, 1.05))
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
    legend_below(figure, [axes[0, 0], ax])
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
    """Completeness, redundancy and mean order by layer under several definitions; data: choice, layer, depth, ...

    Stars: what the last hidden layer must have; the distance from them is the floor of the probe.
    """
    figure, axes = panels(1, 3, height=1.4)
    for ax, quantity in zip(axes[0], ("completeness", "redundancy", "mean_order"), strict=True):
        for number, (choice, rows) in enumerate(data.groupby("choice", sort=False)):
            shown = rows if quantity == "mean_order" else rows.iloc[:-1]
            ax.plot(shown["depth"], shown[quantity], "o-", ms=2.5, lw=0.9, color=f"C{number}", label=choice)
        if quantity != "mean_order":
            ax.plot(data["depth"].max() - 1, float(quantity == "completeness"), **TRUTH)
        layer_ticks(ax, data)
        ax.set(title=quantity.replace("_", " "), ylim=(0, None))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def phases(data: pd.DataFrame) -> Figure:
    """Mean order of the output's interactions, completeness of the first hidden layer, accuracy; one colour per phase.

    One marker per sigma. Dotted: the completeness of the last hidden layer, which must be 1; its distance from 1 is the
    floor of the probe.
    data: phase, sigma, seed, step, accuracy, mean_order, completeness, last.
    """
    figure, axes = panels(1, 3, height=1.3)
    labels = {"mean_order": "mean order", "completeness": "completeness", "accuracy": "test accuracy"}
    markers = dict(zip(sorted(set(data["sigma"])), cycle("os^Dv"), strict=False))
    for ax, (quantity, label) in zip(axes[0], labels.items(), strict=True):
        seen = set()
        for (sigma, phase, _), rows in data.groupby(["sigma", "phase", "seed"], sort=False):
            color = PHASE_COLORS.get(phase, NO_NODE)
            name = phase if phase not in PHASE_COLORS else rf"{phase}, $\sigma={sigma:g}$"
            look = {"color": color, "marker": markers[sigma], "ms": 3, "mfc": "w", "lw": 0.9, "alpha": 0.8}
            ax.plot(rows["step"] + 1, rows[quantity], **look, label=None if name in seen else name)
            if quantity == "completeness":
                ax.plot(rows["step"] + 1, rows["last"], ":", lw=0.9, color=color, alpha=0.8)
            seen.add(name)
        ax.set(xscale="log", xlabel="step + 1", title=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def legend_of_column(column: np.ndarray) -> None:
    """Put the legend of the first axes of a column into the last, and name the order below the one between."""
    column[-1].set_axis_off()
    column[-1].legend(*column[0].get_legend_handles_labels(), loc="upper center", ncols=2,
                      fontsize=6, handlelength=1.2, columnspacing=0.8)  # fmt: skip
    column[1].tick_params(labelbottom=True)
    column[1].set_xlabel("order")
    column[1].xaxis.label.set_visible(True)  # shared axes hide it


def layer_ticks(ax: Axes, data: pd.DataFrame) -> None:
    """Name the layers at their depths."""
    layers = data.drop_duplicates("depth")
    ax.set_xticks(layers["depth"], layers["layer"], rotation=45, fontsize=6)

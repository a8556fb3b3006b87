"""Figures of notebook 09 by layer: generalisation and stability, by order and by depth; three probes."""

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import gmean

from nin.figures import panels
from studies.drawing import line_with_interval
from studies.layerwise_interactions.figures import FLOOR, NETWORKS, layer_ticks, legend_of_column

PROBES = {"labels": ("C0", "fitted to the labels"), "logits": ("C2", "fitted to the logits"), "head": ("k", "the head"),
          "untrained": ("C1", "untrained network, fitted to the logits")}  # fmt: skip


def by_order(data: pd.DataFrame) -> Figure:
    """IoU with another seed and stability under noise by order, one line per layer, beside permuted interactions.

    Means over seeds; floor: last hidden layer against the output. Values of 0 are not shown: the axis is logarithmic.
    data: architecture, network ("model", "permuted"), seed, layer, depth, order, generalisation, stability.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(3, len(names), height=0.7, sharex=True, sharey="row", height_ratios=[1, 1, 0.6])
    labels = {"generalisation": "IoU of seeds", "stability": "stability"}
    for column, name in enumerate(names):
        for ax, quantity in zip(axes[:2, column], labels, strict=True):
            part = data[data["architecture"] == name]
            ours, chance = (
                part[part["network"] == network].groupby(["order", "depth"])[quantity].mean().unstack("depth")
                for network in ("model", "permuted")
            )
            ours, chance = ours.where(ours > 0), chance.where(chance > 0)
            layers = part.drop_duplicates("depth").set_index("depth")["layer"]
            for depth in ours:
                color = colormaps["viridis"](0.9 * (1 - depth / ours.columns[-1]))
                ax.plot(ours.index, ours[depth], "o-", ms=2, lw=0.9, color=color, label=layers[depth])
            ax.plot(chance.index, chance.iloc[:, -1], ":", lw=1, color="0.5", label="output, permuted")
            ax.fill_between(ours.index, ours.iloc[:, -2], ours.iloc[:, -1], **FLOOR)
            ax.set(yscale="log")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, column].set_title(name)
        legend_of_column(axes[:, column])
    for ax, label in zip(axes[:2, 0], labels.values(), strict=True):
        ax.set_ylabel(label)
    return figure


def by_layer(data: pd.DataFrame) -> Figure:
    """IoU with another seed and stability by layer (all orders), means with 95 % intervals over seeds.

    Stability, a ratio that spans decades, by geometric means. Floor: last hidden layer against the output.
    data: architecture, network, seed, layer, depth, generalisation, stability.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(2, len(names), height=0.8, sharex="col", sharey="row")
    looks = {name: NETWORKS[name] for name in ("model", "untrained", "permuted")}
    looks["untrained, permuted"] = ("C5", "untrained, permuted")
    for column, name in enumerate(names):
        part = data[data["architecture"] == name]
        for ax, quantity in zip(axes[:, column], ("generalisation", "stability"), strict=True):
            geometric = quantity == "stability"
            for network, (color, label) in looks.items():
                rows = part[part["network"] == network].dropna(subset=[quantity])
                if len(rows):
                    look = {"color": color, "marker": "o", "ms": 2.5, "lw": 0.9, "label": label}
                    line_with_interval(ax, rows["depth"], rows[quantity], geometric=geometric, **look)
            of_depth = part[part["network"] == "model"].groupby("depth")[quantity]
            ends = (of_depth.agg(gmean) if geometric else of_depth.mean()).iloc[-2:]
            ax.axhspan(*sorted(ends), **FLOOR)
        layer_ticks(axes[1, column], part)
        axes[0, column].set_title(name)
    axes[0, 0].set_ylim(bottom=0)  # at the end, for it stops the axes from growing
    axes[1, 0].set_yscale("log")
    axes[0, 0].set_ylabel("IoU of seeds")
    axes[1, 0].set_ylabel("stability")
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def probes(data: pd.DataFrame) -> Figure:
    """Completeness and redundancy of the hidden layers by several probes, means with 95 % intervals over seeds.

    The head reads the last hidden layer, where the other two must agree with it. data: architecture, seed, probe,
    layer, depth, completeness, redundancy.
    """
    names = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(2, len(names), height=0.8, sharex="col", sharey=True)
    for column, name in enumerate(names):
        part = data[data["architecture"] == name]
        for ax, quantity in zip(axes[:, column], ("completeness", "redundancy"), strict=True):
            for probe, (color, label) in PROBES.items():
                rows = part[part["probe"] == probe]
                look = {"color": color, "marker": "*" if probe == "head" else "o", "lw": 0.9, "label": label}
                line_with_interval(ax, rows["depth"], rows[quantity], **look, ms=6 if probe == "head" else 2.5)
            ax.set_ylim(-0.05, 1.05)
        layer_ticks(axes[1, column], part)
        axes[0, column].set_title(name)
    axes[0, 0].set_ylabel("completeness")
    axes[1, 0].set_ylabel("redundancy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure

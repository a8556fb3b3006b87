"""Figures of notebook 07: networks that detect a scale, beside the closed forms of constant filters."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from nin.figures import panels
from studies.drawing import line_with_interval

MARKERS = "osD^v"


def constant_filters(data: pd.DataFrame) -> Figure:
    """D, G and R of constant filters against depth: points measured, lines the closed forms.

    data: case, k, quantity, measured, stderr, predicted.
    """
    figure, axes = panels(1, 3, height=1.7)
    for ax, quantity in zip(axes[0], "DGR", strict=True):
        for number, (case, rows) in enumerate(data[data["quantity"] == quantity].groupby("case", sort=False)):
            ax.plot(rows["k"], rows["predicted"], "-", color=f"C{number}", lw=0.9)
            ax.errorbar(rows["k"], rows["measured"], rows["stderr"], fmt=MARKERS[number], color=f"C{number}", mfc="w",
                        ms=3.5, label=case)  # fmt: skip
        ax.set(yscale="log", xlabel="layer $k$", title=f"${quantity}_k$")
        ax.yaxis.set_minor_formatter(NullFormatter())
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, title="lines: closed forms")
    return figure


def trained(data: pd.DataFrame, *, predicted: Sequence[Mapping[str, float]]) -> Figure:
    """D and G of trained networks against depth, averaged over channels, geometric means over seeds, 95 % intervals.

    data: case, seed, k, D, G. predicted: records k, D, G of constant filters (dashed).
    """
    theory = pd.DataFrame(predicted)
    figure, axes = panels(1, 2, height=0.9)
    for ax, quantity in zip(axes[0], "DG", strict=True):
        for number, (case, rows) in enumerate(data.groupby("case", sort=False)):
            look = {"color": f"C{number}", "marker": MARKERS[number], "lw": 1, "label": case}
            line_with_interval(ax, rows["k"] + 0.06 * number, rows[quantity], geometric=True, **look)
        law = theory[theory[quantity] > 0]
        ax.plot(law["k"], law[quantity], "k--", lw=1, label="constant filters")
        ax.set(yscale="log", xlabel="layer $k$", title=f"${quantity}_k$")
        ax.yaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylim(bottom=1e-4)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def homogeneous_filters(data: pd.DataFrame, *, scale: float) -> Figure:
    """Share of the homogeneous filter by layer, one line per network; data: case, seed, k, share; scale: log2(xi)."""
    cases = list(dict.fromkeys(data["case"]))
    figure, axes = panels(1, len(cases), height=1.0, sharey=True)
    for number, (ax, case) in enumerate(zip(axes[0], cases, strict=True)):
        for _, rows in data[data["case"] == case].groupby("seed"):
            ax.plot(rows["k"], rows["share"], marker=MARKERS[number], color=f"C{number}", mfc="w", lw=0.8)
        ax.axvline(scale + 0.5, color="0.3", lw=0.8, ls=":")
        ax.axhline(0.5, color="0.3", lw=0.6)
        ax.set_title(case, fontsize=7)
        ax.set(xlabel="layer $k$", ylim=(0, 1.05), xticks=sorted(data["k"].unique()))
    axes[0, 0].set_ylabel("share of mode 0")
    return figure


def activations(data: pd.DataFrame) -> Figure:
    """G over its value in the first layer against depth; data: net, k, measured, predicted (NaN: none)."""
    figure, axes = panels(1, 2, height=0.7, width_ratios=[1, 0.5])
    ax = axes[0, 0]
    for number, (net, rows) in enumerate(data.groupby("net", sort=False)):
        first = rows["measured"].iloc[0]
        ax.plot(rows["k"], rows["measured"] / first, MARKERS[number], color=f"C{number}", mfc="w", label=net)
        ax.plot(rows["k"], rows["predicted"] / rows["predicted"].iloc[0], color=f"C{number}", lw=0.9)
    ax.set(yscale="log", xlabel="layer $k$", ylabel="$G_k / G_1$")
    ax.yaxis.set_minor_formatter(NullFormatter())
    handles, labels = ax.get_legend_handles_labels()
    axes[0, 1].set_axis_off()
    axes[0, 1].legend(handles, labels, loc="center left", title="lines: closed forms")
    return figure

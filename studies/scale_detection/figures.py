"""Figures of notebook 07: networks that detect a scale, beside the closed forms of constant filters."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from nin.figures import panels
from studies.drawing import few_ticks, legend_below, line_with_interval

MARKERS = "osD^vP"
LABELS = {"linear": "linear", "tanh": "tanh", "relu": "ReLU"}


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
        ax.set(xscale="log", yscale="log", xlabel="layer $k$", title=f"${quantity}_k$")
        few_ticks(ax.xaxis)
        few_ticks(ax.yaxis)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, title="lines: closed forms")
    return figure


def trained(data: pd.DataFrame, *, predicted: Sequence[Mapping[str, float]], shown: str, scale: int) -> Figure:
    """D and G of trained networks against depth, averaged over channels, and how far D is above constant filters.

    data: case, seed, k, D, G, D_constant; first two panels: geometric means over seeds with their 95 % intervals.
    predicted: records k, D, G of constant filters (dashed). Last panel: D - D_constant of each seed of the case
    `shown`; scale: log2(xi), where the closed form of D reaches zero.
    """
    theory = pd.DataFrame(predicted)
    figure, axes = panels(1, 3, height=1.2)
    for ax, quantity in zip(axes[0], "DG", strict=False):
        for number, (case, rows) in enumerate(data.groupby("case", sort=False)):
            look = {"color": f"C{number}", "marker": MARKERS[number], "lw": 1, "label": case}
            line_with_interval(ax, rows["k"] + 0.06 * number, rows[quantity], geometric=True, **look)
        law = theory[theory[quantity] > 0]
        ax.plot(law["k"], law[quantity], "k--", lw=1, label="constant filters")
        ax.set_title(f"${quantity}_k$")
    axes[0, 0].set_ylim(bottom=1e-4)
    ax = axes[0, 2]
    for _, rows in data[data["case"] == shown].groupby("seed"):
        above = (rows["D"] - rows["D_constant"]).where(lambda excess: excess > 0)
        ax.plot(rows["k"], above, color="C0", marker="o", mfc="w", lw=0.8)
    ax.axvline(scale, color="0.3", lw=0.8, ls=":")
    ax.set_title("$D_k$ - constant filters", fontsize=7)
    for ax in axes[0]:
        ax.set(yscale="log", xlabel="layer $k$", xticks=sorted(data["k"].unique()))
        few_ticks(ax.yaxis)
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
    """G against depth, and G of the first and the last layer against the amplitude of the active pixels.

    data: net, amplitude, k, measured, predicted (NaN: none). First panel: of the linear and the ReLU net, whose G does
    not depend on the amplitude, one amplitude; of the tanh net, three. Lines in both: closed forms.
    """
    figure, axes = panels(1, 2, height=1.1)
    values, depth = sorted(data["amplitude"].unique()), data["k"].max()
    number = 0
    for net, rows in data.groupby("net", sort=False):
        for amplitude in (values[0], values[len(values) // 2], values[-1]) if net == "tanh" else values[:1]:
            part = rows[rows["amplitude"] == amplitude]
            label = f"tanh, pixels of {amplitude:.2g}" if net == "tanh" else LABELS[net]
            axes[0, 0].plot(part["k"], part["measured"], MARKERS[number], color=f"C{number}", mfc="w", label=label)
            axes[0, 0].plot(part["k"], part["predicted"], color=f"C{number}", lw=0.9)
            number += 1
    for number, (net, rows) in enumerate(data.groupby("net", sort=False)):
        for k, face in ((1, "w"), (depth, None)):
            part = rows[rows["k"] == k]
            look = {"color": f"C{5 + number}", "mfc": face, "label": f"{LABELS[net]}, $k={k}$"}
            axes[0, 1].plot(part["amplitude"], part["measured"], MARKERS[number], **look)
            axes[0, 1].plot(part["amplitude"], part["predicted"], color=f"C{5 + number}", lw=0.9)
    axes[0, 0].set(yscale="log", xlabel="layer $k$", ylabel="$G_k$", xticks=sorted(data["k"].unique()))
    axes[0, 1].set(xscale="log", yscale="log", xlabel="amplitude of the active pixel", ylabel="$G_k$")
    for axis in (axes[0, 0].yaxis, axes[0, 1].xaxis, axes[0, 1].yaxis):
        few_ticks(axis)
    legend_below(figure, axes.flat, ncols=3, title="lines: closed forms")
    return figure

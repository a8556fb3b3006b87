"""Figures of notebook 06: deformed images, sensitivities against depth, filter spectra, shuffled channels."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nin.figures import panels
from studies.drawing import few_ticks, legend_below, line_with_interval
from studies.spatial_stability import claims as claim

NAMES = {
    "fully_connected": "fully connected",
    "strided": "strided",
    "strided_gap": "strided, GAP",
    "lenet": "LeNet-like",
    "vgg": "VGG-like",
    "vgg_gap": "VGG-like, GAP",
    "vgg9": "VGG, 9 conv.",
}
# What each claim says of its ratio, in the title of its panel.
TITLES = {
    claim.D_STAYS: "initial: $D_k/D_1\\geq1$",
    claim.D_FALLS: "trained: $D_k/D_1<1$",
    claim.G_GROWS: "trained: $G_k/G_1>1$",
    claim.D_LOWER: "$D$ / before $<1$",
    claim.G_HIGHER: "$G$ / before $>1$",
    claim.R_LOWER: "$R$ / before $<1$",
    claim.CHANNELS: "$D$ shuffled / $D>1$",
    claim.SPACE: "smooth filters $>1$",
    claim.DATA: "$R(2n)/R(n)<1$",
}
COLORS = {name: f"C{number}" for number, name in enumerate(NAMES)}
STATES = {"initial": ("0.5", "--", "o"), "trained": ("C0", "-", "o"), "shuffled": ("C3", ":", "s")}


def gallery(data: pd.DataFrame) -> Figure:
    """Deformed images, one column per displacement, one row per cut-off; data: delta, c, T, row, column, value."""
    cutoffs, deltas = sorted(data["c"].unique()), sorted(data["delta"].unique())
    figure, axes = panels(len(cutoffs), len(deltas), height=1.1)
    for (c, delta), rows in data.groupby(["c", "delta"]):
        ax = axes[cutoffs.index(c), deltas.index(delta)]
        image = rows.pivot(index="row", columns="column", values="value").to_numpy()
        ax.imshow(image, cmap="gray", vmin=data["value"].min(), vmax=data["value"].max())
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"$10^3\\,T$ = {1000 * rows['T'].iloc[0]:.2g}", fontsize=6)
        if delta == deltas[0]:
            ax.set_ylabel(f"c = {c:g}")
        if c == cutoffs[-1]:
            ax.set_xlabel(rf"$\delta = {delta:g}$ px")
    return figure


def sensitivities(data: pd.DataFrame) -> Figure:
    """D, G and R against depth, one column per architecture; initial dashed, trained solid.

    data: architecture, seed, state, place, D, G, R. Geometric means over seeds, 95 % intervals.
    """
    architectures = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(3, len(architectures), height=1.15, sharex=True, sharey="row")
    for column, architecture in enumerate(architectures):
        for row, quantity in enumerate("DGR"):
            ax = axes[row, column]
            for state in ("initial", "trained"):
                color, line, marker = STATES[state]
                rows = data[(data["architecture"] == architecture) & (data["state"] == state)]
                look = {"color": color, "ls": line, "marker": marker, "lw": 1, "label": state}
                line_with_interval(ax, rows["place"], rows[quantity], geometric=True, **look)
            if quantity == "R":
                ax.axhline(1, color="0.3", lw=0.6)
        axes[0, column].set_title(NAMES[architecture], fontsize=7 if len(architectures) < 7 else 6)
        axes[2, column].set_xlabel("depth $k/K$")
    for ax, quantity in zip(axes[:, 0], "DGR", strict=True):
        ax.set(yscale="log", ylabel=rf"${quantity}_k$")
        few_ticks(ax.yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def spectra(data: pd.DataFrame) -> Figure:
    """Share of each mode of the filters' grid Laplacian, times their number, after training; 1 for independent weights.

    data: architecture, seed, state, depth, mode, eigenvalue, share. One line per layer: mean over seeds and over the
    modes of one eigenvalue.
    """
    data = data[data["state"] == "trained"]
    architectures = list(dict.fromkeys(data["architecture"]))
    figure, axes = panels(1, len(architectures), height=1.6, sharey=True)
    for ax, architecture in zip(axes[0], architectures, strict=True):
        for depth, rows in data[data["architecture"] == architecture].groupby("depth"):
            modes = rows["mode"].max() + 1
            share = rows.assign(eigenvalue=rows["eigenvalue"].round(6)).groupby("eigenvalue")["share"].mean() * modes
            ax.plot(share.index, share, "o-", color=f"C{depth - 1}", ms=2.5, mfc="w", lw=1, label=f"layer {depth}")
        ax.axhline(1, color="0.3", lw=0.6)
        ax.set_title(NAMES[architecture], fontsize=7)
        ax.set_xlabel("eigenvalue")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel(r"share $\times F^2$")
    lines = {line.get_label(): line for ax in axes[0] for line in ax.get_lines() if line.get_label()[0] != "_"}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=5)
    return figure


def shuffled(data: pd.DataFrame) -> Figure:
    """D against depth, trained and with shuffled channels; data as for `sensitivities`."""
    shown = data[data["state"].isin(["trained", "shuffled"])]
    architectures = list(dict.fromkeys(shown.loc[shown["state"] == "shuffled", "architecture"]))
    figure, axes = panels(1, len(architectures), height=1.6, sharex=True, sharey=True)
    for ax, architecture in zip(axes[0], architectures, strict=True):
        for state in ("trained", "shuffled"):
            color, line, marker = STATES[state]
            rows = shown[(shown["architecture"] == architecture) & (shown["state"] == state)]
            look = {"color": color, "ls": line, "marker": marker, "lw": 1, "label": state}
            line_with_interval(ax, rows["place"], rows["D"], geometric=True, **look)
        ax.set_title(NAMES[architecture], fontsize=7)
        ax.set_xlabel("depth $k/K$")
    axes[0, 0].set(yscale="log", ylabel="$D_k$")
    few_ticks(axes[0, 0].yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def size_and_noise(data: pd.DataFrame) -> Figure:
    """R of the output against the training-set size; D, G, R of the last hidden layer against noise in training.

    data: study ("size" or "noise"), architecture, n_train, noise (its norm over that of the deformation's effect),
    seed, D, G, R; in the noise study these are divided by their values before training. Geometric means over seeds with
    their 95 % intervals.
    """
    figure, axes = panels(1, 4, height=1.3)
    size = data[data["study"] == "size"]
    for architecture, rows in size.groupby("architecture", sort=False):
        look = {"color": COLORS[architecture], "marker": "o", "lw": 1, "label": NAMES[architecture]}
        line_with_interval(axes[0, 0], rows["n_train"], rows["R"], geometric=True, **look)
    axes[0, 0].set(xscale="log", title="$R_K$")
    axes[0, 0].set_xlabel("training images", fontsize=7)
    sizes = sorted(size["n_train"].unique())
    axes[0, 0].set_xticks(sizes, [f"{count / 1000:.2g}k" for count in sizes], fontsize=6)
    for ax, quantity in zip(axes[0, 1:], "DGR", strict=True):
        for architecture, rows in data[data["study"] == "noise"].groupby("architecture", sort=False):
            look = {"color": COLORS[architecture], "marker": "o", "lw": 1, "label": NAMES[architecture]}
            line_with_interval(ax, rows["noise"], rows[quantity], geometric=True, **look)
        ax.axhline(1, color="0.3", lw=0.6)
        ax.set_xlabel("noise / deformation", fontsize=7)
        ax.set_title(rf"${quantity}_{{K-1}}$ / before")
        ax.set_xticks(sorted(data.loc[data["study"] == "noise", "noise"].unique()))
    for ax in axes.flat:
        ax.set_yscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
        few_ticks(ax.yaxis)
    legend_below(figure, axes.flat, ncols=4)
    return figure


def ratios(data: pd.DataFrame) -> Figure:
    """Each claim's ratio by architecture and layer with its 95 % interval; grey lines: its control.

    data: the table of `studies.spatial_stability.claims.claims`.
    """
    places = {"first": ("C1", "v"), "middle": ("C2", "D"), "last hidden": ("C0", "o"), "output": ("C3", "s"),
              "filters": ("C4", "^")}  # fmt: skip
    texts, architectures = list(dict.fromkeys(data["claim"])), list(dict.fromkeys(data["architecture"]))
    columns = -(-len(texts) // 2)
    figure, axes = panels(2, columns, height=0.34 * columns, sharey=True)
    for ax, text in zip(axes.flat, texts, strict=False):
        for at, rows in data[data["claim"] == text].groupby("at", sort=False):
            color, marker = places[at]
            y = rows["architecture"].map(architectures.index) + 0.17 * (list(places).index(at) % 4 - 1.5)
            errors = [rows["ratio"] - rows["low"], rows["high"] - rows["ratio"]]
            ax.errorbar(rows["ratio"], y, xerr=errors, fmt=marker, color=color, mfc="w", ms=2.5, lw=0.7, label=at)
            ax.plot(rows["rival"], y, "|", color="0.45", ms=4, mew=1, label="control")
        ax.axvline(1, color="0.3", lw=0.6)
        ax.set(xscale="log", ylim=(len(architectures) - 0.4, -0.6))
        ax.set_yticks(range(len(architectures)), [NAMES[name] for name in architectures], fontsize=6)
        ax.set_title(TITLES[text], fontsize=6)
        few_ticks(ax.xaxis, most=3)
    for ax in axes.flat[len(texts) :]:
        ax.set_axis_off()
    legend_below(figure, axes.flat)
    return figure

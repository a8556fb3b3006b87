"""Figures of notebook 12: predicted and found phases, and the probes along training."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nin.figures import PALETTE, PHASE_COLORS, panels
from nin.phases import OUTCOMES

MARKERS = {"SGD": "o", "AdamW": "s"}
LOWEST = 1e-3  # of kappa_1 in figures
COLUMNS = 3


def foretold(data: pd.DataFrame) -> Figure:
    """kappa_1 before training against sigma, in the colour of the phase that was found; one panel for each network.

    Dashed: kappa_1 = 2, where a catapult is predicted to begin; crosses: kappa_H of the same runs. Seeds lie side by
    side. data: network, optimiser, sigma, seed, kappa_1, kappa_H, found.
    """
    names = list(dict.fromkeys(data["network"]))
    figure, axes = panels(1, len(names), height=0.85, sharey=True)
    place = {seed: k for k, seed in enumerate(sorted(data["seed"].unique()))}
    for ax, name in zip(axes[0], names, strict=True):
        for row in data[data["network"] == name].itertuples():
            x = row.sigma * 1.12 ** (2 * place[row.seed] - len(place) + 1)
            look = {"ls": "", "marker": MARKERS[row.optimiser], "ms": 4.5, "mew": 0.5, "mec": "w"}
            ax.plot(x, max(row.kappa_1, LOWEST), color=PHASE_COLORS.get(row.found, "0.6"), **look)
            if row.optimiser == "SGD" and row.kappa_H > LOWEST:
                ax.plot(x, row.kappa_H, color="k", ls="", marker="x", ms=3, mew=0.6)
        ax.axhline(2, color="k", ls="--", lw=0.6)
        ax.set(xscale="log", yscale="log", title=name, xlabel=r"noise scale $\sigma$")
    axes[0, 0].set_ylabel(r"$\kappa_1$ before training")
    point = {"ls": "", "color": "0.3"}
    handles = [
        Line2D([], [], marker=m, ms=4, label=name, **point)
        for name, m in MARKERS.items()
        if name in set(data["optimiser"])
    ]
    handles.append(Line2D([], [], marker="x", ms=3, label=r"$\kappa_H$, SGD", **point))
    handles += [
        Line2D([], [], ls="", marker="o", ms=4, color=PHASE_COLORS[phase], label=phase)
        for phase in OUTCOMES
        if phase in set(data["found"])
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def along_training(data: pd.DataFrame) -> Figure:
    """The readings of the probes against step: a panel for each quantity, a line for each network and noise scale.

    Solid: the larger sigma of a network; dashed: the smaller; bars: standard errors; dotted: the control.
    data: network, sigma, step, quantity, value, error, control.
    """
    quantities = list(dict.fromkeys(data["quantity"]))
    figure, axes = panels(-(-len(quantities) // COLUMNS), COLUMNS, height=0.95)
    for ax in axes.flat[len(quantities) :]:
        ax.set_visible(False)
    colors = dict(zip(dict.fromkeys(data["network"]), PALETTE, strict=False))
    for ax, quantity in zip(axes.flat, quantities, strict=False):
        rows = data[data["quantity"] == quantity]
        for (network, sigma), line in rows.groupby(["network", "sigma"]):
            strong = sigma == data[data["network"] == network]["sigma"].max()
            look = {"color": colors[network], "lw": 0.9, "marker": "o", "ms": 2}
            name = rf"{network}, $\sigma$ = {sigma:g}"
            ax.errorbar(line["step"] + 1, line["value"], line["error"], ls="-" if strong else "--", label=name, **look)
            if line["control"].notna().any():
                ax.plot(line["step"] + 1, line["control"], color=colors[network], ls=":", lw=0.8)
        ax.set(xscale="log", title=quantity.replace("eta lambda", r"$\eta\lambda$"), xlabel="step + 1")
        if (rows["value"] > 0).all() and np.ptp(np.log(rows["value"])) > np.log(10):
            ax.set_yscale("log")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure

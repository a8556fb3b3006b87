"""Figures of notebook 05: the gain of each training method on corrupted images, and the quadratic law."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nin.figures import panels
from studies.drawing import line_with_interval

LABELS = {
    "nin_input": "NIN, first layer",
    "nin_layers": "NIN, all layers",
    "dropout": "dropout",
    "l2": "L2",
}
STYLES = {"nin_input": ("C0", "s"), "nin_layers": ("C1", "D"), "dropout": ("C2", "^"), "l2": ("C3", "v")}
NAMES = {"salt_and_pepper": "salt and pepper", "fgsm": "FGSM", "pgd": "PGD"}


def robustness(data: pd.DataFrame) -> Figure:
    """Gain in test accuracy over the plain network of the same seed, one panel per corruption or attack.

    data: method, seed, test, strength, accuracy. Points are means over seeds with their 95 % interval; below each
    strength, the accuracy of the plain network.
    """
    tests = [test for test in dict.fromkeys(data["test"]) if data.loc[data["test"] == test, "strength"].nunique() > 1]
    methods = [method for method in dict.fromkeys(data["method"]) if method != "none"]
    figure, axes = panels(-(-len(tests) // 4), 4, height=1.0, sharey=True)
    for ax in axes.flat[len(tests) :]:
        ax.set_axis_off()
    for ax, test in zip(axes.flat, tests, strict=False):
        wide = data[data["test"] == test].pivot(index=["strength", "seed"], columns="method", values="accuracy")
        plain = wide["none"].groupby("strength").mean()
        for number, method in enumerate(methods):
            color, marker = STYLES[method]
            places = wide.groupby("strength").ngroup() + 0.12 * (number - (len(methods) - 1) / 2)
            look = {"color": color, "marker": marker, "lw": 0.8, "label": LABELS[method]}
            line_with_interval(ax, places, 100 * (wide[method] - wide["none"]), **look)
        ax.axhline(0, color="0.3", lw=0.8)
        labels = [f"{strength:g}\n{100 * value:.0f} %" for strength, value in plain.items()]
        ax.set_xticks(np.arange(len(plain)), labels)
        ax.set_title(NAMES.get(test, test))
    for ax in axes[:, 0]:
        ax.set_ylabel("gain [points]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, title="at each strength: accuracy of none")
    return figure


def tuning(data: pd.DataFrame) -> Figure:
    """Validation accuracy against the strength of each method; data: method, strength, clean, noisy, best."""
    methods = list(dict.fromkeys(data["method"]))
    figure, axes = panels(1, len(methods), height=1.0, sharey=True)
    for ax, method in zip(axes[0], methods, strict=True):
        rows = data[data["method"] == method].sort_values("strength")
        ax.plot(rows["strength"], rows["clean"], "o-", color="C0", mfc="w", label="clean")
        ax.plot(rows["strength"], rows["noisy"], "s-", color="C1", mfc="w", label="Gaussian noise")
        ax.axvline(rows.loc[rows["best"], "strength"].item(), color="k", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="strength", title=LABELS[method])
        ax.set_xticks(rows["strength"], [f"{strength:g}" for strength in rows["strength"]], fontsize=6)
        ax.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set(ylabel="validation accuracy", ylim=(0.5, 1.02))
    axes[0, 0].legend(loc="lower left", fontsize=6)
    return figure


def law(data: pd.DataFrame) -> Figure:
    """Rise of the loss under noise and pull on the node's weights, with the quadratic law.

    data: activation, sigma, rise, rise_law, pull, pull_law.
    """
    figure, axes = panels(1, 2, height=0.8)
    for ax, column, label in [
        (axes[0, 0], "rise", r"$\mathrm{E}L - L$"),
        (axes[0, 1], "pull", r"$W_{NI}\cdot\mathrm{E}\,dL/dW_{NI}$"),
    ]:
        for color, (activation, rows) in zip(("C0", "C1"), data.groupby("activation", sort=False), strict=False):
            ax.plot(rows["sigma"], rows[column], "o", color=color, mfc="w", label=activation)
            ax.plot(rows["sigma"], np.abs(rows[f"{column}_law"]), "--", color=color, lw=0.9)
        ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=label)
    axes[0, 0].legend(loc="upper left", title="dashed: quadratic law", title_fontsize=6)
    return figure

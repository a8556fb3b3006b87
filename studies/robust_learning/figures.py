"""Figures of notebook 05: tuning, the phase of each noise scale, gains on corrupted images, and the quadratic law."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from nin.figures import PHASE_COLORS, panels
from nin.phases import OUTCOMES
from studies.drawing import line_with_interval
from studies.robust_learning.comparisons import NULL

LABELS = {
    "nin_input": "NIN, first layer",
    "nin_fixed": "NIN, fixed noise",
    "nin_frozen": r"NIN, $W_{NI}$ frozen",
    "nin_layers": "NIN, all layers",
    "gaussian": "Gaussian inputs",
    "dropout": "dropout",
    "l2": "L2",
}
STYLES = {
    "nin_input": ("C0", "s"), "nin_layers": ("C1", "D"), "dropout": ("C2", "^"), "l2": ("C3", "v"),
    "gaussian": ("k", "o"), "nin_fixed": ("C4", "P"), "nin_frozen": ("C5", "X"),
}  # fmt: skip
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
            look = {"color": color, "marker": marker, "lw": 0.8, "ms": 3, "label": LABELS[method]}
            line_with_interval(ax, places, 100 * (wide[method] - wide["none"]), **look)
        ax.axhline(0, color="0.3", lw=0.8)
        labels = [f"{strength:g}\n{100 * value:.0f} %" for strength, value in plain.items()]
        ax.set_xticks(np.arange(len(plain)), labels, fontsize=6)
        ax.set_title(NAMES.get(test, test), fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("gain [points]", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "below each strength: accuracy without any method"
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=7, title=title, title_fontsize=7)
    return figure


def gains(data: pd.DataFrame) -> Figure:
    """Gain of each method over the plain network of the same seed, and its 95 % interval; one panel per group of tests.

    data: tests, method, mean, low, high (`studies.robust_learning.comparisons.gains`). The grey band is that of the
    null, the difference of two seeds of the plain network (method NULL).
    """
    groups = list(dict.fromkeys(data["tests"]))
    methods = [method for method in LABELS if method in set(data["method"])]
    figure, axes = panels(1, len(groups), height=1.6, sharey=True)
    for ax, group in zip(axes[0], groups, strict=True):
        rows = data[data["tests"] == group].set_index("method")
        low, high = 100 * rows.loc[NULL, ["low", "high"]].astype(float)
        ax.axvspan(low, high, color="0.5", alpha=0.2, lw=0)
        ax.axvline(0, color="0.3", lw=0.8)
        for place, method in enumerate(methods):
            mean, low, high = 100 * rows.loc[method, ["mean", "low", "high"]].astype(float)
            color, marker = STYLES[method]
            sides = [[mean - low], [high - mean]]
            ax.errorbar(mean, place, xerr=sides, color=color, marker=marker, mfc="w", ms=4, lw=1, capsize=1.5)
        ax.set_xlabel("gain [points]", fontsize=7)
        ax.set_title(group.replace(" ", "\n", 1), fontsize=7)
        ax.tick_params(labelsize=6)
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(methods)), [LABELS[method] for method in methods], fontsize=7)
    axes[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    return figure


def tuning(data: pd.DataFrame) -> Figure:
    """Held-out accuracy against the strength of each method: mean over networks and its 95 % interval.

    data: method, strength, seed, clean, noisy, best. Dashed: the strength with the largest mean of the two.
    """
    methods = [method for method in LABELS if method in set(data["method"])]
    figure, axes = panels(-(-len(methods) // 4), 4, height=1.0, sharey=True)
    for ax in axes.flat[len(methods) :]:
        ax.set_axis_off()
    for ax, method in zip(axes.flat, methods, strict=False):
        rows = data[data["method"] == method].sort_values("strength")
        strengths = sorted(set(rows["strength"]))
        place = rows["strength"].map(strengths.index)
        for column, label, color, marker in (("clean", "clean", "C0", "o"), ("noisy", "Gaussian noise", "C1", "s")):
            line_with_interval(ax, place, rows[column], color=color, marker=marker, ms=3, lw=0.8, label=label)
        ax.axvline(strengths.index(rows.loc[rows["best"], "strength"].iloc[0]), color="k", lw=0.8, ls="--")
        ax.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths], fontsize=6)
        ax.set_title(LABELS[method], fontsize=8)
        ax.tick_params(axis="y", labelsize=6)
    for row in axes:
        row[0].set_ylabel("held-out accuracy", fontsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "against the strength of the method"
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7, title=title, title_fontsize=7)
    return figure


def phases(data: pd.DataFrame, *, borders: dict[str, float]) -> Figure:
    """Gain of nodes under Gaussian noise and on clean images against sigma; the colour of a point is the run's phase.

    data: method, strength, seed, clean, noisy, phase, of methods with nodes and of "none". borders: phase -> predicted
    sigma at which it begins, dashed in the colour of the phase.
    """
    methods = [method for method in LABELS if method in set(data["method"])]
    plain = data[data["method"] == "none"].set_index("seed")
    figure, axes = panels(1, len(methods), height=1.3, sharey=True, sharex=True)
    for ax, method in zip(axes[0], methods, strict=True):
        rows = data[data["method"] == method]
        for column, marker, style in (("noisy", "o", "-"), ("clean", "^", ":")):
            gain = 100 * (rows[column] - rows["seed"].map(plain[column]))
            means = gain.groupby(rows["strength"]).mean()
            ax.plot(means.index, means, ls=style, color="0.5", lw=0.8, zorder=1)
            for phase, part in gain.groupby(rows["phase"]):
                look = {"color": PHASE_COLORS[phase], "mfc": PHASE_COLORS[phase] if column == "noisy" else "w"}
                ax.plot(rows.loc[part.index, "strength"], part, marker, ms=3, mew=0.8, ls="", **look)
        for phase, sigma in {phase: at for phase, at in borders.items() if 0 < at < np.inf}.items():
            ax.axvline(sigma, color=PHASE_COLORS[phase], lw=0.9, ls="--")
        ax.axhline(0, color="0.3", lw=0.8)
        ax.set_xscale("log")
        _ticks(ax, sorted(set(rows["strength"])))
        ax.set_title(LABELS[method], fontsize=8)
        ax.set_xlabel(r"noise scale $\sigma$", fontsize=7)
    axes[0, 0].set_ylabel("gain, held-out [points]", fontsize=7)
    there = [phase for phase in OUTCOMES if phase in set(data["phase"])]
    handles = [Line2D([], [], color=PHASE_COLORS[phase], marker="o", ls="", ms=3, label=phase) for phase in there]
    handles += [Line2D([], [], color="0.5", marker="o", lw=0.8, ms=3, label="Gaussian noise"),
                Line2D([], [], color="0.5", marker="^", mfc="w", ls=":", lw=0.8, ms=3, label="clean")]  # fmt: skip
    title = "dashed: border predicted before training"
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=7, title=title, title_fontsize=7)
    return figure


def law(data: pd.DataFrame) -> Figure:
    """Rise of the loss under noise and pull on the node's weights, each over its quadratic law: mean over networks.

    Bars: the 95 % interval of the mean. data: activation, seed, sigma, rise, rise_law, pull, pull_law.
    """
    figure, axes = panels(1, 2, height=0.9, sharey=True)
    sigmas = sorted(set(data["sigma"]))
    for ax, column, label in [
        (axes[0, 0], "rise", r"$(\mathrm{E}L - L)$ / law"),
        (axes[0, 1], "pull", r"$W_{NI}\cdot\mathrm{E}\,dL/dW_{NI}$ / law"),
    ]:
        ax.axhline(1, color="k", ls="--", lw=0.8)
        activations = list(dict.fromkeys(data["activation"]))
        for number, activation in enumerate(activations):
            rows = data[data["activation"] == activation]
            place = rows["sigma"].map(sigmas.index) + 0.1 * (number - (len(activations) - 1) / 2)
            look = {"color": f"C{number}", "marker": "osD"[number], "ms": 3, "lw": 0.8, "label": activation}
            line_with_interval(ax, place, rows[column] / rows[f"{column}_law"], **look)
        ax.set_xticks(range(len(sigmas)), [f"{sigma:.2g}" for sigma in sigmas], fontsize=6)
        ax.set(xlabel=r"noise scale $\sigma$", title=label)
    axes[0, 0].set_ylabel("measured over law")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _ticks(ax: Axes, strengths: list[float]) -> None:
    """Label those strengths that stand a factor 1.6 apart, from the largest down."""
    kept = []
    for strength in reversed(strengths):
        if not kept or kept[-1] / strength >= 1.6:
            kept.append(strength)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelsize=6)

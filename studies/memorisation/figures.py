"""Figures of notebook 11: a node of fixed noise beside what a network memorises."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nin.figures import panels
from studies.drawing import legend_below, line_with_interval

FLOOR = 0.03  # |W_NI| below it is not drawn: the curves of interest lie above
RULES = {
    "turn": ("the node turns", "C0", "o"),
    "borrowed": ("turn of other runs", "C7", "v"),
    "held-out loss": ("held-out loss", "C2", "s"),
    "held-out accuracy": ("held-out accuracy", "C1", "^"),
    "end": ("end, with the node", "C4", "D"),
    "no node, end": ("end, without a node", "0.3", "x"),
}


def linear(data: pd.DataFrame, *, turns: Mapping[str, Sequence[float]]) -> Figure:
    """Linear networks: rms |W_NI| against step, one panel for each number of inputs d; then the turn.

    data: d, n, label_noise, resample, step, niw, stderr, theory. Points: SGD with two standard errors; lines: theory;
    grey squares, dashed: re-drawn noise at the largest label noise; all shown down to FLOOR. turns: d, label_noise,
    node, loss, few, and node_measured, loss_measured (NaN where no network was trained).
    """
    sizes = sorted(data["d"].unique())
    figure, axes = panels(1, len(sizes) + 1, height=1.15)
    for ax, d in zip(axes[0], sizes, strict=False):
        rows = data[(data["d"] == d) & (data[["niw", "theory"]].min(axis=1) > FLOOR)]
        for number, (noise, curve) in enumerate(rows[rows["resample"] == "fixed"].groupby("label_noise")):
            _measured(ax, curve, f"C{number}", "o", rf"$\sigma_\xi$ = {noise:g}")
        largest = rows[(rows["resample"] == "step") & (rows["label_noise"] == rows["label_noise"].max())]
        _measured(ax, largest, "0.5", "s", f"re-drawn, {largest['label_noise'].max():g}", ls="--")
        ax.set(xscale="log", yscale="log", xlabel="step + 1", ylim=(0.4 * FLOOR, None))
        ax.set_title(f"{d} inputs, {rows['n'].iloc[0]} samples")
    axes[0, 0].set_ylabel(r"rms $|W_{NI}|$")
    _turns(axes[0, -1], pd.DataFrame(turns))
    legend_below(figure, (axes[0, 0], axes[0, -1]), ncols=5, fontsize=6)
    return figure


def _measured(ax: Axes, curve: pd.DataFrame, color: str, marker: str, label: str, *, ls: str = "-") -> None:
    ax.plot(curve["step"] + 1, curve["theory"], ls, color=color, lw=0.9)
    wanted = np.geomspace(1, curve["step"].max() + 1, 16) - 1
    few = curve.iloc[np.unique(np.abs(curve["step"].to_numpy()[:, None] - wanted).argmin(0))]
    ax.errorbar(few["step"] + 1, few["niw"], 2 * few["stderr"], fmt=marker, color=color, ms=2.5, lw=0.7, label=label)


def _turns(ax: Axes, turns: pd.DataFrame) -> None:
    for number, (d, rows) in enumerate(turns.groupby("d")):
        color = f"C{number + 4}"
        ax.plot(rows["label_noise"], rows["node"], color=color, label=f"node, {d:g} inputs")
        ax.plot(rows["label_noise"], rows["loss"], ":", color=color, label=f"test loss, {d:g}")
        ax.plot(rows["label_noise"], rows["node_measured"], "o", color=color)
        ax.plot(rows["label_noise"], rows["loss_measured"], "s", color=color, mfc="w")
    few = turns.groupby("label_noise")["few"].first()
    ax.plot(few.index, few, "--", color="k", lw=0.8, label=r"node, $d\ll n$")
    ax.set(xscale="log", yscale="log", xlabel=r"label noise $\sigma_\xi$", ylabel="step", title="where they turn")


def along_training(data: pd.DataFrame, *, turns: Mapping[str, Sequence[float]]) -> Figure:
    """|W_NI|, losses, test accuracy and fitted wrong labels against step; a column for each fraction of wrong labels.

    data: rows of `measure.follow`, of runs with a node. Mean over seeds and its 95 % interval. Losses and accuracies
    are those of fixed noise at the smallest sigma; vertical lines at the mean turn of the node (solid) and at the mean
    minimum of the test loss (dotted) there. turns: rows of `stopping.turns`.
    """
    data = data[data["step"] > 0]  # the axis is logarithmic
    fractions, of_node = sorted(data["fraction"].unique()), pd.DataFrame(turns)
    smallest = of_node["sigma"].min()
    figure, axes = panels(3, len(fractions), height=0.95, sharex=True, sharey="row")
    for column, fraction in enumerate(fractions):
        runs = data[data["fraction"] == fraction]
        fixed = runs[(runs["resample"] == "fixed") & (runs["sigma"] == smallest)]
        for number, ((mode, sigma), part) in enumerate(runs.groupby(["resample", "sigma"], sort=False)):
            style = {"ls": "-" if mode == "fixed" else "--", "ms": 0}
            name = rf"{'fixed' if mode == 'fixed' else 're-drawn'}, $\sigma$ = {sigma:.3g}"
            _line(axes[0, column], part, "niw", f"C{number}", name, **style)
        for name, value, color in [("training", "train_loss", "C4"), ("test", "test_loss", "C5")]:
            _line(axes[1, column], fixed, value, color, f"{name} loss", ms=0)
        _line(axes[2, column], fixed, "test_accuracy", "C5", "test accuracy", ms=0)
        if fraction:
            _line(axes[2, column], fixed, "fitted", "C3", "wrong labels fitted", ms=0)
        here = of_node[(of_node["fraction"] == fraction) & (of_node["sigma"] == smallest)]
        for ax in axes[:, column]:
            if here["turn"].notna().any():
                ax.axvline(here["turn"].mean(), color="k", lw=0.8, label="the node turns")
            ax.axvline(here["loss_step"].mean(), color="k", lw=0.8, ls=":", label="test loss lowest")
        axes[0, column].set_title(f"{fraction:.0%} wrong labels")
        axes[2, column].set_xlabel("step")
    axes[0, 0].set_xscale("log")  # shared, and the lines must be drawn on linear axes
    axes[1, 0].set_yscale("log")
    for ax, label in zip(axes[:, 0], (r"$|W_{NI}|$ / start", "loss", "fraction"), strict=True):
        ax.set_ylabel(label)
    legend_below(figure, (axes[0, 0], axes[1, 0], axes[2, -1]), ncols=4, fontsize=6)
    return figure


def reading(data: pd.DataFrame, *, turns: Mapping[str, Sequence[float]]) -> Figure:
    """Left: when nodes and test loss turn; right: test accuracy that stopping rules lose, in points.

    data: rows of `stopping.rules`; turns: rows of `stopping.turns`. Means over seeds with 95 % intervals.
    """
    figure, axes = panels(1, 2, height=0.85)
    left, right = axes[0]
    of_node = pd.DataFrame(turns)
    places = {fraction: place for place, fraction in enumerate(sorted(of_node["fraction"].unique()))}
    for number, (sigma, rows) in enumerate(of_node.groupby("sigma")):
        x = rows["fraction"].map(places) + 0.06 * number
        line_with_interval(
            left, x, rows["turn"], color=f"C{number}", marker="o", label=rf"node, $\sigma$ = {sigma:.3g}"
        )
    smallest = of_node[of_node["sigma"] == of_node["sigma"].min()]
    for name, column, style in [("test loss lowest", "loss_step", ":"), ("test accuracy best", "best_step", "--")]:
        line_with_interval(left, smallest["fraction"].map(places) - 0.06, smallest[column], color="k", ls=style,
                           marker="s", label=name)  # fmt: skip
    left.set(ylabel="step", yscale="log")
    for number, (rule, (name, color, marker)) in enumerate(RULES.items()):
        rows = data[data["rule"] == rule]
        x = rows["fraction"].map(places) + 0.06 * (number - 2.5)
        line_with_interval(right, x, rows["loss"], color=color, marker=marker, ls="-", lw=0.6, label=name)
    right.axhline(0, color="k", lw=0.6)
    right.set(ylabel="points below the best")
    for ax in (left, right):
        ax.set_xticks(list(places.values()), [f"{fraction:.0%}" for fraction in places])
        ax.set_xlabel("wrong labels")
        ax.legend(fontsize=6)
    return figure


def elsewhere(data: pd.DataFrame) -> Figure:
    """Other layers, widths, batch sizes, networks, data: rise of |W_NI| on clean and wrong labels, lead, points lost.

    data: case, and the columns of `stopping.turns`. Points are runs, bars means; right: filled at the turn, hollow at
    the end of training.
    """
    cases = list(dict.fromkeys(data["case"]))
    places = {case: place for place, case in enumerate(cases)}
    figure, axes = panels(1, 3, height=1.1, sharey=True)
    for number, (fraction, rows) in enumerate(data.groupby("fraction")):
        y = rows["case"].map(places) + 0.14 * (2 * number - 1)
        color = f"C{number}"
        axes[0, 0].plot(rows["rise"], y, "o", color=color, label=f"{fraction:.0%} wrong labels")
        axes[0, 1].plot(rows["lead"], y, "o", color=color)
        axes[0, 2].plot(rows["best"] - rows["at_turn"], y, "o", color=color)
        axes[0, 2].plot(rows["best"] - rows["at_end"], y, "s", color=color, mfc="w")
    axes[0, 0].axvline(0.05, color="k", lw=0.6, ls="--")
    axes[0, 1].axvline(0, color="k", lw=0.6)
    axes[0, 0].set_yticks(range(len(cases)), cases, fontsize=6)
    axes[0, 0].invert_yaxis()
    titles = ("how far it rises", "how early it turns", "cost of stopping")
    labels = (r"rise of $\ln|W_{NI}|$", "ln(loss lowest / turn)", "points below the best")
    for ax, title, label in zip(axes[0], titles, labels, strict=True):
        ax.set(title=title, xlabel=label)
    figure.legend(handles=axes[0, 0].get_legend_handles_labels()[0], loc="outside upper center", ncols=2, fontsize=6)
    return figure


def _line(ax: Axes, rows: pd.DataFrame, column: str, color: str, label: str, **style: object) -> None:
    if rows[column].notna().any():
        line_with_interval(ax, rows["step"], rows[column], color=color, band=True, label=label, **style)

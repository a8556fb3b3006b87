"""Figures of notebook 10: four probes along the same training runs, phase by phase."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from nin.figures import PHASE_COLORS, panels
from nin.phases import OUTCOMES, PHASES
from studies.drawing import line_with_range

COLUMNS = ("no node", *OUTCOMES)
HEADS = {"no node": "0.25", **PHASE_COLORS}
ROWS = {  # label of a row: quantity -> (label, colour); whether its axis is logarithmic
    "performance": ({"loss": ("loss", "C0"), "accuracy": ("accuracy", "C1")}, True),
    "curvature": (
        {"eta_sharpness": (r"$\eta\,\lambda$, all weights", "C0"), "eta_lambda": (r"$\eta\lambda$ at the node", "C1")},
        True,
    ),
    "training response": (
        {
            "self_kernel": ("self-kernel", "C0"), "drift": ("its drift", "C1"), "response": ("response", "C2"),
            "effective_rank": ("feature rank", "C3"),
        },
        True,
    ),
    "interactions": (
        {
            "completeness": ("completeness", "C0"), "redundancy": ("redundancy", "C1"),
            "mean_order": ("mean order / n", "C2"),
        },
        False,
    ),
    "stability": ({"D": ("D", "C0"), "G": ("G", "C1"), "R": ("R", "C2")}, True),
}  # fmt: skip
SMALLEST = 1e-5  # lower end of a logarithmic axis, as a fraction of its largest value
LINES = {  # drawn dashed
    "curvature": 2.0,  # eta lambda, above which descent is unstable
    "stability": 1.0,  # R: as sensitive to deformations as to noise
}


def along_training(data: pd.DataFrame) -> Figure:
    """All probes on one time axis, one row per probe and one column per phase: mean and range over seeds.

    Self-kernel, response and feature rank are relative to step 0; completeness and redundancy are those of the
    last hidden layer, mean order, D, G and R those of the output. Dashed: eta lambda = 2, and R = 1.
    data: phase, seed, step, quantity, value (`studies.four_probes.measure.comparable`).
    """
    columns = [name for name in COLUMNS if name in set(data["phase"])]
    figure, axes = panels(len(ROWS), len(columns), height=0.8, sharex=True, sharey="row")
    for row, (title, (quantities, logarithmic)) in enumerate(ROWS.items()):
        for column, phase in enumerate(columns):
            ax = axes[row, column]
            for quantity, (label, color) in quantities.items():
                runs = data[(data["phase"] == phase) & (data["quantity"] == quantity)]
                line_with_range(ax, runs["step"] + 1, runs["value"], color=color, label=label, lw=1)
            if title in LINES:
                ax.axhline(LINES[title], color="k", ls="--", lw=0.6)
        _fit(axes[row, 0], data[data["quantity"].isin(quantities)], logarithmic)
        axes[row, 0].set_ylabel(title, fontsize=7)
        _legend(axes[row])
    _heads(axes, columns)
    return figure


def details(data: pd.DataFrame) -> Figure:
    """Aging exponent, strength by order and R by layer; one column per phase, mean and range over seeds.

    data: phase, seed, step, quantity ("aging", "strength", "R"), layer, order, value.
    """
    columns = [name for name in COLUMNS if name in set(data["phase"])]
    figure, axes = panels(3, len(columns), height=0.85, sharex=True, sharey="row")
    layers = [name for name in dict.fromkeys(data[data["quantity"] == "R"]["layer"])]
    orders = sorted(data[data["quantity"] == "strength"]["order"].unique())
    lines = {
        "aging": {("", 0): ("d ln response / d ln t", "C0")},
        "strength": {("output", m): (f"order {m:g}", _shade("plasma", k, orders)) for k, m in enumerate(orders)},
        "R": {(name, 0): (name, _shade("viridis", k, layers)) for k, name in enumerate(layers)},
    }
    for row, (quantity, looks) in enumerate(lines.items()):
        for column, phase in enumerate(columns):
            ax = axes[row, column]
            runs = data[(data["phase"] == phase) & (data["quantity"] == quantity)]
            runs = runs.assign(layer=runs["layer"].fillna(""))
            for (layer, order), (label, color) in looks.items():
                rows = runs[(runs["layer"] == layer) & (runs["order"] == order)]
                line_with_range(ax, rows["step"] + 1, rows["value"], color=color, label=label, lw=1)
        _fit(axes[row, 0], data[data["quantity"] == quantity], quantity != "aging")
        _legend(axes[row])
    for column in range(len(columns)):
        axes[0, column].axhline(-1, color="k", ls="--", lw=0.6)
        axes[2, column].axhline(1, color="k", ls="--", lw=0.6)
    for row, label in enumerate(("aging exponent", "strength", "R")):
        axes[row, 0].set_ylabel(label, fontsize=7)
    _heads(axes, columns)
    return figure


def change_points(data: pd.DataFrame) -> Figure:
    """The step at which each quantity jumps: one dot per seed, sized by the explained variance, and the range of steps.

    data: phase, seed, quantity, step, explained, steps (of the run).
    """
    columns = [name for name in COLUMNS if name in set(data["phase"])]
    names = list(dict.fromkeys(data["quantity"]))
    figure, axes = panels(1, len(columns), height=2.0, sharex=True, sharey=True)
    for ax, phase in zip(axes[0], columns, strict=True):
        runs = data[data["phase"] == phase]
        for place, name in enumerate(names):
            found = runs[(runs["quantity"] == name) & runs["step"].notna()]
            ax.scatter(found["step"] + 1, np.full(len(found), place), s=22 * found["explained"] ** 2,
                       color=HEADS[phase], alpha=0.6, lw=0)  # fmt: skip
            if len(found):
                ends = found["step"].agg(["min", "max"]) + 1
                ax.plot(ends, [place, place], color=HEADS[phase], lw=0.8)
        ax.set(xscale="log", yticks=range(len(names)), yticklabels=names)
        ax.set_xlim(0.8, 1.3 * (data["steps"].max() + 1))
    axes[0, 0].invert_yaxis()
    _heads(axes, columns)
    return figure


def together(data: pd.DataFrame) -> Figure:
    """How often two quantities change at the same time, minus chance; below the diagonal: Spearman's rank correlation.

    The number in a field is that of its colour. data: first, second, share, chance, p, rank. Bold where p < 0.05.
    """
    names = list(dict.fromkeys([*data["first"], *data["second"]]))
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    sure = np.zeros(values.shape, dtype=bool)
    figure, axes = panels(1, 1, height=0.75)
    ax = axes[0, 0]
    for row in data.itertuples():
        above, below = sorted((place[row.first], place[row.second]))
        values[above, below], values[below, above] = row.share - row.chance, row.rank
        sure[above, below] = row.p < 0.05
    image = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            look = {"color": "w" if abs(value) > 0.6 else "k", "weight": "bold" if sure[i, j] else "normal"}
            text = f"{round(value, 2) + 0:+.2f}".replace("0.", ".")
            ax.text(j, i, text, ha="center", va="center", fontsize=6, **look)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.grid(False)
    figure.colorbar(image, ax=ax).set_label("above: share - chance; below: rank correlation", fontsize=7)
    return figure


def coloured(data: pd.DataFrame, *, quantities: dict[str, str]) -> Figure:
    """The readings of a probe at the end of training over the phase diagram, and against kappa_1 before training.

    Top: the colour is the mean over seeds, white if all runs diverged; a dot for each seed has the colour of its phase.
    Bottom: one point for each run; dashed: kappa_1 = 2, from which a catapult is predicted.
    data: sigma, lr, seed, phase, kappa_1, quantity, value. quantities: name -> label.
    """
    figure, axes = panels(2, len(quantities), height=1.1)
    for ax, below, (quantity, label) in zip(axes[0], axes[1], quantities.items(), strict=True):
        part = data[data["quantity"] == quantity]
        table = part.pivot_table(index="lr", columns="sigma", values="value", aggfunc="mean", dropna=False)
        sigma, eta = table.columns.to_numpy(), table.index.to_numpy()
        image = ax.pcolormesh(_edges(sigma), _edges(eta), table, cmap="cividis")
        step = (sigma[-1] / sigma[0]) ** (1 / max(len(sigma) - 1, 1))  # factor between two columns
        count = max(part["seed"].nunique(), 1)
        for row in part.itertuples():
            aside = step ** (0.6 * ((row.seed - part["seed"].min() + 0.5) / count - 0.5))
            color = PHASE_COLORS[row.phase]
            ax.plot(row.sigma * aside, row.lr, "o", ms=2.5, mfc=color, mec="w", mew=0.4)
            below.plot(row.kappa_1, row.value, "o", ms=2.5, mfc=color, mec="none")
        below.axvline(2, color="k", ls="--", lw=0.6)
        ax.set(xscale="log", yscale="log")
        below.set_xscale("log")
        _whole_decades(ax.xaxis, sigma)
        _whole_decades(ax.yaxis, eta)
        _whole_decades(below.xaxis, part["kappa_1"].to_numpy())
        ax.set_xlabel(r"noise scale $\sigma$", fontsize=7)
        below.set_xlabel(r"$\kappa_1$ before training", fontsize=7)
        below.set_ylabel(label, fontsize=7)
        ax.set_title(label, fontsize=7)
        ax.grid(False)
        bar = figure.colorbar(image, ax=ax, location="bottom", pad=0.02)
        bar.ax.tick_params(labelsize=6)
        for one in (ax, below):
            one.tick_params(labelsize=6)
    axes[0, 0].set_ylabel(r"learning rate $\eta$", fontsize=7)
    for ax in axes[0, 1:]:
        ax.tick_params(labelleft=False)
    there = [phase for phase in OUTCOMES if phase in PHASES or phase in set(data["phase"])]
    handles = [Line2D([], [], ls="", marker="o", color=PHASE_COLORS[phase], label=phase) for phase in there]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(there), fontsize=7)
    return figure


def _edges(values: np.ndarray) -> np.ndarray:
    """The edges of cells around values that are evenly spaced in their logarithm."""
    half = (values[-1] / values[0]) ** (0.5 / max(len(values) - 1, 1)) if len(values) > 1 else 2.0
    return np.append(values / half, values[-1] * half)


def _whole_decades(axis: Axis, values: np.ndarray) -> None:
    """Label few decades of a logarithmic axis, at least two; 1, 2 and 5 of each if there are not enough decades."""
    low, high = np.log10(np.nanmin(values)), np.log10(np.nanmax(values))
    if np.floor(high) - np.ceil(low) < 1:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    else:
        axis.set_major_locator(LogLocator(numticks=4))
    axis.set_minor_formatter(NullFormatter())


def _fit(ax: Axes, rows: pd.DataFrame, logarithmic: bool) -> None:
    """Set the scale of a row and its limits, from all phases except the divergent one, which may leave the axis."""
    ax.set_yscale("log" if logarithmic else "linear")
    values = rows[rows["phase"] != "divergent"]["value"].dropna()
    values = np.log10(values[values > 0].clip(lower=values.max() * SMALLEST)) if logarithmic else values
    if len(values):
        margin = 0.05 * (values.max() - values.min()) + 0.02
        ends = np.array([values.min() - margin, values.max() + margin])
        ax.set_ylim(*(10**ends if logarithmic else ends))
        if logarithmic:
            _whole_decades(ax.yaxis, 10**ends)


def _legend(row: np.ndarray) -> None:
    """The labels of a row's first panel, to the right of its last one, which may show nothing."""
    look = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "fontsize": 6, "handlelength": 1}
    row[-1].legend(*row[0].get_legend_handles_labels(), **look)


def _heads(axes: np.ndarray, columns: list[str]) -> None:
    """Phases as titles, logarithmic time as the label of the last row, small ticks."""
    axes[0, 0].set_xscale("log")
    for column, phase in enumerate(columns):
        axes[0, column].set_title(phase, color=HEADS[phase], fontsize=8)
        axes[-1, column].set_xlabel("step + 1", fontsize=7)
    for ax in axes.flat:
        ax.tick_params(labelsize=6)
        if ax.get_yscale() == "log":
            ax.yaxis.set_minor_formatter(NullFormatter())


def _shade(name: str, place: int, of: list) -> tuple:
    return colormaps[name](0.9 * place / max(len(of) - 1, 1))

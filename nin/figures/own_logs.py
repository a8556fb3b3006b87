"""Figures of one's own logs: tables of `nin.Record`, `nin.train`, `nin.sweep`, or of a loop with the same columns.

A log has the columns step, noisy_loss and niw_norm, and run and sigma if it holds several runs. These are used as well
if they are there: expected_loss with ratio_stderr, train_loss, test_loss, niw_decay.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nin.figures.style import PALETTE, PHASE_COLORS, panels
from nin.phases import DECAYED, GREW, OUTCOMES, SPIKE, Criteria, criteria, fit_decay

TAUS = {
    "niw_norm": (r"$|W_{NI}|$", "o"),
    "train_loss": ("training loss", "s"),
    "test_loss": ("test loss", "^"),
}
NUMBERS = ("sigma", "expected_loss", "ratio_stderr", "train_loss", "test_loss", "niw_decay")
COLUMNS, LINES = 3, 12  # panels beside each other; lines that get a name
LOG = "a log has step, noisy_loss and niw_norm, and sigma and run for several runs"
HIGH = 100.0  # times the start: where panels end, so that a run that diverges does not flatten the others


def trajectories(data: pd.DataFrame) -> Figure:
    """The losses and |W_NI| / |W_NI(0)| of each run against step, in the colour of its phase.

    Points: noisy loss of the batches; line: expected loss, or the noisy loss where it was not measured; dotted: clean
    test loss. Grey, dashed: what weight decay alone makes of |W_NI|.
    Raises ValueError for a table without the columns of a log.
    """
    figure, axes = panels(1, 2, height=0.8)
    (left, right), start = axes[0], []
    for log, found in _runs(data):
        start.append(log["noisy_loss"].dropna().iloc[0])
        color, x = PHASE_COLORS[found.phase], log["step"] + 1
        name = f"{found.phase}, $\\sigma$ = {log['sigma'].iloc[0]:.3g}" if "sigma" in log else found.phase
        left.plot(x, log["noisy_loss"], color=color, ls="", marker=".", ms=1.5, alpha=0.4, rasterized=True)
        line = "expected_loss" if _measured(log, "expected_loss") else "noisy_loss"
        _line(left, log, line, color=color, label=_once(left, name))
        if _measured(log, "test_loss"):
            _line(left, log, "test_loss", color=color, ls=":")
            left.plot([], [], color="0.3", ls=":", label=_once(left, "clean test loss"))
        _line(right, log.assign(kept=log["niw_norm"] / log["niw_norm"].dropna().iloc[0]), "kept", color=color)
        if _measured(log, "niw_decay") and (log["niw_decay"] != 1).any():
            _line(right, log, "niw_decay", color="0.5", ls="--", label=_once(right, "weight decay alone"))
    left.set(xscale="log", yscale="log", xlabel="step + 1", ylabel="loss")
    right.set(xscale="log", yscale="log", xlabel="step + 1", ylabel=r"$|W_{NI}|\,/\,|W_{NI}(0)|$")
    left.set_ylim(top=min(left.get_ylim()[1], HIGH * max(start)))
    right.set_ylim(top=min(right.get_ylim()[1], HIGH))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def phases(data: pd.DataFrame) -> Figure:
    """What decides the phase of each run, against sigma: the spike of the loss, and the part of |W_NI| that is left.

    Bars: one standard error; lines: the limits of `nin.phases.criteria`; pale: the label has a `Criteria.doubt`;
    triangles: 100 or more.
    Raises ValueError for a table without the columns of a log, or without sigma.
    """
    _need(data, ("sigma",))
    figure, axes = panels(1, 2, height=0.8, sharex=True)
    rows = [(float(log["sigma"].iloc[0]), found) for log, found in _runs(data)]
    for ax, value, error in ((axes[0, 0], "spike", "spike_stderr"), (axes[0, 1], "kept", "kept_stderr")):
        for phase in [p for p in OUTCOMES if p in {found.phase for _, found in rows}]:
            for doubted in (False, True):
                mine = [(s, f) for s, f in rows if f.phase == phase and bool(f.doubt) == doubted]
                mine = [(s, getattr(f, value), getattr(f, error)) for s, f in mine if not np.isnan(getattr(f, value))]
                if mine:
                    sigma, height, bar = map(np.array, zip(*mine, strict=True))
                    label = _once(ax, f"{phase}, in doubt" if doubted else phase)
                    look = {"color": PHASE_COLORS[phase], "alpha": 0.35 if doubted else 1.0, "ls": ""}
                    seen = height < HIGH
                    bars = np.nan_to_num(bar)[seen]
                    ax.errorbar(sigma[seen], height[seen], bars, marker="o", ms=3, lw=0.8, label=label, **look)
                    ax.plot(sigma[~seen], 0.9 * HIGH + 0 * sigma[~seen], marker="^", ms=4, **look)
    for limit in (DECAYED, GREW):
        axes[0, 1].axhline(limit, color="k", lw=0.6, ls="--")
    axes[0, 0].axhline(SPIKE, color="k", lw=0.6, ls="--")
    axes[0, 0].set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel="spike of the noisy loss")
    axes[0, 1].set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=r"$|W_{NI}|$, end over start")
    for ax in axes[0]:
        ax.set_ylim(top=min(ax.get_ylim()[1], HIGH))
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
    return figure


def decay_times(data: pd.DataFrame) -> Figure:
    """Decay times of |W_NI| and of the clean losses against sigma, with 95 % intervals, and the slope of theory, -2.

    Each is `nin.phases.fit_decay` of a run that did not diverge; curves that do not decay are left out.
    Raises ValueError for a table without the columns of a log, or without sigma.
    """
    _need(data, ("sigma",))
    figure, axes = panels(1, 1, height=0.55)
    ax, points = axes[0, 0], {column: [] for column in TAUS}
    for log, found in _runs(data):
        for column in [c for c in TAUS if _measured(log, c) and found.phase != "divergent"]:
            values = log[column] / (log["niw_decay"] if column == "niw_norm" and "niw_decay" in log else 1.0)
            fit = fit_decay(log["step"], values)
            if np.isfinite(fit.tau):
                points[column].append((float(log["sigma"].iloc[0]), fit.tau, fit.low, fit.high))
    for color, (column, (name, marker)) in zip(PALETTE, TAUS.items(), strict=False):
        if points[column]:
            sigma, tau, low, high = map(np.array, zip(*points[column], strict=True))
            bars = [np.clip(tau - low, 0, None), np.where(np.isfinite(high), high - tau, 0)]
            look = {"ls": "", "marker": marker, "ms": 3.5, "mfc": "w", "color": color, "lw": 0.8}
            ax.errorbar(sigma, tau, bars, label=rf"$\tau$ of {name}", **look)
    if points["niw_norm"]:
        sigma, tau, *_ = map(np.array, zip(*points["niw_norm"], strict=True))
        ends = np.array([sigma.min(), sigma.max()])
        first = np.argmin(sigma)
        ax.plot(ends, tau[first] * (ends / sigma[first]) ** -2.0, "k--", lw=0.8, label="slope $-2$, theory")
    ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=r"decay time $\tau$ [steps]")
    figure.legend(loc="outside right center")
    return figure


def readings(data: pd.DataFrame) -> Figure:
    """The numbers of probes against step, a panel for each; a line for each run and each value of its text columns.

    data  readings of `nin.Record.readings`, or one of the tables that `nin.sweep` returns with probes. In tables with
          the columns quantity and value, as the four probes give, each quantity has a panel; bars: their error
    Where a line has several rows at a step, it shows their mean. Raises ValueError for a table without step, and for
    one without numbers.
    """
    _need(data, ("step",), "readings have step, and columns of numbers")
    data = data.drop(columns=["failure"], errors="ignore")
    texts = [c for c in data.columns if not pd.api.types.is_numeric_dtype(data[c])]
    if {"quantity", "value"} <= set(data):
        shown = [(name, "value", rows) for name, rows in data.groupby("quantity", sort=False)]
    else:
        numbers = [c for c in data.columns if c not in (*texts, "step", "run") and data[c].notna().any()]
        shown = [(name, name, data) for name in numbers]
    if not shown:
        raise ValueError(f"data has no column of numbers beside step; its columns are {', '.join(data.columns)}.")
    by = [c for c in ("run", *texts) if c in data and c not in ("quantity", "probe")]
    columns = min(COLUMNS, len(shown))
    figure, axes = panels(-(-len(shown) // columns), columns, height=1.0)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    names: list[str] = []
    for ax, (name, column, rows) in zip(axes.flat, shown, strict=False):
        _reading(ax, rows.dropna(subset=[column]), column, by, names)
        ax.set(xscale="log", title=name.replace("_", " "), xlabel="step + 1")
    if 1 < len(names) <= LINES:
        handles = [h for ax in axes.flat for h in ax.get_legend_handles_labels()[0]]
        figure.legend({h.get_label(): h for h in handles}.values(), names, loc="outside lower center", ncols=4)
    return figure


def _reading(ax: Axes, data: pd.DataFrame, column: str, by: Sequence[str], names: list[str]) -> None:
    """The mean of a column against step, a line for each group; bars where a line has one row with an error a step.

    names  of all lines so far, one colour each; new ones are added
    """
    for group, rows in data.groupby(list(by), dropna=False) if by else [((), data)]:
        parts = [f"run {part}" if key == "run" else str(part) for key, part in zip(by, group, strict=True)]
        name = ", ".join(part for part in parts if part not in ("", "nan")) or "all"
        if name not in names:
            names.append(name)
        steps = rows.groupby("step")
        mean, single = steps[column].mean(), steps.size().max() == 1
        errors = steps["error"].first().fillna(0) if column == "value" and single and "error" in rows else None
        look = {"color": PALETTE[names.index(name) % len(PALETTE)], "marker": "o", "ms": 2, "lw": 0.9}
        ax.errorbar(mean.index + 1, mean, errors, label=name, **look)


def _runs(data: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, Criteria]]:
    """The log of each run, by step, and its criteria; ValueError for one that is not of one run."""
    _need(data, ("step", "noisy_loss", "niw_norm"))
    for name, log in data.groupby("run") if "run" in data else [("", data)]:
        log, which = log.sort_values("step"), f"run {name}" if "run" in data else "data"
        number = "; number the runs in a column run" if "run" not in data else ""
        if "sigma" in log and log["sigma"].nunique(dropna=False) != 1:
            raise ValueError(f"{which} has several values of sigma, or misses some{number}.")
        if log["step"].duplicated().any():
            raise ValueError(f"{which} has step {log['step'][log['step'].duplicated()].iloc[0]:g} twice{number}.")
        yield log, criteria(log)


def _need(data: pd.DataFrame, columns: Sequence[str], kind: str = LOG) -> None:
    if missing := [column for column in columns if column not in data]:
        raise ValueError(
            f"data has no column {', '.join(missing)}; {kind}. Its columns are {', '.join(map(str, data.columns))}."
        )
    if not len(data):
        raise ValueError("data has no rows.")
    for column in [c for c in (*columns, *NUMBERS) if c in data]:
        if not pd.api.types.is_numeric_dtype(data[column]) or pd.api.types.is_bool_dtype(data[column]):
            raise ValueError(f"data column {column!r} must be numbers, not {data[column].iloc[0]!r}.")
        if column in columns and not np.isfinite(data[column].dropna()).any():
            raise ValueError(f"data column {column!r} has no number.")


def _measured(log: pd.DataFrame, column: str) -> bool:
    return column in log and bool(log[column].notna().sum() > 1)


def _line(ax: Axes, log: pd.DataFrame, column: str, **look: object) -> None:
    log = log.dropna(subset=[column])
    ax.plot(log["step"] + 1, log[column], **look)


def _once(ax: Axes, label: str) -> str | None:
    """The label if the axes do not have it yet."""
    return None if label in ax.get_legend_handles_labels()[1] else label

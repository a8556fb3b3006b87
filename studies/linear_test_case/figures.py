"""Figures of notebook 01: the linear net with a noise injection node, measured over theory."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from nin import theory
from nin.figures import PHASE_COLORS, panels
from nin.phases import of_kappa
from studies.drawing import line_with_range

# SGD: open circles around the small squares of the closed map, so that both show where they agree.
SOURCES = ({"fmt": "o", "ms": 5, "mfc": "none", "color": "C0"}, {"fmt": "s", "ms": 2.2, "color": "C1"})
NESTED = (5.6, 3.6, 1.6)  # sizes of markers that lie on each other: the smaller ones within the larger


def noise_output(data: pd.DataFrame) -> Figure:
    """n(t) for one kappa_0 per panel: SGD (points) over the closed map (line), its noise average and the wide limit.

    data: rows of `measure.simulate`, one seed.
    """
    kappas = sorted(data["kappa0"].unique())
    figure, axes = panels(2, 2, height=0.55)
    for ax, kappa0 in zip(axes.flat, kappas, strict=True):
        run, phase = data[data["kappa0"] == kappa0], of_kappa(kappa0)
        color, inside = PHASE_COLORS[phase], run["n"].abs() < 1e6
        top = min(1e6, 3 * run["n"][inside].abs().max())
        wide = run[run["n_wide"].abs() < 30 * top]
        ax.plot(wide["step"], wide["n_wide"], ":", color="0.5", lw=0.9, label=r"wide limit, $n_0(1-\kappa_0)^t$")
        ax.plot(run["step"], run["n_averaged"], "--", color="0.3", lw=0.8, label="closed map, noise average")
        ax.plot(run["step"], run["n_map"], color=color, lw=1.6, zorder=1.5, label="closed map, same draws")
        ax.plot(run["step"][inside], run["n"][inside], "o", ms=2.2, color="k", mew=0, label="SGD",
                markevery=4 if kappa0 < 1 else 1)  # fmt: skip
        ax.set(ylim=(-top, top), title=rf"{phase}, $\kappa_0$ = {kappa0:g}")
        if kappa0 < 1:  # n keeps its sign
            low, high = sorted((0, 1.1 * run["n"].iloc[0]))
            ax.set_ylim(min(low, 1.1 * run["n"].min()), max(high, 1.1 * run["n"].max()))
            continue
        threshold = 1e-2 if top < 1e3 else 1
        ax.set_yscale("symlog", linthresh=threshold, linscale=2.5)  # room for the ticks beside 0
        ax.yaxis.set_major_locator(SymmetricalLogLocator(base=100, linthresh=threshold))
    for ax in axes[1]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("noise output $n$")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=6)
    return figure


def decay_time(data: pd.DataFrame) -> Figure:
    """Decay time of n against sigma / sigma(kappa = 1), measured over tau = 1/|ln|1 - kappa||, with the slope -2.

    data: kappa0, tau, source ("SGD", "closed map"), low, high: the range over seeds.
    """
    figure, axes = panels(1, 1, height=0.5)
    ax = axes[0, 0]
    kappa = np.unique(np.concatenate([np.geomspace(data["kappa0"].min(), 1.99, 400), 1 + np.geomspace(1e-4, 0.99, 99)]))
    tau = theory.decay_time(kappa)
    ax.plot(np.sqrt(kappa), np.where(tau > 0, tau, np.nan), color="k", lw=0.9, label=r"theory, $1/|\ln|1-\kappa||$")
    ax.plot(np.sqrt(kappa), 1 / kappa, ":", color="0.5", label=r"slope $-2$, $1/\kappa$")
    for (source, rows), look in zip(data.groupby("source"), SOURCES, strict=False):
        error = [rows["tau"] - rows["low"], rows["high"] - rows["tau"]]
        ax.errorbar(np.sqrt(rows["kappa0"]), rows["tau"], error, lw=0.8, label=source, **look)
    ax.axvline(1, color="0.6", lw=0.6)
    ax.axvline(np.sqrt(2), color="0.6", lw=0.6)
    ax.set(xscale="log", yscale="log", ylim=(0.1, 3 / data["kappa0"].min()))
    ax.set(
        xlabel=r"$\sigma/\sigma_1=\sqrt{\kappa_0}$; lines: $\kappa_0=1$ and $2$",
        ylabel=r"decay time $\tau$ of $n$ [steps]",
    )
    ax.legend(loc="lower left")
    return figure


def end_points(data: pd.DataFrame) -> Figure:
    """End-point curvature and peak against kappa_0 with the boundaries 2 and 4; multiplier of finite batches.

    data: kappa0, width, kappa_end, peak (over sqrt N; rows with kind "map"), and law, batch, kappa0, multiplier, stderr
    (rows with kind "multiplier"). Dotted: kappa_MS of Gaussian noise, in the colour of its batch size. Rademacher noise
    has the multiplier (1 - kappa)^2 for every |B|: nested squares.
    """
    figure, axes = panels(1, 3, height=1.35)
    end, peak, finite = axes[0]
    runs = data[data["kind"] == "map"]
    for color, (width, rows) in zip(("C0", "C1", "C2"), runs.groupby("width"), strict=False):
        label = f"$N=10^{{{np.log10(width):.0f}}}$"
        end.plot(rows["kappa0"], rows["kappa_end"], ".-", color=color, ms=3, label=label)
        peak.plot(rows["kappa0"], rows["peak"], ".-", color=color, ms=3, label=label)
    around = np.array([2.0, 3.0])
    end.plot([0, 2], [0, 2], "k:", lw=0.8, label=r"$\kappa_0$")
    end.plot(around, 4 - around, "k--", lw=0.8, label=r"$4-\kappa_0$")
    end.set(xlabel=r"$\kappa_0$", ylabel=r"$\kappa$ at the end", ylim=(0, 2.2))
    peak.set(xlabel=r"$\kappa_0$", ylabel=r"peak $|n|\,/\,\sqrt{N}$", yscale="log")
    for ax in (end, peak):
        for kappa in (2, 4):
            ax.axvline(kappa, color="0.6", lw=0.6)
    _multipliers(finite, data[data["kind"] == "multiplier"])
    figure.legend(*end.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=5.5)
    (law, *points), labels = finite.get_legend_handles_labels()  # lines come first
    figure.legend([*points, law], [*labels[1:], labels[0]], loc="outside lower right", ncols=2, fontsize=5.5)
    return figure


def _multipliers(ax: Axes, measured: pd.DataFrame) -> None:
    """The mean-square multiplier of finite batches over theory; the largest markers first."""
    kappa = np.linspace(0.02, 3, 200)
    colors = dict(zip(sorted(measured["batch"].unique()), ("C0", "C1", "C2"), strict=True))
    for law, marker, sizes in (("gaussian", "o", (3.0, 3.0, 3.0)), ("rademacher", "s", NESTED)):
        for (batch, color), size in zip(colors.items(), sizes, strict=True):
            rows = measured[(measured["law"] == law) & (measured["batch"] == batch)]
            ax.errorbar(rows["kappa0"], rows["multiplier"], rows["stderr"], fmt=marker, mfc="none", ms=size, mew=0.7,
                        color=color, lw=0.7, label=rf"{law}, $|B|$ = {batch:.0f}")  # fmt: skip
    for batch, color in colors.items():
        ax.plot(kappa, theory.mean_square_multiplier(kappa, batch, theory.KURTOSIS["gaussian"]), color=color, lw=0.9)
        ax.axvline(float(theory.kappa_mean_square(batch, 3)), color=color, lw=0.5, ls=":")
    ax.plot(kappa, theory.mean_square_multiplier(kappa, 1, theory.KURTOSIS["rademacher"]), "k--", lw=0.8, zorder=1,
            label=r"$(1-\kappa)^2$")  # fmt: skip
    ax.axhline(1, color="k", lw=0.6)
    ax.set(xlabel=r"$\kappa$", ylabel="multiplier", ylim=(0, 4))


def equal_decay(data: pd.DataFrame) -> Figure:
    """Noise output |n| and signal residual |E| against step, one panel per sigma / sigma_x, over their initial values.

    data: rows of `measure.equal_decay`; lines are means over seeds, bands their range.
    """
    ratios = sorted(data["ratio"].unique())
    figure, axes = panels(1, len(ratios), height=0.9, sharey=True)
    for ax, ratio in zip(axes[0], ratios, strict=True):
        for column, label, color, line in [("n", "noise output $|n|$", "C0", "-"), ("E", "residual $|E|$", "C1", "--")]:
            runs = data[data["ratio"] == ratio]
            line_with_range(ax, runs["step"], runs[column], ls=line, color=color, label=label)
        ax.set(xlabel="step", title=rf"$\sigma/\sigma_x$ = {ratio:g}")
    axes[0, 0].set(yscale="log", ylabel="over its start", ylim=(5e-3, 1.5))
    axes[0, 0].legend(loc="lower left")
    return figure

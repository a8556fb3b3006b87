"""Figures of notebook 03: the noise injection weights beside the loss of the unperturbed network, and why."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from nin.figures import panels
from nin.phases import fit_decay
from studies.drawing import legend_below, line_with_interval
from studies.nin_vs_loss.clock import deviations
from studies.nin_vs_loss.measure import why_not_exponential

CURVES = {
    "niw_norm": (r"$|W_{NI}|$", "C0"),
    "train_loss": ("training loss", "C1"),
    "test_loss": ("test loss", "C2"),
}
RESAMPLE = {"epoch": "re-drawn every epoch", "fixed": "fixed", "step": "re-drawn every step"}


def evolution(data: pd.DataFrame, *, steps_per_epoch: float) -> Figure:
    """NIW norm, clean training and test loss against epoch, one panel per resampling; mean over seeds, band +- 1 std.

    data: resample, seed, step, niw_norm, train_loss, test_loss. Each curve is divided by its first value; dashed: the
    exponential with a floor (`phases.fit_decay`) of the mean curve, drawn only if one exponential fits it and most
    seeds; otherwise the legend says why not (`measure.why_not_exponential`).
    """
    modes, lowest = list(dict.fromkeys(data["resample"])), 1e-3
    figure, axes = panels(1, len(modes), height=0.85, sharey=True)
    for ax, mode in zip(axes[0], modes, strict=True):
        for column, (label, color) in CURVES.items():
            runs = data[data["resample"] == mode].dropna(subset=[column])
            start = runs.sort_values("step").groupby("seed")[column].transform("first")
            curve = (runs[column] / start).groupby(runs["step"]).agg(["mean", "std"]).fillna(0)
            epoch, lowest = curve.index / steps_per_epoch, min(lowest, curve["mean"].min())
            ax.plot(epoch, curve["mean"], color=color)
            low = np.maximum(curve["mean"] - curve["std"], 1e-6)
            ax.fill_between(epoch, low, curve["mean"] + curve["std"], color=color, alpha=0.2, lw=0)
            why = _against_one_rate([run for _, run in runs.groupby("seed")], column)
            _draw_fit(ax, curve.index.to_numpy(), curve["mean"].to_numpy(), steps_per_epoch, label, color, why)
        ax.set(yscale="log", xlabel="epoch", title=f"noise {RESAMPLE[mode]}")
        ax.legend(loc="upper right", title="one exponential (dashed)?", title_fontsize=6, fontsize=6)
    axes[0, 0].set(ylabel="over its start", ylim=(lowest / 2, 60))
    return figure


CLOCKS = {
    "loss": (r"loss", "C3", "-"),
    "other seed": ("loss of another seed", "C1", "--"),
    "warped": ("loss, time warped", "C2", "--"),
    "shuffled": ("loss, shuffled", "C4", "--"),
    "-sqrt t": (r"$-\sqrt{t}$", "k", ":"),
    "-ln t": (r"$-\ln t$", "0.5", ":"),
}


def nulls(data: pd.DataFrame) -> Figure:
    """1 - correlation of ln|W_NI| with each clock against sigma, and the partial correlations given t.

    data: rows of `nulls.similarities` by resample and sigma; mean and 95 % interval over seeds. In the first panels,
    low is similar; the loss is the thick line. In the last, squares are the partial correlation with another seed's
    loss.
    """
    modes = list(dict.fromkeys(data["resample"]))
    figure, axes = panels(1, len(modes) + 1, height=1.0)
    for ax, mode in zip(axes[0], modes, strict=False):
        runs = data[data["resample"] == mode]
        for number, (name, (label, color, style)) in enumerate(CLOCKS.items()):
            look = {"lw": 1.8 if name == "loss" else 0.9, "marker": "o", "ms": 3, "label": label}
            beside = runs["sigma"] * 1.05 ** (number - 2.5)
            line_with_interval(ax, beside, 1 - runs[name], color=color, ls=style, geometric=True, **look)
        ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", title=f"noise {RESAMPLE[mode]}")
    axes[0, 0].set_ylabel(r"$1-$ correlation")
    last = axes[0, -1]
    for number, (mode, runs) in enumerate(data.groupby("resample", sort=False)):
        for name, marker, style in (("partial", "o", "-"), ("partial, other", "s", ":")):
            of = f"given $t$, {mode}{', another seed' if name != 'partial' else ''}"
            look = {"marker": marker, "ms": 3, "ls": style, "label": of}
            line_with_interval(last, runs["sigma"], runs[name], color=f"C{number}", **look)
    last.axhline(0, color="k", lw=0.6)
    last.set(xscale="log", xlabel=r"noise scale $\sigma$", title="with the loss, given $t$", ylim=(-1.4, 1.4))
    last.set_ylabel("partial correlation")
    legend_below(figure, [axes[0, 0], last], ncols=4, fontsize=6)
    return figure


PREDICTORS = {
    "curvature": r"curvature $\kappa_{avg}/\eta\sigma^2$",
    "trace": r"$\mathrm{tr}\langle H\rangle / d$ without noise",
    "loss": "clean training loss",
}


def interventions(data: pd.DataFrame) -> Figure:
    """The rate of |W_NI| over eta sigma^2 against curvature, tr <H> and loss; one point for each window.

    data: rows of `interventions.rates`. Black: the theory, rate = curvature, without a free parameter; grey dashed: the
    best power law of all points, which theory does not provide.
    """
    figure, axes = panels(1, len(PREDICTORS), height=1.1, sharey=True)
    names = list(dict.fromkeys(data["case"]))
    good = data[data["rate"] > 0]
    for ax, (predictor, label) in zip(axes[0], PREDICTORS.items(), strict=True):
        for number, name in enumerate(names):
            rows = good[good["case"] == name]
            ax.plot(rows[predictor], rows["rate"], "o", ms=2.5, mew=0, alpha=0.7, color=f"C{number}", label=name)
        ends = np.array([good[predictor].min(), good[predictor].max()])
        if predictor == "curvature":
            ax.plot(ends, ends, "k-", lw=0.9, label="theory")
        else:
            slope, level = np.polyfit(np.log(good[predictor]), np.log(good["rate"]), 1)
            ax.plot(ends, np.exp(level) * ends**slope, "--", color="0.5", lw=0.9)
        ax.set(xscale="log", yscale="log", xlabel=label)
    axes[0, 0].set_ylabel(r"rate / $\eta\sigma^2$")
    legend_below(figure, [axes[0, 0]], ncols=4, fontsize=6)
    return figure


LAWS = {
    "full": ("law with its floor", "k", "-"),
    "parallel": ("pull along $W$ only", "C2", "--"),
    "no floor": ("without the floor", "C1", "--"),
    "constant": ("curvature of the start", "0.6", ":"),
}


def clock(data: pd.DataFrame) -> Figure:
    """|W_NI| along training, one panel per sigma: measured (points) and the integrated laws; last: largest deviations.

    data: rows of `clock.compare`; the first seed is drawn, with a band of 2 spreads. Panels show the range of the
    measured values and a factor 5 more; laws that leave it are cut. Last panel: the largest |ln(law / measured)| over
    all snapshots, all seeds as points and their mean, cut at 10.
    """
    scales = sorted(set(data["sigma"]))
    figure, axes = panels(-(-(len(scales) + 1) // 3), 3, height=0.8)
    for ax, sigma in zip(axes.flat, scales, strict=False):
        rows = data[data["sigma"] == sigma]
        run = rows[rows["seed"] == rows["seed"].min()]
        t, spread = run["step"] + 1, np.exp(2 * run["spread"])
        ax.fill_between(t, run["full"] / spread, run["full"] * spread, color="k", alpha=0.15, lw=0)
        for law, (label, color, style) in reversed(LAWS.items()):
            ax.plot(t, run[law], style, color=color, lw=0.9, label=label)
        ax.plot(t, run["niw_norm"], "o", ms=2, mew=0, color="C0", label="measured")
        ax.set(xscale="log", yscale="log", xlabel="step + 1", title=f"{run['phase'].iloc[0]}, $\\sigma$ = {sigma:g}")
        ax.set_ylim(run["niw_norm"].min() / 5, 5 * run["niw_norm"].max())
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_formatter(NullFormatter())
    for ax in axes[:, 0]:
        ax.set_ylabel(r"$|W_{NI}|$")
    for ax in axes.flat[len(scales) + 1 :]:
        ax.axis("off")
    last, table = axes.flat[len(scales)], deviations(data)
    for law, (_, color, style) in LAWS.items():
        rows = table[table["law"] == law].assign(off=lambda t: t["off"].clip(upper=10))
        last.plot(rows["sigma"], rows["off"], "o", ms=2.5, mew=0, alpha=0.6, color=color)
        mean = rows.groupby("sigma")["off"].mean()
        last.plot(mean.index, mean, style, color=color, lw=0.9)
    last.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=r"largest $|\ln|$", title="all seeds")
    legend_below(figure, [axes.flat[0]], ncols=5, fontsize=6)
    return figure


def _against_one_rate(runs: list[pd.DataFrame], column: str) -> str:
    """The most frequent reason against one exponential, "" if one fits more than half of the runs."""
    reasons = [why_not_exponential(fit_decay(run["step"], run[column])) for run in runs]
    against = [reason for reason in reasons if reason]
    return max(set(against), key=against.count) if len(against) >= len(runs) / 2 else ""


def _draw_fit(
    ax: Axes, steps: np.ndarray, values: np.ndarray, steps_per_epoch: float, label: str, color: str, why: str
) -> None:
    fit = fit_decay(steps, values)
    if why := why or why_not_exponential(fit):
        ax.plot([], [], color=color, label=f"{label}: {why}")
        return
    window = np.linspace(*fit.window, 200)
    fitted = fit.amplitude * np.exp(-(window - window[0]) / fit.tau) + fit.floor
    tau = fit.tau / steps_per_epoch
    ax.plot(window / steps_per_epoch, fitted, "--", color=color, lw=0.9,
            label=f"{label}: $\\tau$ = {tau:.3g} epochs")  # fmt: skip

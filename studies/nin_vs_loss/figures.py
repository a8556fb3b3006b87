"""Figures of notebook 03: the noise injection weights beside the loss of the unperturbed network, and why."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nin.figures import panels
from nin.phases import fit_decay
from studies.drawing import line_with_interval

CURVES = {
    "niw_norm": (r"$|W_{NI}|$", "C0"),
    "train_loss": ("training loss", "C1"),
    "test_loss": ("test loss", "C2"),
}
RESAMPLE = {"epoch": "re-drawn every epoch", "fixed": "fixed", "step": "re-drawn every step"}


def evolution(data: pd.DataFrame, *, steps_per_epoch: float) -> Figure:
    """NIW norm, clean training and test loss against epoch, one panel per resampling; mean over seeds, band +- 1 std.

    data: resample, seed, step, niw_norm, train_loss, test_loss. Each curve is divided by its first value; dashed: the
    exponential fit with a floor of the mean curve (`phases.fit_decay`) in its window.
    """
    modes = list(dict.fromkeys(data["resample"]))
    figure, axes = panels(1, len(modes), height=0.85, sharey=True)
    for ax, mode in zip(axes[0], modes, strict=True):
        for column, (label, color) in CURVES.items():
            runs = data[data["resample"] == mode].dropna(subset=[column])
            start = runs.sort_values("step").groupby("seed")[column].transform("first")
            curve = (runs[column] / start).groupby(runs["step"]).agg(["mean", "std"]).fillna(0)
            epoch = curve.index / steps_per_epoch
            ax.plot(epoch, curve["mean"], color=color)
            low = np.maximum(curve["mean"] - curve["std"], 1e-6)
            ax.fill_between(epoch, low, curve["mean"] + curve["std"], color=color, alpha=0.2, lw=0)
            _draw_fit(ax, curve.index.to_numpy(), curve["mean"].to_numpy(), steps_per_epoch, label, color)
        ax.set(yscale="log", xlabel="epoch", title=f"noise {RESAMPLE[mode]}")
        ax.legend(loc="upper right", title="exponential fit (dashed)", title_fontsize=6, fontsize=6)
    axes[0, 0].set(ylabel="over its start", ylim=(5e-4, 60))
    return figure


def similarity(data: pd.DataFrame) -> Figure:
    """Correlation of the log curves, exponent and ratio of decay times against sigma; mean, 95 % interval over seeds.

    data: rows of `measure.similarity`. The thin line marks 1, the value of weights that follow the loss exactly.
    """
    figure, axes = panels(1, 3, height=1.0)
    labels = {
        "correlation": "correlation of the logs",
        "exponent": r"exponent $b$, $|W|\sim L^b$",
        "ratio": r"ratio of $\tau$, NIW / loss",
    }
    for ax, (column, label) in zip(axes[0], labels.items(), strict=True):
        for number, (mode, runs) in enumerate(data.groupby("resample")):
            look = {"color": f"C{number}", "marker": "o", "label": RESAMPLE[mode]}
            line_with_interval(ax, runs["sigma"], runs[column], **look)
        ax.axhline(1, color="k", lw=0.6)
        ax.set(xscale="log", xlabel=r"noise scale $\sigma$", ylabel=label)
    axes[0, 0].set_ylim(0, 1.05)
    axes[0, 2].set_yscale("log")
    axes[0, 0].legend(loc="lower left", fontsize=6)
    return figure


def mechanism(data: pd.DataFrame) -> Figure:
    """Left: <tr(diag p - p p^T)> under its bound 2 ell, and tr <H> at the node; right: the rate of the NIW.

    data: rows of `measure.curvature_clock`, several seeds of one sigma; points are runs, lines their mean.
    """
    figure, axes = panels(1, 2, height=0.85)
    mean = data.groupby("step").mean(numeric_only=True)
    left, right = axes[0]
    left.plot(mean.index + 1, 2 * mean["loss"], "k--", lw=0.9, label=r"bound $2\ell$")
    for column, label, color in [
        ("softmax_trace", r"$\langle\mathrm{tr}(\mathrm{diag}\,p-pp^T)\rangle$", "C1"),
        ("layer_trace", r"$\mathrm{tr}\langle H\rangle$ at the node", "C0"),
    ]:
        left.plot(mean.index + 1, mean[column], color=color, label=label)
        left.plot(data["step"] + 1, data[column], "o", color=color, alpha=0.5, mew=0)
    left.set(xscale="log", yscale="log", xlabel="step + 1", ylabel="curvature, loss")
    left.legend(loc="lower left")
    right.plot(mean.index + 1, mean["rate"], "k--", lw=0.9, label=r"predicted, $\kappa_{avg}$")
    right.plot(data["step"] + 1, data["rate"], "o", color="k", alpha=0.4, mew=0)
    right.plot(mean.index + 1, mean["measured_rate"], color="C0", label=r"measured, $-d\ln|W_{NI}|/dt$")
    right.plot(data["step"] + 1, data["measured_rate"], "o", color="C0", alpha=0.5, mew=0)
    right.set(xscale="log", yscale="log", xlabel="step + 1", ylabel="rate [1/step]")
    right.legend(loc="lower left")
    return figure


def _draw_fit(ax: Axes, steps: np.ndarray, values: np.ndarray, steps_per_epoch: float, label: str, color: str) -> None:
    fit = fit_decay(steps, values)
    if not np.isfinite(fit.tau):
        ax.plot([], [], color=color, label=f"{label}: no decay")
        return
    window = np.linspace(*fit.window, 200)
    fitted = fit.amplitude * np.exp(-(window - window[0]) / fit.tau) + fit.floor
    tau = fit.tau / steps_per_epoch
    note = ", several rates" if fit.several_rates else ""
    ax.plot(window / steps_per_epoch, fitted, "--", color=color, lw=0.9,
            label=f"{label}: $\\tau$ = {tau:.3g} epochs{note}")  # fmt: skip

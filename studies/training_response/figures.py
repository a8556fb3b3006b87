"""Figures of notebook 08: how the training response ages, its factors, and what training does to features."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from nin.figures import PHASE_COLORS, panels
from studies.drawing import line_with_interval
from studies.statistics import geometric_band

LOSSES = {"mse": "MSE", "ce": "CE", "sigmoid_mse": "sigmoid + MSE"}
COLORS = {"tanh": "C0", "relu": "C1", "sigmoid": "C2", "leaky_relu": "C3"}
METHODS = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam"}


def constant_kernel(data: pd.DataFrame) -> Figure:
    """A constant kernel ages: response of the logit, of p, and error; data: loss, step, logit, p, error."""
    figure, axes = panels(1, 3, height=1.0, sharex=True)
    for ax, (quantity, label) in zip(
        axes[0], {"logit": "response of the logit", "p": "response of $p$", "error": "error $1-p$"}.items(), strict=True
    ):
        for number, (loss, rows) in enumerate(data.groupby("loss", sort=False)):
            ax.plot(rows["step"], rows[quantity], "o", color=f"C{number}", mfc="w", ms=3, label=LOSSES[loss])
            law = rows[f"{quantity}_law"]
            ax.plot(rows["step"], law, "-", color=f"C{number}", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="step", title=label)
    axes[0, 0].legend(fontsize=6, title="lines: exponents", title_fontsize=6)
    return figure


def aging(data: pd.DataFrame, *, low: float, high: float) -> Figure:
    """Response (top) and kernel (bottom) against step, one column per loss; data: activation, loss, seed, step, ..."""
    losses = list(dict.fromkeys(data["loss"]))
    figure, axes = panels(2, len(losses), height=0.9, sharex=True, sharey="row")
    for column, loss in enumerate(losses):
        for row, quantity in enumerate(("response", "self_kernel")):
            ax = axes[row, column]
            for activation, rows in data[data["loss"] == loss].groupby("activation", sort=False):
                look = {"color": COLORS[activation], "lw": 1, "label": activation}
                line_with_interval(ax, rows["step"] + 1, rows[quantity], geometric=True, band=True, **look)
            ax.axvspan(low, high, color="0.5", alpha=0.1, lw=0)
        axes[0, column].set_title(LOSSES[loss])
        axes[1, column].set_xlabel("step + 1")
    axes[0, 0].set(xscale="log", yscale="log", ylabel=r"mean $|R(x_i|x_i)|$", ylim=(1e-8, 10))
    axes[1, 0].set(yscale="log", ylabel=r"mean $\Theta(x_i,x_i)$")
    axes[0, 0].legend(fontsize=6, loc="lower left")
    return figure


def factors(data: pd.DataFrame, *, distances: Sequence[dict] = ()) -> Figure:
    """Share of the output weights in the kernel against step, one panel per loss; and the kernel's profile.

    data: activation, loss, step, output_share; distances: records state, distance, value of the kernel's profile.
    """
    losses = list(dict.fromkeys(data["loss"]))
    figure, axes = panels(1, len(losses) + 1, height=1.0)
    for ax, loss in zip(axes[0], losses, strict=False):
        for activation, rows in data[data["loss"] == loss].groupby("activation", sort=False):
            mean = rows.groupby("step")["output_share"].mean()
            ax.plot(mean.index + 1, mean, color=COLORS[activation], lw=1, label=activation)
        ax.set(xscale="log", xlabel="step + 1", title=LOSSES[loss], ylim=(0, None))
    axes[0, 0].set_ylabel("output weights' share")
    axes[0, 0].legend(fontsize=6)
    ax = axes[0, -1]
    for number, (state, rows) in enumerate(pd.DataFrame(distances).groupby("state", sort=False)):
        mean = rows.groupby("distance")["value"].mean()
        ax.plot(mean.index, mean, "o-", color=f"C{4 + number}", mfc="w", ms=3, lw=0.8, label=state)
    ax.set(xlabel="Hamming d", title=r"$\Theta(d)/\Theta(0)$")
    ax.legend(fontsize=6)
    return figure


def methods(data: pd.DataFrame) -> Figure:
    """The response against step for SGD, momentum and Adam; data: method, seed, step, response."""
    figure, axes = panels(1, 2, height=0.8, width_ratios=[1, 0.4])
    for number, (method, rows) in enumerate(data.groupby("method", sort=False)):
        bands = rows.groupby("step")["response"].agg(geometric_band)
        axes[0, 0].plot(
            bands.index + 1, [b.mean for b in bands], "o-", color=f"C{number}", mfc="w", label=METHODS[method]
        )
    axes[0, 0].set(xscale="log", yscale="log", xlabel="step + 1", ylabel=r"mean $|R(x_i|x_i)|$")
    axes[0, 1].set_axis_off()
    axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left")
    return figure


def splitting(data: pd.DataFrame) -> Figure:
    """(1 - across) / (1 - within) of y = sign x against step; data: activation, seed, step, ratio."""
    figure, axes = panels(1, 2, height=0.8, width_ratios=[1, 0.4])
    for activation, rows in data.groupby("activation", sort=False):
        for _, run in rows.groupby("seed"):
            axes[0, 0].plot(run["step"] + 1, run["ratio"], color=COLORS[activation], lw=0.8, label=activation)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="step + 1", ylabel="(1 - across) / (1 - within)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 1].set_axis_off()
    unique = dict(zip(labels, handles, strict=True))
    axes[0, 1].legend(unique.values(), unique, loc="center left")
    return figure


def stochastic(data: pd.DataFrame) -> Figure:
    """Left: eta mean Theta at the end against eta (study "cap"); right: mean Theta against eta^2 sigma^2 t ("noise").

    data: study, activation, eta, sigma, seed, step, u, stability, self_kernel.
    """
    figure, axes = panels(1, 2, height=0.8)
    cap = data[data["study"] == "cap"].dropna(subset=["stability"])
    for activation, rows in cap.groupby("activation", sort=False):
        look = {"color": COLORS[activation], "marker": "o", "label": activation}
        line_with_interval(axes[0, 0], rows["eta"], rows["stability"], **look)
    axes[0, 0].axhline(2, color="k", lw=0.8, ls="--")
    axes[0, 0].set(
        xscale="log", xlabel=r"learning rate $\eta$", ylabel=r"$\eta$ mean $\Theta_{ii}$ at the end", ylim=(0, 2.3)
    )
    axes[0, 0].xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].legend(fontsize=6)
    styles = ("-", "--", ":", "-.")
    for activation, rows in data[data["study"] == "noise"].groupby("activation", sort=False):
        for style, ((eta, sigma), run) in zip(styles, rows.groupby(["eta", "sigma"]), strict=False):
            mean = run[run["u"] > 0.02].groupby("u")["self_kernel"].mean()
            label = rf"{activation}, $\eta={eta:g}$, $\sigma={sigma:g}$"
            axes[0, 1].plot(mean.index, mean, ls=style, color=COLORS[activation], lw=1, label=label)
    axes[0, 1].set(xscale="log", yscale="log", xlabel=r"$\eta^2\sigma^2t$", ylabel=r"mean $\Theta(x_i,x_i)$")
    axes[0, 1].yaxis.set_minor_formatter(NullFormatter())
    axes[0, 1].legend(fontsize=5)
    return figure


def features(data: pd.DataFrame) -> Figure:
    """Effective rank and participation by method of training; data: training, activation, seed, effective_rank, ..."""
    figure, axes = panels(1, 2, height=0.8)
    trainings = list(dict.fromkeys(data["training"]))
    for ax, quantity in zip(axes[0], ("effective_rank", "participation"), strict=True):
        for number, (activation, rows) in enumerate(data.groupby("activation", sort=False)):
            look = {"color": COLORS[activation], "marker": "o", "ls": "", "label": activation}
            line_with_interval(ax, rows["training"].map(trainings.index) + 0.1 * number, rows[quantity], **look)
        ax.set_xticks(range(len(trainings)), trainings, fontsize=6)
        ax.set(title=quantity.replace("_", " "), ylim=(0, None))
    axes[0, 0].legend(fontsize=6)
    return figure


def fragility(data: pd.DataFrame) -> Figure:
    """Four measures before and after training, by activation; data: state, activation, loss, and the measures."""
    measures = {
        "flips": "flips by noise",
        "worst_neuron": "worst neuron",
        "weight_noise": "weight noise",
        "margin": "margin",
    }
    figure, axes = panels(1, 4, height=1.1)
    states = list(dict.fromkeys(data["state"]))
    for ax, (measure, label) in zip(axes[0], measures.items(), strict=True):
        for number, (activation, rows) in enumerate(data.groupby("activation", sort=False)):
            look = {"color": COLORS[activation], "marker": "o", "lw": 0.8, "label": activation}
            line_with_interval(ax, rows["state"].map(states.index) + 0.08 * number, rows[measure], **look)
        ax.set_xticks(range(len(states)), states)
        ax.set_title(label, fontsize=7)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def plasticity(data: pd.DataFrame, *, cap: float) -> Figure:
    """Steps to relearn flipped labels against the steps trained before; data: loss, seed, before, relearning."""
    figure, axes = panels(1, 2, height=0.8, width_ratios=[1, 0.4])
    for number, (loss, rows) in enumerate(data.groupby("loss", sort=False)):
        look = {"color": f"C{number}", "marker": "o", "label": LOSSES[loss]}
        line_with_interval(axes[0, 0], rows["before"], rows["relearning"], geometric=True, **look)
    axes[0, 0].axhline(cap, color="k", lw=0.8, ls="--")
    axes[0, 0].set(xscale="log", yscale="log", xlabel="steps before the flip", ylabel="steps to relearn")
    axes[0, 1].set_axis_off()
    axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left", title="dashed: not relearned")
    return figure


def phases(data: pd.DataFrame) -> Figure:
    """Response, kernel and node of the digits' networks along runs, coloured by phase; data: sigma, phase, step, ..."""
    figure, axes = panels(1, 3, height=0.9)
    labels = {"response": r"mean $|R|$", "self_kernel": r"mean $\Theta$", "niw_norm": r"$|W_{NI}|$"}
    for ax, (quantity, label) in zip(axes[0], labels.items(), strict=True):
        for (sigma, phase), rows in data.groupby(["sigma", "phase"], sort=False):
            ax.plot(rows["step"] + 1, rows[quantity], "o-", color=PHASE_COLORS[phase], mfc="w", ms=3, lw=0.9,
                    label=rf"{phase}, $\sigma={sigma:g}$")  # fmt: skip
        calm = data.loc[data["phase"] != "divergent", quantity]
        top, bottom = (10 * calm.max(), calm.min() / 2) if len(calm) else (None, None)
        ax.set(xscale="log", yscale="log", xlabel="step + 1", title=label, ylim=(bottom, top))
        ax.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure

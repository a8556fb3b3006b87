"""Figures of notebook 04: the top of <H> along training, the stability number, and the accuracy of the readings."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nin.figures import PHASE_COLORS, panels
from nin.phases import PHASES

RANKS = ("C0", "C1", "C2", "C3", "C4")
TOP = 1e3  # of the stability numbers and losses shown; divergent runs go on


def spectrum(data: pd.DataFrame) -> Figure:
    """The top three eigenvalues of <H> against step, one panel per phase: exact (points), thermometer (lines).

    data: phase, sigma, step, method ("exact", "thermometer"), rank, value, stderr of one seed; with method "NIW
    decay", the curvature from the decay of the node's plain weights, at the middle of its window of steps (star).
    Bands: one stderr.
    """
    phases = [phase for phase in PHASES if phase in set(data["phase"])]
    figure, axes = panels(-(-len(phases) // 2), 2, height=0.6, sharey=True, sharex=True)
    for ax in axes.flat[len(phases) :]:
        ax.set_axis_off()
    for ax, phase in zip(axes.flat, phases, strict=False):
        runs = data[data["phase"] == phase]
        for rank in (3, 2, 1):
            color, rows = RANKS[rank - 1], runs[runs["rank"] == rank]
            read = rows[(rows["method"] == "thermometer") & (rows["value"] > 0)]
            ax.plot(read["step"] + 1, read["value"], color=color, lw=0.9, label=f"$\\lambda_{rank}$")
            low, high = read["value"] - read["stderr"], read["value"] + read["stderr"]
            ax.fill_between(read["step"] + 1, low.clip(1e-5), high, color=color, alpha=0.2, lw=0)
            exact = rows[rows["method"] == "exact"]
            ax.plot(exact["step"] + 1, exact["value"], "o", color=color, mfc="w", mew=0.9, ms=3.5)
        decay = runs[runs["method"] == "NIW decay"]
        ax.errorbar(decay["step"] + 1, decay["value"], decay["stderr"], fmt="k*", ms=6, capsize=2, label="NIW decay")
        ax.set(xscale="log", yscale="log", title=f"{phase}, $\\sigma$ = {runs['sigma'].iloc[0]:.4g}")
    stars = data.loc[(data["method"] == "NIW decay") & (data["value"] > 2 * data["stderr"]), "value"]
    axes[0, 0].set_ylim(min([1e-3, *stars / 2]), 5)
    for ax in axes[:, 0]:
        ax.set_ylabel(r"top of $\langle H\rangle$")
    for ax in axes.flat[: len(phases)][-2:]:  # the lowest of each column
        ax.set_xlabel("step + 1")
        ax.tick_params(labelbottom=True)
    axes[0, 0].legend(loc="upper right", title="points: exact", title_fontsize=6, fontsize=6, ncols=2)
    return figure


def stability(data: pd.DataFrame) -> Figure:
    """Stability number eta lambda against step: of the network without noise, and of weights and NIW under noise.

    data: phase, seed, step, eta_sharpness, eta_noisy_sharpness, noisy_loss. Lines are means over seeds, points are
    runs; gradient descent is unstable above the line at 2. Divergent runs are cut at TOP.
    """
    figure, axes = panels(1, 3, height=1.0)
    titles = {
        "eta_sharpness": r"$\eta\lambda$, network alone",
        "eta_noisy_sharpness": r"$\eta\lambda$, with the node",
        "noisy_loss": "noisy training loss",
    }
    for ax, (column, label) in zip(axes[0], titles.items(), strict=True):
        for phase in [phase for phase in PHASES if phase in set(data["phase"])]:
            runs = data[data["phase"] == phase].dropna(subset=[column])
            mean = runs.groupby("step")[column].mean()
            ax.plot(mean.index + 1, mean, color=PHASE_COLORS[phase], label=phase, lw=1.0)
            if column != "noisy_loss":
                ax.plot(runs["step"] + 1, runs[column], "o", color=PHASE_COLORS[phase], alpha=0.4, mew=0)
        if column != "noisy_loss":
            ax.axhline(2, color="k", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="step + 1", ylabel=label)
        ax.set_ylim(top=min(ax.get_ylim()[1], TOP))
    axes[0, 2].set_ylim(1e-3, TOP)
    axes[0, 2].legend(loc="lower left", fontsize=6)
    return figure


def accuracy(data: pd.DataFrame) -> Figure:
    """Thermometer against exact eigenvalue, and their difference in units of the error bar.

    data: activation, rank, exact, value, stderr over steps and seeds.
    """
    figure, axes = panels(1, 2, height=0.8)
    left, right = axes[0]
    for color, (activation, rows) in zip(RANKS, data.groupby("activation"), strict=False):
        left.errorbar(rows["exact"], rows["value"], rows["stderr"], fmt="o", color=color, ms=2, elinewidth=0.5,
                      alpha=0.5, label=activation)  # fmt: skip
    ends = np.array([data["exact"].min(), data["exact"].max()])
    left.plot(ends, ends, "k--", lw=0.8, label="equal")
    left.set(xscale="log", yscale="log", xlabel=r"exact eigenvalue of $\langle H\rangle$", ylabel="thermometer")
    left.legend(loc="upper left")
    score = ((data["value"] - data["exact"]) / data["stderr"]).clip(-4, 4)
    bins = np.linspace(-4, 4, 33)
    right.hist(score, bins=bins, density=True, color="C0", alpha=0.5, label="measured")
    right.plot(bins, np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi), "k--", lw=0.8, label="unit Gaussian")
    right.set(xlabel="(thermometer - exact) / stderr", ylabel="density")
    right.set_ylim(top=1.25 * right.get_ylim()[1])  # room for the legend
    right.legend(loc="upper center", ncols=2, fontsize=6)
    return figure


def decay(data: pd.DataFrame) -> Figure:
    """Curvature read from plain NIW against the exact one; data: network, read, stderr, exact, one row per seed."""
    figure, axes = panels(1, 2, height=0.8)
    for ax, linear in zip(axes[0], (True, False), strict=True):
        rows = data[(data["network"] == "linear net") == linear]
        for color, (network, points) in zip(RANKS, rows.groupby("network"), strict=False):
            ax.errorbar(
                points["exact"], points["read"], points["stderr"], fmt="o", color=color, capsize=2, label=network
            )
        ends = np.array([rows["exact"].min(), rows["exact"].max()]) * np.array([0.95, 1.05])
        ax.plot(ends, ends, "k--", lw=0.8, label="equal")
        within = 0.02 if linear else 0.25
        ax.fill_between(
            ends, ends * (1 - within), ends * (1 + within), color="k", alpha=0.1, lw=0, label=f"{within:.0%}"
        )
        ax.set(xlabel=r"exact $v\cdot\langle H\rangle v$", ylabel=r"from the decay of $W_{NI}$")
        ax.legend(loc="upper left", fontsize=6)
    return figure


def amplitudes(data: pd.DataFrame) -> Figure:
    """Reading of a thermometer of amplitude A on a network that does not train, one panel per activation.

    data: activation, amplitude, read, stderr, averaged, averaged_stderr, autograd.
    """
    activations = list(dict.fromkeys(data["activation"]))
    figure, axes = panels(1, len(activations), height=0.8, sharey=True)
    for ax, activation in zip(axes[0], activations, strict=True):
        rows = data[data["activation"] == activation]
        ax.errorbar(
            rows["amplitude"], rows["read"], rows["stderr"], fmt="o-", color="C0", capsize=2, label="thermometer"
        )
        ax.errorbar(rows["amplitude"], rows["averaged"], rows["averaged_stderr"], fmt="s:", color="C1", mfc="w",
                    label="noise-averaged, directly")  # fmt: skip
        ax.plot(rows["amplitude"], rows["autograd"], "k--", lw=0.9, label="autograd's Hessian")
        ax.set(xscale="log", xlabel="amplitude $A$", title=activation)
    axes[0, 0].set(ylabel="curvature, top direction", ylim=(0, None))
    axes[0, 0].legend(loc="upper left", fontsize=6)
    return figure


def sharpening(data: pd.DataFrame) -> Figure:
    """Stability number and top of <H> along full-batch training, one column per network.

    data: network, rule, step, eta, value, stderr, exact, sharpness as in `sharpening.sharpen`; of the rule "fixed".
    Top: eta times the sharpness, above 2 unstable. Bottom: thermometer (line, band of two stderr), Lanczos (points),
    and the value at the start (dashes), which a rule without a thermometer would have to use.
    """
    data = data[data["rule"] == "fixed"]
    networks = list(dict.fromkeys(data["network"]))
    figure, axes = panels(2, len(networks), height=0.7, sharex=True)
    for (top, bottom), network in zip(axes.T, networks, strict=True):
        rows = data[data["network"] == network]
        looks = rows.dropna(subset=["exact"])
        top.plot(looks["step"], looks["eta"] * looks["sharpness"], "o-", color="C3", lw=0.9)
        top.axhline(2, color="k", lw=0.8)
        top.set(title=network, ylim=(0, 1.1 * (looks["eta"] * looks["sharpness"]).max()))
        bottom.plot(rows["step"], rows["value"], color="C0", lw=0.9, label="thermometer")
        low, high = rows["value"] - 2 * rows["stderr"], rows["value"] + 2 * rows["stderr"]
        bottom.fill_between(rows["step"], low.clip(0), high, color="C0", alpha=0.25, lw=0)
        bottom.plot(looks["step"], looks["exact"], "o", color="k", mfc="w", ms=3.5, label="Lanczos")
        bottom.axhline(looks["exact"].iloc[0], color="C1", ls="--", lw=0.8, label="value at the start")
        bottom.set(xlabel="step", ylim=(0, 1.15 * max(looks["exact"].max(), rows["value"].max())))
    axes[0, 0].set_ylabel(r"$\eta\lambda$, all weights")
    axes[1, 0].set_ylabel(r"top of $\langle H\rangle$")
    axes[1, 0].legend(loc="lower right", fontsize=6)
    return figure

"""Figures of notebook 02: trajectories by phase, decay times against the noise scale, the phase diagram."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nin.figures import PHASE_COLORS, panels
from nin.phases import PHASES, majority
from studies.drawing import line_with_range


def trajectories(data: pd.DataFrame) -> Figure:
    """Noisy loss and |W_NI| / |W_NI(0)| against step; one colour per phase, the first seed bold and the others thin.

    data: phase, sigma, seed, step, noisy_loss, niw_norm.
    """
    figure, axes = panels(1, 2, height=0.8)
    for phase in [p for p in PHASES if p in set(data["phase"])]:
        runs = data[data["phase"] == phase]
        for seed, run in runs.groupby("seed"):
            first = seed == runs["seed"].min()
            look = {"color": PHASE_COLORS[phase], "lw": 1.3 if first else 0.5, "alpha": 1 if first else 0.5}
            label = f"{phase}, $\\sigma$ = {run['sigma'].iloc[0]:.3g}" if first else None
            axes[0, 0].plot(run["step"] + 1, run["noisy_loss"], label=label, **look)
            axes[0, 1].plot(run["step"] + 1, run["niw_norm"] / run["niw_norm"].iloc[0], **look)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="step + 1", ylabel="noisy training loss", ylim=(1e-3, 1e3))
    axes[0, 1].set(xscale="log", yscale="log", xlabel="step + 1", ylabel=r"$|W_{NI}|\,/\,|W_{NI}(0)|$", ylim=(2e-2, 50))
    axes[0, 0].legend(loc="lower left")
    return figure


def decay_times(data: pd.DataFrame, *, sigma_cat: float, eta: float, lambda_H: float, steps: int) -> Figure:
    """Decay times of NIW, training and test loss against sigma, with the four regions, slope -2 and sigma_cat.

    data: one row per run as in `phases.summarise`, and tau_initial = 1 / kappa_avg. Lines are medians over seeds, bands
    their range. sigma_cat and lambda_H (median over seeds) are measured on the plain network at step 0.
    """
    figure, axes = panels(1, 1, height=0.55)
    ax = axes[0, 0]
    shade_phases(ax, data)
    curves = {
        "tau_niw": (r"$\tau$ of $|W_{NI}|$", "C0", "o", "-"),
        "tau_train": (r"$\tau$ of training loss", "C1", "s", "-"),
        "tau_test": (r"$\tau$ of test loss", "C2", "^", "-"),
        "tau_initial": (r"$1/\kappa_{avg}$, initial rate of $|W_{NI}|$", "0.3", "D", ":"),
    }
    for column, (label, color, marker, line) in curves.items():
        finite = data[np.isfinite(data[column]) & (data[column] > 0)]
        look = {"color": color, "marker": marker, "ls": line, "mfc": "w", "mew": 0.8, "label": label}
        line_with_range(ax, finite["sigma"], finite[column], center="median", **look)
    small = data[(data["tau_initial"] > 0) & (data["kappa_H"] < 0.05)]
    if len(small):
        sigma = np.array([small["sigma"].min(), data["sigma"].max()])
        constant = np.exp(np.log(small["tau_initial"] * small["sigma"] ** 2).median())
        ax.plot(sigma, constant / sigma**2, "k--", lw=0.8, label=r"theory, slope $-2$")
    ax.axvline(sigma_cat, color="k", lw=0.8)
    ax.annotate(r"$\sigma_{cat}=\sqrt{2/\eta\lambda}$", (sigma_cat, 0.86), (-3, 0), ha="right", va="top",
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=r"decay time $\tau$ [steps]")
    ax.set_ylim(3, 30 * steps)
    ax.set_xlim(data["sigma"].min(), data["sigma"].max())
    top = ax.secondary_xaxis("top", functions=(lambda s: eta * s**2 * lambda_H, lambda k: np.sqrt(k / eta / lambda_H)))
    top.set_xlabel(r"$\kappa_H=\eta\sigma^2\lambda_{max}(\langle H\rangle_0)$")
    ax.legend(loc="lower left", ncols=1, fontsize=6)
    return figure


def phase_diagram(data: pd.DataFrame, *, lambda_H: float, kappa_max: float) -> Figure:
    """The phase of each (sigma, eta), with kappa_H = 2 and the measured kappa_max.

    data: sigma, lr, phase (the majority over seeds) on a grid; lambda_H the median over seeds at step 0.
    """
    figure, axes = panels(1, 1, height=0.62)
    ax = axes[0, 0]
    codes = data.assign(code=data["phase"].map(PHASES.index)).pivot(index="lr", columns="sigma", values="code")
    sigma, eta = codes.columns.to_numpy(), codes.index.to_numpy()
    colors = ListedColormap([PHASE_COLORS[phase] for phase in PHASES])
    ax.pcolormesh(sigma, eta, codes, cmap=colors, vmin=-0.5, vmax=len(PHASES) - 0.5, alpha=0.55, shading="nearest")
    for kappa, line, label in [
        (2, "k-", r"$\kappa_H=2$"),
        (kappa_max, "k--", rf"$\kappa_H={kappa_max:.0f}$, measured"),
    ]:
        ax.plot(np.sqrt(kappa / (eta * lambda_H)), eta, line, label=label, lw=1)
    ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=r"learning rate $\eta$")
    ax.set_xlim(_edges(sigma))
    ax.set_ylim(_edges(eta))
    ax.grid(False)
    patches = [Patch(color=PHASE_COLORS[phase], alpha=0.55, label=phase) for phase in PHASES]
    figure.legend(handles=patches + ax.get_legend_handles_labels()[0], loc="outside right center")
    return figure


def shade_phases(ax: Axes, data: pd.DataFrame) -> None:
    """Shade the sigma axis by the phase of most runs at each sigma; data: sigma, phase."""
    found = majority(data)
    sigma = found["sigma"].to_numpy()
    middles = np.sqrt(sigma[1:] * sigma[:-1])
    edges = np.concatenate([sigma[:1], middles, sigma[-1:]])
    for phase in PHASES:
        inside = np.flatnonzero(found["phase"] == phase)
        for index in inside:
            ax.axvspan(edges[index], edges[index + 1], color=PHASE_COLORS[phase], alpha=0.15, lw=0)
        if len(inside):
            center = np.sqrt(edges[inside[0]] * edges[inside[-1] + 1])
            ax.annotate(phase, (center, 0.97), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=7)


def _edges(values: np.ndarray) -> tuple[float, float]:
    """Outer edges of the cells of a log grid."""
    half = np.sqrt(values[1] / values[0])
    return values[0] / half, values[-1] * half

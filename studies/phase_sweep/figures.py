"""Figures of notebook 02: trajectories by phase, decay times against the noise scale, the phase diagram."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nin.figures import PHASE_COLORS, panels
from nin.phases import OUTCOMES, PHASES, SPIKE, majority, vote
from studies.drawing import line_with_interval, line_with_range


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


def decay_times(
    data: pd.DataFrame, *, sigma_cat: float, eta: float, lambda_H: float, steps: int, sigma_one: float | None = None
) -> Figure:
    """Decay times of NIW, training and test loss against sigma, with the four regions, slope -2 and sigma_cat.

    data: one row per run as in `phases.summarise`, and tau_initial = 1 / kappa_avg. Lines are medians over seeds, bands
    their range. sigma_cat and lambda_H (median over seeds) are measured on the plain network at step 0; sigma_one is
    the noise scale with kappa_1 = 2.
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
        ax.plot(sigma, constant / sigma**2, "k--", lw=0.8, label=r"slope $-2$ through these")
    ax.axvline(sigma_cat, color="k", lw=0.8)
    ax.annotate(r"$\sigma_{cat}=\sqrt{2/\eta\lambda}$", (sigma_cat, 0.86), (-3, 0), ha="right", va="top",
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7)  # fmt: skip
    if sigma_one:
        ax.axvline(sigma_one, color="k", lw=1.2, ls="-.", label=r"$\kappa_1=2$, predicted")
    ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=r"decay time $\tau$ [steps]")
    ax.set_ylim(3, 30 * steps)
    ax.set_xlim(data["sigma"].min(), data["sigma"].max())
    top = ax.secondary_xaxis("top", functions=(lambda s: eta * s**2 * lambda_H, lambda k: np.sqrt(k / eta / lambda_H)))
    top.set_xlabel(r"$\kappa_H=\eta\sigma^2\lambda_{max}(\langle H\rangle_0)$")
    figure.legend(loc="outside right center", fontsize=6)
    return figure


def phase_map(data: pd.DataFrame, *, borders: dict[str, list[float]], rival: dict[str, list[float]]) -> Figure:
    """The phase of each (sigma, eta), with the borders predicted before any run, and those of kappa_H.

    data: sigma, lr, phase (of most seeds), agree (fraction of seeds with that phase: paler where they differ), plain;
    hatched where plain SGD spikes or diverges by itself. borders, rival: as from `measure.borders`, by column.
    """
    figure, axes = panels(1, 1, height=0.62)
    ax = axes[0, 0]
    codes, agree = (
        data.assign(code=data["phase"].map(OUTCOMES.index)).pivot(index="lr", columns="sigma", values=values)
        for values in ("code", "agree")
    )
    sigma, eta = codes.columns.to_numpy(), codes.index.to_numpy()
    colors = ListedColormap([PHASE_COLORS[phase] for phase in OUTCOMES])
    shown = colors((codes.to_numpy() + 0.5) / len(OUTCOMES))
    shown[..., 3] = 0.1 + 0.55 * agree.to_numpy()
    ax.pcolormesh(_cells(sigma), _cells(eta), shown)
    plain = data.groupby("lr")["plain"].agg(lambda column: column.mode().iloc[0]) != "stable"
    between = _cells(eta)
    for row in np.flatnonzero(plain.to_numpy()):
        ax.axhspan(between[row], between[row + 1], facecolor="none", edgecolor="0.35", hatch="////", lw=0)
    ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", ylabel=r"learning rate $\eta$")
    for lines, look, labels in [
        (
            borders,
            {"color": "k", "lw": 1.2},
            (
                r"$-\ln 0.9$ lost in $T$ steps",
                r"$\eta_1$: $\kappa_1=2$",
                "divergence",
            ),
        ),
        (rival, {"color": "#a50026", "lw": 1.0}, (None, r"$\kappa_H=2$", r"$\kappa_H=4$")),
    ]:
        for phase, style, label in zip(("decay", "catapult", "divergent"), (":", "-", "--"), labels, strict=True):
            if label:
                ax.plot(lines["sigma"], lines[phase], ls=style, label=label, **look)
    ax.set_xlim(_edges(sigma))
    ax.set_ylim(_edges(eta))
    ax.grid(False)
    there = [phase for phase in OUTCOMES if phase in set(data["phase"])]
    patches = [Patch(color=PHASE_COLORS[phase], alpha=0.65, label=phase) for phase in there]
    patches.append(Patch(facecolor="none", edgecolor="0.35", hatch="////", label="plain SGD unstable"))
    figure.legend(handles=patches + ax.get_legend_handles_labels()[0], loc="outside right center")
    return figure


def one_mode(data: pd.DataFrame) -> Figure:
    """Decay time along the top mode of <H> against sigma, network frozen, with the prediction; one panel an activation.

    data: activation, seed, sigma, tau, theory, of_hessian.
    """
    names = list(dict.fromkeys(data["activation"]))
    figure, axes = panels(1, len(names), height=0.8, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        rows = data[data["activation"] == name]
        line_with_interval(
            ax, rows["sigma"], rows["tau"], color="C0", geometric=True, marker="o", ls="", label="measured"
        )
        lines = {
            "theory": ("k-", r"theory, noise-averaged $\lambda$"),
            "of_hessian": ("k:", r"theory, autograd's $\lambda_{max}$"),
        }
        for column, (look, label) in lines.items():
            mean = np.exp(np.log(rows[column]).groupby(rows["sigma"]).mean())
            ax.plot(mean.index, mean, look, lw=0.9, label=label)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$", title=name)
    axes[0, 0].set_ylabel(r"decay time [steps]")
    axes[0, 0].legend(loc="lower left")
    return figure


def optimisers(data: pd.DataFrame) -> Figure:
    """The height of the spike and what is left of |W_NI| against sigma, one line an optimiser, coloured by phase.

    data: optimiser, seed, sigma, spike, kept, phase. Lines are medians over seeds.
    """
    figure, axes = panels(1, 2, height=0.85)
    markers = dict(zip(dict.fromkeys(data["optimiser"]), zip("os^Dv", (8, 22, 44, 14, 30), strict=True), strict=False))
    for column, ax in zip(("spike", "kept"), axes[0], strict=True):
        for name, (marker, size) in markers.items():  # of different sizes, as some optimisers coincide
            rows = data[data["optimiser"] == name]
            middle = rows[column].clip(1e-3, 1e4).groupby(rows["sigma"]).median()
            ax.plot(middle.index, middle, color="0.6", lw=0.8, zorder=1)
            phase = rows.groupby("sigma")["phase"].agg(vote)
            colors = [PHASE_COLORS[p] for p in phase]
            look = {"marker": marker, "s": size, "lw": 1}
            ax.scatter(middle.index, middle, facecolors="none", edgecolors=colors, zorder=2, **look)
        ax.set(xscale="log", yscale="log", xlabel=r"noise scale $\sigma$")
    axes[0, 0].axhline(SPIKE, color="k", lw=0.6)
    axes[0, 0].set_ylabel("noisy loss, highest over first")
    axes[0, 1].set_ylabel(r"$|W_{NI}|$, end over start")
    there = [phase for phase in OUTCOMES if phase in set(data["phase"])]
    look = {"color": "0.6", "mfc": "none", "mec": "0.3", "lw": 0.8}
    handles = [Line2D([], [], marker=m, ms=size**0.5, label=name, **look) for name, (m, size) in markers.items()]
    handles += [Patch(color=PHASE_COLORS[phase], label=phase) for phase in there]
    figure.legend(handles=handles, loc="outside right center")
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


def _cells(values: np.ndarray) -> np.ndarray:
    """Edges of the cells of a log grid, one more than there are values."""
    middle = np.sqrt(values[1:] * values[:-1])
    return np.concatenate([[values[0] ** 2 / middle[0]], middle, [values[-1] ** 2 / middle[-1]]])


def _edges(values: np.ndarray) -> tuple[float, float]:
    """Outer edges of the cells of a log grid."""
    half = np.sqrt(values[1] / values[0])
    return values[0] / half, values[-1] * half

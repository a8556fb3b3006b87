"""Figures of the explorer: one setting over time, and its place in the phase diagram; drawn, and as files."""

import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nin.companion.explorer.borders import SIGMA, Borders
from nin.companion.explorer.setting import Found
from nin.figures import PHASE_COLORS, panels, style
from nin.phases import PHASES

LR = (0.001, 1.0)  # learning rates of the diagram, those of the slider


def files(tried: Sequence[Found]) -> dict[str, bytes]:
    """Contents of the files that the explorer offers, by name: two figures and a table of the last setting tried.

    The diagram shows the plane of the last setting, with the borders of its network, and the settings tried in it.
    """
    found = tried[-1]
    rows = [{"sigma": one.setting.sigma, "lr": one.setting.lr, "phase": one.phase} for one in tried
            if one.setting.plane == found.setting.plane]  # fmt: skip
    return {
        "explore.png": _png(5.5, lambda: over_time(found.frame, phase=found.phase)),
        "explore_diagram.png": _png(3.0, lambda: diagram(pd.DataFrame(rows), borders=found.borders)),
        "explore.csv": found.frame.to_csv(index=False).encode(),
    }


def _png(inches: float, draw: Callable[[], Figure]) -> bytes:
    """The figure that `draw` returns, as a picture of this width."""
    with mpl.rc_context(style() | {"figure.figsize": (inches, inches)}):
        figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        plt.close(figure)
    return buffer.getvalue()


def over_time(data: pd.DataFrame, *, phase: str) -> Figure:
    """Noisy loss and the node's size relative to its start, by step; data: seed, step, noisy_loss, niw.

    A column theory, if there is one, is drawn beside niw.
    """
    figure, axes = panels(1, 2, height=0.85)
    for number, (_, run) in enumerate(data.groupby("seed")):
        look = {"color": PHASE_COLORS[phase], "lw": 1.2 if number == 0 else 0.7, "alpha": 1 if number == 0 else 0.6}
        axes[0, 0].plot(run["step"] + 1, run["noisy_loss"].clip(1e-8, 1e8), **look)
        axes[0, 1].plot(run["step"] + 1, run["niw"].clip(1e-6, 1e8), label="measured" if number == 0 else None, **look)
        if "theory" in run:
            label = r"theory, $|1-\kappa|^t$" if number == 0 else None
            axes[0, 1].plot(run["step"] + 1, run["theory"].clip(1e-6, 1e8), "k--", lw=0.8, label=label)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="step + 1", title="noisy training loss")
    sizes = data["niw"].clip(1e-6, 1e8)
    axes[0, 1].set(xscale="log", yscale="log", xlabel="step + 1", title="size of the node over its start")
    axes[0, 1].set_ylim(min(0.3, sizes.min() / 2), max(3, 2 * sizes.max()))
    axes[0, 1].legend(loc="best")
    return figure


def diagram(data: pd.DataFrame, *, borders: Borders) -> Figure:
    """The plane of noise scale and learning rate, shaded by the phases predicted before training; points: tried ones.

    data: sigma, lr, phase; the last row is the current setting. Hatched: plain SGD is unstable by itself.
    """
    figure, axes = panels(1, 1, height=0.95)
    ax = axes[0, 0]
    inside = (borders.sigma > SIGMA[0]) & (borders.sigma < SIGMA[1])
    sigma = np.union1d(np.geomspace(*SIGMA, 200), borders.sigma[inside])
    rates = [
        np.full_like(sigma, 1e-12),
        *(borders.rate(phase, sigma) for phase in PHASES[1:]),
        np.full_like(sigma, 1e12),
    ]
    for phase, lower, upper in zip(PHASES, rates[:-1], rates[1:], strict=True):
        ax.fill_between(sigma, lower, upper, color=PHASE_COLORS[phase], alpha=0.2, lw=0)
    for phase, look in (("catapult", "k-"), ("divergent", "k--")):
        kappa = 2 * borders.rates[phase] / borders.rates["catapult"]
        label = rf"$\kappa_1={kappa[0]:.3g}$" if np.allclose(kappa, kappa[0]) else "divergence"
        ax.plot(sigma, borders.rate(phase, sigma), look, lw=0.9, label=label)
    if borders.plain < LR[1]:
        ax.fill_between(SIGMA, borders.plain, LR[1], fc="none", ec="0.4", hatch="///", lw=0, label="plain SGD unstable")
    dot = {"marker": "o", "ls": "none", "clip_on": False}  # whole on the edges, too
    for phase, rows in data.iloc[:-1].groupby("phase"):
        ax.plot(rows["sigma"], rows["lr"], ms=4, color=PHASE_COLORS[phase], mew=0, alpha=0.7, **dot)
    now = data.iloc[-1]
    look = {"ms": 9, "color": PHASE_COLORS[now["phase"]], "mec": "k", "mew": 1.2}
    ax.plot(now["sigma"], now["lr"], label=now["phase"], **look, **dot)
    ax.set(
        xscale="log", yscale="log", xlim=SIGMA, ylim=LR, xlabel=r"noise scale $\sigma$", ylabel=r"learning rate $\eta$"
    )
    ax.grid(False)
    ax.legend(loc="lower left")
    return figure

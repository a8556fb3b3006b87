"""Figures of the explorer: one setting over time, and its place in the phase diagram; drawn, and as files."""

import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nin.companion.explorer.setting import Found
from nin.figures import PHASE_COLORS, panels, style
from nin.phases import KAPPA_BOUNDS

SIGMA, LR = (0.05, 300.0), (0.001, 1.0)  # axes of the diagram, a little wider than the sliders


def files(tried: Sequence[Found]) -> dict[str, bytes]:
    """Contents of the files that the explorer offers, by name: two figures and a table of the last setting tried.

    The diagram shows all settings tried, and lies in the plane of the last one: its curvature sets the boundaries.
    """
    found = tried[-1]
    rows = [{"sigma": one.setting.sigma, "lr": one.setting.lr, "phase": one.phase} for one in tried]
    return {
        "explore.png": _png(5.5, lambda: over_time(found.frame, phase=found.phase)),
        "explore_diagram.png": _png(3.0, lambda: diagram(pd.DataFrame(rows), curvature=found.curvature)),
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
    """Noisy loss and the node's size relative to its start, by step; data: seed, step, noisy_loss, niw, theory."""
    figure, axes = panels(1, 2, height=0.85)
    for number, (_, run) in enumerate(data.groupby("seed")):
        look = {"color": PHASE_COLORS[phase], "lw": 1.2 if number == 0 else 0.7, "alpha": 1 if number == 0 else 0.6}
        axes[0, 0].plot(run["step"] + 1, run["noisy_loss"].clip(1e-8, 1e8), **look)
        axes[0, 1].plot(run["step"] + 1, run["niw"].clip(1e-6, 1e8), label="measured" if number == 0 else None, **look)
        predicted = run["theory"].clip(1e-6, 1e8)
        axes[0, 1].plot(
            run["step"] + 1, predicted, "k--", lw=0.8, label=r"theory, $|1-\kappa|^t$" if number == 0 else None
        )
    axes[0, 0].set(xscale="log", yscale="log", xlabel="step + 1", title="noisy training loss")
    sizes = data["niw"].clip(1e-6, 1e8)
    axes[0, 1].set(xscale="log", yscale="log", xlabel="step + 1", title="size of the node over its start")
    axes[0, 1].set_ylim(min(0.3, sizes.min() / 2), max(3, 2 * sizes.max()))
    axes[0, 1].legend(loc="best")
    return figure


def diagram(data: pd.DataFrame, *, curvature: float) -> Figure:
    """The plane of noise scale and learning rate, shaded by kappa = eta sigma^2 lambda; the points are settings tried.

    data: sigma, lr, phase; the last row is the current setting, and curvature is its lambda.
    """
    figure, axes = panels(1, 1, height=0.95)
    ax = axes[0, 0]
    eta = np.geomspace(*LR, 50)
    lower = np.full_like(eta, SIGMA[0])
    for phase, bound in KAPPA_BOUNDS.items():
        upper = (
            np.clip(np.sqrt(bound / (eta * curvature)), *SIGMA) if np.isfinite(bound) else np.full_like(eta, SIGMA[1])
        )
        ax.fill_betweenx(eta, lower, upper, color=PHASE_COLORS[phase], alpha=0.2, lw=0)
        if np.isfinite(bound) and bound >= 2:
            ax.plot(np.sqrt(bound / (eta * curvature)), eta, "k-" if bound == 2 else "k--", lw=0.9,
                    label=rf"$\kappa={bound:g}$")  # fmt: skip
        lower = upper
    for phase, rows in data.iloc[:-1].groupby("phase"):
        ax.plot(rows["sigma"], rows["lr"], "o", ms=4, color=PHASE_COLORS[phase], mew=0, alpha=0.7)
    now = data.iloc[-1]
    ax.plot(now["sigma"], now["lr"], "o", ms=9, color=PHASE_COLORS[now["phase"]], mec="k", mew=1.2, label=now["phase"])
    ax.set(
        xscale="log", yscale="log", xlim=SIGMA, ylim=LR, xlabel=r"noise scale $\sigma$", ylabel=r"learning rate $\eta$"
    )
    ax.grid(False)
    ax.legend(loc="lower left")
    return figure

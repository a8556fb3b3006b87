"""Figures of the explorer: one setting over time, and its place in the phase diagram; drawn, and as files."""

import io
from collections.abc import Callable, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nin.companion.explorer.borders import SIGMA, Borders
from nin.companion.explorer.trained import Found
from nin.figures import PHASE_COLORS, style

LR = (0.001, 1.0)  # learning rates of the diagram, those of the slider
SIDE = 2.9  # inches of each panel: two over time, one diagram
# left, bottom, right, top of the axes in a panel. Fixed, not fitted: fitting takes longer than training, and the page
# lays its animation over them.
FRAME = (0.22, 0.18, 0.96, 0.89)
SMALL = (0.2, 0.2, 0.93, 0.96)
AGAIN = (3, 4)  # of `Borders.regions`: phases that have been named
SIZES, LOSSES = (1e-6, 1e8), (1e-8, 1e8)  # what is drawn of the node's size and of losses


def files(tried: Sequence[Found]) -> dict[str, bytes]:
    """Contents of the files that the explorer offers, by name: two figures and a table of the last setting tried.

    The diagram shows the plane of the last setting, with the borders of its network, and the settings tried in it.
    """
    found = tried[-1]
    rows = [{"sigma": one.setting.sigma, "lr": one.setting.lr, "phase": one.phase} for one in tried
            if one.setting.plane == found.setting.plane]  # fmt: skip
    return {
        "explore.png": picture(lambda: over_time(found.frame, phase=found.phase)),
        "explore_diagram.png": picture(lambda: diagram(pd.DataFrame(rows), borders=found.borders)),
        "explore.csv": found.frame.to_csv(index=False).encode(),
    }


def picture(draw: Callable[[], Figure]) -> bytes:
    """The figure that `draw` returns, as a picture."""
    with mpl.rc_context(style()):
        figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        plt.close(figure)
    return buffer.getvalue()


def over_time(data: pd.DataFrame, *, phase: str) -> Figure:
    """Noisy loss and the node's size relative to its start, by step; data: seed, step, noisy_loss, niw.

    Columns plain_loss, without a node, and theory, beside niw, are drawn if they are there.
    """
    figure, (loss, size) = _panels(2)
    for number, (_, run) in enumerate(data.groupby("seed")):
        look = {"color": PHASE_COLORS[phase], "lw": 1.4 if number == 0 else 0.8, "alpha": 1 if number == 0 else 0.6}
        label = "measured" if number == 0 else None
        if number == 0 and "plain_loss" in run:
            loss.plot(run["step"] + 1, run["plain_loss"].clip(*LOSSES), color="0.6", lw=1.2, label="without node")
        loss.plot(run["step"] + 1, run["noisy_loss"].clip(*LOSSES), label=label and "with node", **look)
        size.plot(run["step"] + 1, run["niw"].clip(*SIZES), label=label, **look)
        if "theory" in run:
            label = "theory, typical batches" if number == 0 else None
            size.plot(run["step"] + 1, run["theory"].clip(*SIZES), "k--", lw=0.8, label=label)
    last = max(int(data["step"].max()) + 1, 2)
    for ax, title in ((loss, "noisy training loss"), (size, "size of the node / its start")):
        ax.set(xscale="log", yscale="log", xlim=(1, last), xlabel="step + 1", title=title)
        ax.minorticks_off()
        ax.legend(loc="best")
    sizes = data["niw"].clip(*SIZES)
    low, high = min(0.3, sizes.min() / 2), max(3, 2 * sizes.max())
    size.set_ylim(low, high)
    if high / low < 50:
        size.set_yticks([at for at in (0.1, 0.2, 0.5, 1, 2, 5) if low < at < high])
        size.yaxis.set_major_formatter("{x:g}")
    return figure


def small(data: pd.DataFrame, *, phase: str, steps: int) -> Figure:
    """Noisy loss and size of the node in one small panel, both relative to their start; data as for over_time."""
    figure, (ax,) = _panels(1, SMALL, (1.9, 1.05))
    run = data[data["seed"] == data["seed"].min()]
    ax.plot(run["step"] + 1, (run["noisy_loss"] / run["noisy_loss"].iloc[0]).clip(1e-4, 1e4), color="0.55", lw=1.2)
    ax.plot(run["step"] + 1, run["niw"].clip(1e-4, 1e4), color=PHASE_COLORS[phase], lw=1.8)
    ax.set(xscale="log", yscale="log", xlim=(1, steps + 1))
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.3), max(high, 3))
    ax.minorticks_off()
    return figure


def diagram(data: pd.DataFrame, *, borders: Borders) -> Figure:
    """The plane of noise scale and learning rate, shaded by the phases predicted before training; points: tried ones.

    data: sigma, lr, phase; the last row is the current setting. Hatched: plain SGD is unstable by itself.
    """
    figure, (ax,) = _panels(1)
    inside = (borders.sigma > SIGMA[0]) & (borders.sigma < SIGMA[1])
    sigma = np.union1d(np.geomspace(*SIGMA, 200), borders.sigma[inside])
    for number, (phase, low, high) in enumerate(borders.regions(sigma)):
        low, high = np.maximum(low, 1e-12), np.minimum(high, 1e12)
        ax.fill_between(sigma, low, high, color=PHASE_COLORS[phase], alpha=0.25, lw=0)
        if number not in AGAIN:
            _name(ax, phase, sigma, low, high)
    for phase, look in (("catapult", "k-"), ("divergent", "k--")):
        kappa = 2 * borders.rates[phase] / borders.rates["catapult"]
        label = rf"$\kappa_1={kappa[0]:.3g}$" if np.allclose(kappa, kappa[0]) else "divergence"
        ax.plot(sigma, borders.rate(phase, sigma), look, lw=0.9, label=label)
    if borders.plain < LR[1]:
        ax.fill_between(SIGMA, borders.plain, LR[1], fc="none", ec="0.4", hatch="///", lw=0, label="SGD alone unstable")
    dot = {"marker": "o", "ls": "none", "clip_on": False}  # whole on the edges, too
    for phase, rows in data.iloc[:-1].groupby("phase"):
        ax.plot(rows["sigma"], rows["lr"], ms=4.5, color=PHASE_COLORS[phase], mec="k", mew=0.4, alpha=0.7, **dot)
    now = data.iloc[-1]
    ax.plot(now["sigma"], now["lr"], ms=9, color=PHASE_COLORS[now["phase"]], mec="k", mew=1.2, **dot)
    ax.set(xscale="log", yscale="log", xlim=SIGMA, ylim=LR)
    ax.set(xlabel=r"noise scale $\sigma$", ylabel=r"learning rate $\eta$")
    ax.minorticks_off()
    ax.grid(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3, columnspacing=0.8, handlelength=1.4, fontsize=6)
    return figure


def _name(ax: Axes, phase: str, sigma: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Write the phase where its region is highest, if there is room."""
    bottom, top = np.log(np.clip(low, *LR)), np.log(np.clip(high, *LR))
    room = np.where(np.abs(np.log(sigma / np.sqrt(np.prod(SIGMA)))) < 3.5, top - bottom, 0)  # away from the edges
    best = np.flatnonzero(room >= 0.8 * room.max())
    at = best[-1] if phase == "catapult" else best[len(best) // 2]  # along the band, away from its neighbours
    if room[at] > 0.5:
        look = {"fontsize": 6.5, "color": "0.1", "bbox": {"fc": "w", "alpha": 0.6, "lw": 0, "pad": 0.8}}
        ax.text(sigma[at], np.exp((bottom[at] + top[at]) / 2), phase, ha="center", va="center", clip_on=True, **look)


def _panels(
    count: int, frame: tuple[float, ...] = FRAME, size: tuple[float, float] = (SIDE, SIDE)
) -> tuple[Figure, list[Axes]]:
    """A figure of panels of this size side by side, each with axes at this frame."""
    figure = plt.figure(figsize=(count * size[0], size[1]), layout="none")
    left, bottom, right, top = frame
    axes = [figure.add_axes(((at + left) / count, bottom, (right - left) / count, top - bottom)) for at in range(count)]
    return figure, axes

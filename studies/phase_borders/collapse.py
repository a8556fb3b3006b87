"""Do the borders of all networks fall onto one curve, in units of a control number that is known before training?"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nin.figures import panels
from studies.statistics import Numbers

CONTROLS = {"kappa_1": "one_step", "kappa_H": "kappa_H"}  # and the onset in eta that each predicts: kappa = 2 there
BORDERS = {"spikes": "onset", "survives": "divergence"}  # what a run does up to, or from, this border
RESAMPLES = 1000


def in_units(borders: pd.DataFrame) -> pd.DataFrame:
    """Each border in units of each control number: control, border, case, group, kappa = 2 eta / (predicted onset).

    borders: rows of `measure`, of which those count where the node, and not plain SGD, makes the catapult. kappa is inf
    for a border that was not reached; rows without the control number (kappa_H under Adam) are left out.
    """
    node = borders[~borders["own"]]
    tables = [
        pd.DataFrame({"control": control, "border": border, "case": node["case"], "group": node["group"],
                      "kappa": (2 * node[border] / node[predicted]).fillna(np.inf)})[node[predicted].notna()]
        for control, predicted in CONTROLS.items() for border in BORDERS.values()
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def fractions(table: pd.DataFrame, kappas: Numbers, *, generator: np.random.Generator) -> pd.DataFrame:
    """The fraction of runs that spike, and that survive, at each kappa: control, what, kappa, fraction, low, high.

    A run spikes from its onset on, and survives up to its divergence. low to high: 95 % interval over resampled cases.
    table: as from `in_units`.
    """
    kappas, rows = np.asarray(kappas, dtype=float), []
    for (control, border), runs in table.groupby(["control", "border"], sort=False):
        what = next(name for name, column in BORDERS.items() if column == border)
        passed = runs["kappa"].to_numpy()[:, None] <= kappas  # (runs, kappas)
        happens = passed if what == "spikes" else ~passed
        by_case = [happens[at] for at in runs.groupby("case").indices.values()]
        sums = np.array([part.sum(0) for part in by_case])  # (cases, kappas)
        counts = np.array([len(part) for part in by_case])
        chosen = generator.integers(len(counts), size=(RESAMPLES, len(counts)))
        drawn = sums[chosen].sum(1) / counts[chosen].sum(1)[:, None]
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
        columns = {"kappa": kappas, "fraction": happens.mean(0), "low": low, "high": high}
        rows.append(pd.DataFrame({"control": control, "what": what, **columns}))
    return pd.concat(rows, ignore_index=True)


def spread(table: pd.DataFrame, control: str, border: str) -> float:
    """The factor in the control number within which the middle 80 % of the runs reach the border; 1 if all agree."""
    kappa = table[(table["control"] == control) & (table["border"] == border)]["kappa"]
    low, high = np.quantile(kappa, (0.1, 0.9), method="nearest")
    return float(high / low)


def collapse(data: pd.DataFrame) -> Figure:
    """Fraction of runs that spike and that survive against kappa_1 and kappa_H: all cases, and each group of them.

    data: group ("all" or the respect in which the networks differ), and the columns of `fractions`.
    """
    figure, axes = panels(1, len(CONTROLS), height=0.8, sharey=True)
    looks = {"spikes": ("C3", "spike"), "survives": ("C0", "survive")}
    limits = {
        "kappa_1": r"$\kappa_1=2\eta/\eta_1$",
        "kappa_H": r"$\kappa_H=\eta\sigma^2\lambda_{max}(\langle H\rangle)$",
    }
    for ax, (control, label) in zip(axes[0], limits.items(), strict=True):
        rows = data[data["control"] == control]
        for what, (color, name) in looks.items():
            for group, part in rows[rows["what"] == what].groupby("group", sort=False):
                if group == "all":
                    ax.fill_between(part["kappa"], part["low"], part["high"], color=color, alpha=0.2, lw=0)
                    ax.plot(part["kappa"], part["fraction"], color=color, lw=1.6, label=f"{name}, all networks")
                else:
                    ax.plot(part["kappa"], part["fraction"], color=color, lw=0.5, alpha=0.5)
        ax.axvline(2, color="k", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel=label, ylim=(-0.03, 1.03))
    axes[0, 0].set_ylabel("fraction of runs")
    figure.legend(handles=axes[0, 0].get_legend_handles_labels()[0], loc="outside upper center", ncols=2)
    return figure

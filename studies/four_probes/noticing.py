"""Which readings differ between the runs of a phase and those without a node, seed by seed."""

import numpy as np
import pandas as pd

from studies.four_probes.measure import NO_NODE
from studies.statistics import geometric_band


def against_no_node(shown: pd.DataFrame) -> pd.DataFrame:
    """Readings over those of the run of the same seed without a node: phase, seed, step, quantity, ratio.

    shown: phase, seed, step, quantity, value (`studies.four_probes.measure.comparable`).
    """
    keys = ["seed", "step", "quantity"]
    plain = shown[shown["phase"] == NO_NODE].set_index(keys)["value"].rename("plain")
    rest = shown[shown["phase"] != NO_NODE].join(plain, on=keys)
    return rest.assign(ratio=rest["value"] / rest["plain"])[["phase", *keys, "ratio"]]


def noticed(ratios: pd.DataFrame) -> pd.DataFrame:
    """Where the ratios of `against_no_node` differ from 1: phase, step, quantity, mean, low, high, differs.

    Geometric mean over seeds and its 95 % interval; differs: the interval excludes 1, as it does by chance in 5 % of
    the cases without an effect.
    """
    rows = []
    for (phase, step, quantity), part in ratios.groupby(["phase", "step", "quantity"], sort=False):
        band = geometric_band(part["ratio"].to_numpy())
        rows.append((phase, step, quantity, band.mean, band.low, band.high, band.low > 1 or band.high < 1))
    return pd.DataFrame(rows, columns=["phase", "step", "quantity", "mean", "low", "high", "differs"])


def unlike(values: pd.DataFrame, phase: str) -> float:
    """How far a phase is from the runs without a node, in units of the difference between two such runs.

    values: of `studies.four_probes.measure.at`. rms over quantities and seeds of ln(phase / no node of the same seed),
    over the rms of ln(no node / no node of the next seed). Quantities that are not positive throughout are left out.
    """
    logs = np.log(values.where(values > 0))
    plain = logs[NO_NODE].unstack("seed")
    other = logs[phase].unstack("seed").reindex(columns=plain.columns)
    good = plain.notna().all(axis=1)
    own, between = (other - plain)[good].to_numpy(), (plain - np.roll(plain, 1, axis=1))[good].to_numpy()
    return float(np.sqrt(np.nanmean(own**2) / np.nanmean(between**2)))

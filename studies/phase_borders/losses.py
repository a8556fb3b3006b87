"""The borders in sigma at fixed learning rates, under MSE and under cross-entropy: which control number is constant?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nin.model.dataset import Dataset
from nin.training.config import RunConfig
from nin.training.start import members
from studies.phase_borders.measure import find_border, outcomes_of
from studies.statistics import Interval, loglog_slope, mean_interval

RATES = {"mse": (0.001, 0.002, 0.004), "cross_entropy": (0.005, 0.015, 0.05, 0.15)}
KAPPAS = {"mse": (0.7, 8.0), "cross_entropy": (0.7, 500.0)}  # range of kappa_H, with both borders inside
PER_OCTAVE = 4  # points in a factor of 2 of sigma
BASE = RunConfig(resample="step", steps=100, curvature_pairs=1, eval_points=0, eval_samples=256)
RIVALS = {"kappa_H constant": -0.5, "eta sigma constant": -1.0}  # d ln sigma / d ln eta


def borders_in_sigma(loss: str, data: Dataset, *, seeds: Sequence[int], rates: Sequence[float] = ()) -> pd.DataFrame:
    """One row for each eta and seed: sigma at which the catapult begins and at which runs diverge, kappa_H at both.

    The ReLU network of the defaults, noise re-drawn at each step, over a grid of sigma that is uniform in ln kappa_H.
    """
    configs = [BASE.replace(loss=loss, seed=seed) for seed in seeds]
    lam = {config.seed: modes[0].lam for config, modes in zip(configs, members(configs, data)[1], strict=True)}
    low, high = KAPPAS[loss]
    kappas = np.geomspace(low, high, 1 + round(PER_OCTAVE * np.log2(high / low) / 2))
    rates = rates or RATES[loss]
    runs = [
        config.replace(lr=eta, sigma=float(np.sqrt(kappa / (eta * lam[config.seed]))))
        for config in configs for eta in rates for kappa in kappas
    ]  # fmt: skip
    rows = []
    for (eta, seed), series in outcomes_of(runs, data).groupby(["eta", "seed"]):
        row = {"loss": loss, "eta": eta, "seed": seed}
        for name, happens in (("catapult", "spiked"), ("divergence", "divergent")):
            border = find_border(series["sigma"], series[happens])
            row |= {f"sigma_{name}": border.at, f"kappa_{name}": eta * border.at**2 * lam[seed]}
        rows.append(row)
    return pd.DataFrame(rows)


def slopes(table: pd.DataFrame, name: str) -> Interval:
    """d ln sigma / d ln eta of a border, "catapult" or "divergence": the mean over the seeds and its 95 % interval.

    The interval adds, in quadrature, the error of borders that lie anywhere within their step of the grid.
    """
    of_seed = [loglog_slope(rows["eta"], rows[f"sigma_{name}"]).value for _, rows in table.groupby("seed")]
    found = mean_interval(of_seed)
    of_border = np.log(2) / PER_OCTAVE / np.sqrt(12)  # standard deviation of a uniform error over one step of ln sigma
    spread = np.sqrt(len(table["eta"].unique()) * found.count) * np.log(np.sort(table["eta"].unique())).std()
    return Interval(found.mean, float(np.hypot(found.half, 1.96 * of_border / spread)), found.count)

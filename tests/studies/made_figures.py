"""Figures that have not been saved at full size yet, each with a small table that its function can draw."""

from functools import partial

import made_four_probes
import made_interactions
import made_robust_learning
import made_stability
import numpy as np
import pandas as pd

from studies.curvature_probe import figures as curvature
from studies.nin_vs_loss import figures as clocks
from studies.phase_sweep import figures as sweep
from studies.scale_detection import figures as scale
from studies.spatial_stability import figures as stability_figures


def spectrum() -> pd.DataFrame:
    rows = []
    for phase, sigma in (("decay", 1.0), ("catapult", 30.0), ("decoupled", 0.1)):
        for step in (0, 10, 100):
            for rank in (1, 2, 3):
                value = 1 / rank / (1 + step / 50)
                rows.append((phase, sigma, step, "exact", rank, value, 0.0))
                rows.append((phase, sigma, step, "thermometer", rank, 1.1 * value, 0.1 * value))
        if phase != "decoupled":
            rows.append((phase, sigma, 50, "NIW decay", 1, 0.6, 0.05))
    return pd.DataFrame(rows, columns=["phase", "sigma", "step", "method", "rank", "value", "stderr"])


def stability() -> pd.DataFrame:
    rows = [
        (phase, seed, step, 1.5 + seed + step / 100, 2.5 + seed, 1.0 / (1 + step))
        for phase in ("decay", "catapult") for seed in (0, 1) for step in (0, 10, 100)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["phase", "seed", "step", "eta_sharpness", "eta_noisy_sharpness", "noisy_loss"])


def accuracy() -> pd.DataFrame:
    exact = np.geomspace(0.1, 2, 40)
    off = np.random.default_rng(0).normal(size=40)
    table = pd.DataFrame({"rank": 1, "exact": exact, "value": exact * (1 + 0.05 * off), "stderr": 0.05 * exact})
    return pd.concat([table.assign(activation="tanh"), table.assign(activation="softplus")])


def niw_decay() -> pd.DataFrame:
    table = pd.DataFrame({"read": [1.0, 1.1], "stderr": 0.01, "exact": [1.01, 1.08]})
    return pd.concat([table.assign(network=network) for network in ("linear net", "tanh", "softplus")])


def amplitudes() -> pd.DataFrame:
    table = pd.DataFrame({"amplitude": [0.02, 0.2, 2.0], "read": [1.0, 0.9, 0.5], "stderr": 0.05})
    table = table.assign(averaged=[0.98, 0.91, 0.52], averaged_stderr=0.01, autograd=1.0)
    return pd.concat([table.assign(activation="tanh"), table.assign(activation="relu", autograd=0.8)])


def sharpening() -> pd.DataFrame:
    step = np.arange(0, 21, 2)
    rows = pd.DataFrame({"rule": "fixed", "step": step, "eta": 0.5, "value": 1 + step / 20, "stderr": 0.05})
    looks = np.where(step % 10 == 0, 1 + step / 20, np.nan)
    rows = rows.assign(exact=looks, sharpness=4 * looks)
    return pd.concat([rows.assign(network=network) for network in ("MLP", "convolutional")])


LINES = {
    "sigma": [0.1, 1.0, 100.0], "decay": [0.5, 0.05, 0.004],
    "catapult": [0.5, 0.5, 0.02], "divergent": [1.5, 1.5, 0.06],
}  # fmt: skip


def phase_map() -> pd.DataFrame:
    """Four noise scales by three learning rates, the highest of which plain SGD does not survive."""
    phases = [["decoupled", "decay", "decay", "catapult"], ["decoupled", "decay", "growing", "divergent"],
              ["decoupled", "decay", "catapult", "divergent"]]  # fmt: skip
    rows = [
        (lr, sigma, phases[i][j], (1 + (i + j) % 3) / 3, ("stable", "stable", "spikes")[i])
        for i, lr in enumerate((0.01, 0.1, 1.0)) for j, sigma in enumerate((0.1, 1.0, 10.0, 100.0))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["lr", "sigma", "phase", "agree", "plain"])


def similarities() -> pd.DataFrame:
    """Correlations of four seeds at two noise scales, for both ways to draw the noise."""
    draws = np.random.default_rng(0)
    rows = []
    for mode in ("epoch", "fixed"):
        for sigma in (1.0, 8.0):
            for seed in range(4):
                values = dict(zip(clocks.CLOCKS, 1 - 0.1 * draws.random(len(clocks.CLOCKS)), strict=True))
                partial = {"partial": draws.uniform(0.4, 0.6), "partial, other": draws.uniform(0.4, 0.6)}
                rows.append({"resample": mode, "sigma": sigma, "seed": seed} | values | partial)
    return pd.DataFrame(rows)


def changed_training() -> pd.DataFrame:
    curvature = np.geomspace(1e-3, 1e-1, 12)
    table = pd.DataFrame({"curvature": curvature, "rate": 1.1 * curvature, "trace": 3 * curvature**0.5})
    table = table.assign(loss=curvature[::-1], time=1 / np.arange(1, 13))
    return pd.concat([table.assign(case=name, seed=seed) for name in ("unchanged", "width 8") for seed in (0, 1)])


def laws_of_the_clock() -> pd.DataFrame:
    rows = []
    for phase, sigma in (("decay", 1.0), ("catapult", 30.0)):
        for seed in (0, 1):
            for step in (0, 10, 100):
                W = np.exp(-step / 200) * (1 + seed / 10)
                laws = {"full": 1.05 * W, "parallel": 0.9 * W, "no floor": 0.8 * W, "constant": 1.3 * W}
                row = {"phase": phase, "sigma": sigma, "seed": seed, "step": step, "niw_norm": W, "spread": 0.02}
                rows.append(row | laws)
    return pd.DataFrame(rows)


MADE = {
    **made_interactions.MADE,
    "02c_phase_map": (partial(sweep.phase_map, borders=LINES, rival=LINES), phase_map),
    "03b_nulls": (clocks.nulls, similarities),
    "03c_interventions": (clocks.interventions, changed_training),
    "03e_clock": (clocks.clock, laws_of_the_clock),
    "04a_spectrum": (curvature.spectrum, spectrum),
    "04b_stability": (curvature.stability, stability),
    "04c_accuracy": (curvature.accuracy, accuracy),
    "04d_niw_decay": (curvature.decay, niw_decay),
    "04e_amplitude": (curvature.amplitudes, amplitudes),
    "04f_sharpening": (curvature.sharpening, sharpening),
    "06e_size_and_noise": (stability_figures.size_and_noise, made_stability.size_and_noise),
    "06f_claims": (stability_figures.ratios, made_stability.claims),
    "07b_activations": (scale.activations, made_stability.amplitudes),
    "07c_trained": (partial(scale.trained, **made_stability.TASK), made_stability.trained),
    **made_robust_learning.MADE,
    **made_four_probes.MADE,
}

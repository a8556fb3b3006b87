"""The figures that the tests look at: those saved in figures/paper, and others drawn from small tables made here."""

from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nin import theory
from nin.figures import Saved, style
from studies.curvature_probe import figures as curvature
from studies.linear_test_case import figures as linear

PAPER = Path(__file__).parents[2] / "figures" / "paper"
STUDIES = {"02": "phase_sweep", "03": "nin_vs_loss", "05": "robust_learning", "06": "spatial_stability",
           "07": "scale_detection", "08": "training_response"}  # fmt: skip
SAVED = sorted(path.stem for path in PAPER.glob("*.json") if path.stem[:2] in STUDIES)


def noise_output() -> pd.DataFrame:
    steps = np.arange(30)
    tables = []
    for kappa0 in (0.01, 1.5, 2.5, 4.1):
        n = np.cos(steps * kappa0) * np.exp(-steps / 10)
        columns = {"n": n, "n_map": n, "n_averaged": 0.9 * n, "n_wide": (1 - kappa0) ** steps}
        tables.append(pd.DataFrame({"kappa0": kappa0, "step": steps} | columns))
    return pd.concat(tables)


def decay_times() -> pd.DataFrame:
    kappa0 = np.array([0.05, 0.5, 1.5])
    tau = theory.decay_time(kappa0)
    table = pd.DataFrame({"kappa0": kappa0, "tau": tau, "low": 0.9 * tau, "high": 1.2 * tau})
    return pd.concat([table.assign(source="SGD"), table.assign(source="closed map")])


def end_points() -> pd.DataFrame:
    maps = [
        pd.DataFrame({"kind": "map", "width": width, "kappa0": [0.5, 1.5, 3.0], "kappa_end": [0.5, 1.5, 1.0],
                      "peak": [0.01, 0.02, 0.5]})
        for width in (1e2, 1e4)
    ]  # fmt: skip
    kappa0 = np.array([0.25, 0.5, 1.0])
    finite = [
        pd.DataFrame({"kind": "multiplier", "law": law, "batch": batch, "kappa0": kappa0, "stderr": 0.01,
                      "multiplier": theory.mean_square_multiplier(kappa0, batch, theory.KURTOSIS[law])})
        for law in ("gaussian", "rademacher") for batch in (1, 8, 128)
    ]  # fmt: skip
    return pd.concat([*maps, *finite])


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


MADE = {
    "01a_noise_output": (linear.noise_output, noise_output),
    "01b_decay_time": (linear.decay_time, decay_times),
    "01c_end_points": (linear.end_points, end_points),
    "04a_spectrum": (curvature.spectrum, spectrum),
    "04b_stability": (curvature.stability, stability),
    "04c_accuracy": (curvature.accuracy, accuracy),
    "04d_niw_decay": (curvature.decay, niw_decay),
    "04e_amplitude": (curvature.amplitudes, amplitudes),
}
EVERY = sorted([*SAVED, *MADE])

# Visible panels; lines, collections (bands, bars, meshes) and images of the first; its scales.
LOOKS = {
    "01a_noise_output": (4, (4, 0, 0), "linear symlog"),
    "01b_decay_time": (1, (6, 2, 0), "log log"),
    "01c_end_points": (3, (6, 0, 0), "linear linear"),
    "02a_trajectories": (2, (12, 0, 0), "log log"),
    "02b_decay_times": (1, (6, 4, 0), "log log"),
    "02c_phase_diagram": (1, (2, 1, 0), "log log"),
    "03a_evolution": (2, (6, 3, 0), "linear log"),
    "03b_similarity": (3, (7, 2, 0), "log linear"),
    "03c_mechanism": (2, (5, 0, 0), "log log"),
    "03d_linear_equality": (3, (2, 2, 0), "linear log"),
    "04a_spectrum": (3, (7, 4, 0), "log log"),
    "04b_stability": (3, (5, 0, 0), "log log"),
    "04c_accuracy": (2, (3, 2, 0), "log log"),
    "04d_niw_decay": (2, (4, 2, 0), "linear linear"),
    "04e_amplitude": (2, (5, 2, 0), "log linear"),
    "05a_tuning_convolutional": (4, (3, 0, 0), "log linear"),
    "05a_tuning_fully_connected": (4, (3, 0, 0), "log linear"),
    "05b_robustness_convolutional": (8, (13, 4, 0), "linear linear"),
    "05b_robustness_fully_connected": (8, (13, 4, 0), "linear linear"),
    "05c_quadratic_law": (2, (4, 0, 0), "log log"),
    "06a_gallery": (20, (0, 0, 1), "linear linear"),
    "06b_sensitivities": (18, (6, 2, 0), "linear log"),
    "06c_spectra": (5, (4, 0, 0), "linear linear"),
    "06d_shuffled": (5, (6, 2, 0), "linear log"),
    "06e_size_and_noise": (4, (6, 2, 0), "log log"),
    "07a_constant_filters": (3, (10, 5, 0), "linear log"),
    "07b_activations": (1, (10, 0, 0), "linear log"),
    "07c_trained": (2, (13, 4, 0), "linear log"),
    "07d_homogeneous_filters": (4, (7, 0, 0), "linear linear"),
    "08a_constant_kernel": (3, (4, 0, 0), "log log"),
    "08b_aging": (6, (4, 4, 0), "log log"),
    "08c_factors": (4, (4, 0, 0), "log linear"),
    "08d_methods": (1, (3, 0, 0), "log log"),
    "08e_splitting": (1, (12, 0, 0), "log log"),
    "08f_stochastic": (2, (7, 2, 0), "log linear"),
    "08g_features": (2, (6, 2, 0), "linear linear"),
    "08h_fragility": (4, (6, 2, 0), "linear linear"),
    "08i_plasticity": (1, (10, 3, 0), "log log"),
    "08j_phases": (3, (4, 0, 0), "log log"),
}


@cache
def table_of(name: str) -> pd.DataFrame:
    """The table that a figure shows."""
    return MADE[name][1]().reset_index(drop=True) if name in MADE else pd.read_csv(PAPER / f"{name}.csv")


@cache
def figure_of(name: str) -> Figure:
    """The figure, drawn once; closed, so that it does not count as open."""
    with mpl.rc_context(style()):
        figure = MADE[name][0](table_of(name)) if name in MADE else Saved(name, "paper").drawn()
    plt.close(figure)
    return figure

"""The figures that the tests look at: those saved in figures/paper, and others drawn from small tables made here."""

from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import memorisation_tables
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import gmean

from nin import theory
from nin.figures import Saved, style
from studies.curvature_probe import figures as curvature
from studies.linear_test_case import figures as linear
from studies.memorisation import figures as memorisation
from studies.nin_vs_loss import figures as clocks
from studies.phase_sweep import figures as sweep

PAPER = Path(__file__).parents[2] / "figures" / "paper"
STUDIES = {"02": "phase_sweep", "03": "nin_vs_loss", "05": "robust_learning", "06": "spatial_stability",
           "07": "scale_detection", "08": "training_response", "09": "layerwise_interactions",
           "10": "four_probes"}  # fmt: skip
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


def one_mode() -> pd.DataFrame:
    sigma = np.tile([0.5, 1.0, 2.0], 4)
    table = pd.DataFrame({"activation": ["softplus"] * 6 + ["tanh"] * 6, "seed": [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3})
    theory_of = 10 * (1 + table["seed"]) / sigma**2
    return table.assign(sigma=sigma, tau=1.1 * theory_of, theory=theory_of, of_hessian=1.3 * theory_of)


def optimisers() -> pd.DataFrame:
    rows = [
        (name, seed, sigma, 1 + sigma**2 / (3 + k), 1 / (1 + sigma + seed), phase)
        for k, name in enumerate(("SGD", "Adam")) for seed in (0, 1)
        for sigma, phase in ((0.1, "decoupled"), (1.0, "decay"), (10.0, "catapult"))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["optimiser", "seed", "sigma", "spike", "kept", "phase"])


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
    "01a_noise_output": (linear.noise_output, noise_output),
    "01b_decay_time": (linear.decay_time, decay_times),
    "01c_end_points": (linear.end_points, end_points),
    "02c_phase_map": (partial(sweep.phase_map, borders=LINES, rival=LINES), phase_map),
    "02d_one_mode": (sweep.one_mode, one_mode),
    "02e_optimisers": (sweep.optimisers, optimisers),
    "03b_nulls": (clocks.nulls, similarities),
    "03c_interventions": (clocks.interventions, changed_training),
    "03e_clock": (clocks.clock, laws_of_the_clock),
    "04a_spectrum": (curvature.spectrum, spectrum),
    "04b_stability": (curvature.stability, stability),
    "04c_accuracy": (curvature.accuracy, accuracy),
    "04d_niw_decay": (curvature.decay, niw_decay),
    "04e_amplitude": (curvature.amplitudes, amplitudes),
    "04f_sharpening": (curvature.sharpening, sharpening),
    "11a_linear": (partial(memorisation.linear, turns=memorisation_tables.linear_turns()), memorisation_tables.linear),
    "11b_along_training": (
        partial(memorisation.along_training, turns=memorisation_tables.turns().to_dict("list")),
        memorisation_tables.runs,
    ),
    "11c_reading": (
        partial(memorisation.reading, turns=memorisation_tables.turns().to_dict("list")),
        memorisation_tables.rules,
    ),
    "11d_elsewhere": (memorisation.elsewhere, memorisation_tables.cases),
}
EVERY = sorted([*SAVED, *MADE])
SLOW = ("10a_along_training", "10b_details")  # 15 and 25 panels of many lines


def marked(cases: Iterable) -> list:
    """The cases of a test (names of figures, or tuples that begin with one), with the mark of the slow ones."""
    full = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=pytest.mark.slow) if case[0] in SLOW else pytest.param(*case) for case in full]


# Visible panels; lines, collections (bands, bars, meshes) and images of the first; its scales.
LOOKS = {
    "01a_noise_output": (4, (4, 0, 0), "linear linear"),
    "01b_decay_time": (1, (6, 2, 0), "log log"),
    "01c_end_points": (3, (6, 0, 0), "linear linear"),
    "02a_trajectories": (2, (12, 0, 0), "log log"),
    "02b_decay_times": (1, (6, 4, 0), "log log"),
    "02c_phase_diagram": (1, (2, 1, 0), "log log"),
    "02c_phase_map": (1, (5, 1, 0), "log log"),
    "02d_one_mode": (2, (5, 1, 0), "log log"),
    "02e_optimisers": (2, (3, 2, 0), "log log"),
    "03a_evolution": (2, (6, 3, 0), "linear log"),
    "03b_similarity": (3, (7, 2, 0), "log linear"),
    "03b_nulls": (3, (18, 6, 0), "log log"),
    "03c_interventions": (3, (3, 0, 0), "log log"),
    "03c_mechanism": (2, (5, 0, 0), "log log"),
    "03d_linear_equality": (3, (2, 2, 0), "linear log"),
    "03e_clock": (3, (5, 1, 0), "log log"),
    "04a_spectrum": (3, (7, 4, 0), "log log"),
    "04b_stability": (3, (5, 0, 0), "log log"),
    "04c_accuracy": (2, (3, 2, 0), "log log"),
    "04d_niw_decay": (2, (4, 2, 0), "linear linear"),
    "04e_amplitude": (2, (5, 2, 0), "log linear"),
    "04f_sharpening": (4, (2, 0, 0), "linear linear"),
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
    "09a_planted": (3, (6, 2, 0), "linear linear"),
    "09b_strength": (6, (4, 4, 0), "linear linear"),
    "09c_changes": (3, (0, 3, 0), "linear linear"),
    "09d_with_depth": (6, (4, 4, 0), "linear linear"),
    "09e_by_order": (2, (6, 3, 0), "linear log"),
    "09f_ledger": (1, (1, 5, 0), "linear linear"),
    "09g_log_odds": (2, (2, 0, 0), "linear linear"),
    "09h_choices": (3, (6, 0, 0), "linear linear"),
    "09i_phases": (3, (15, 0, 0), "log linear"),
    "10a_along_training": (25, (2, 2, 0), "log log"),
    "10b_details": (15, (2, 1, 0), "log linear"),
    "10c_change_points": (5, (13, 13, 0), "log linear"),
    "10d_together": (1, (0, 0, 1), "linear linear"),
    "10e_coloured": (4, (25, 1, 0), "log log"),
    "11a_linear": (3, (8, 4, 0), "log log"),
    "11b_along_training": (6, (4, 3, 0), "log linear"),
    "11c_reading": (2, (12, 4, 0), "linear log"),
    "11d_elsewhere": (3, (3, 0, 0), "linear linear"),
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


def panels_of(name: str) -> list[Axes]:
    """Visible panels of a figure: axes that are switched off hold a legend, others a colour bar."""
    return panels_in(figure_of(name))


def panels_in(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]


def drawn(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the points of the line or of the error bars with this label; of bars, their centres and heights."""
    for container in ax.containers:
        if container.get_label() == label and isinstance(container, BarContainer):
            bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in container]
            return tuple(np.array(bars).T)
        if container.get_label() == label:
            return container.lines[0].get_data()
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return line.get_data()


def is_visible(line: Line2D) -> bool:
    """Whether a line has a stroke or markers; seaborn's error bars bring one without either."""
    return line.get_linestyle() != "None" or line.get_marker() not in ("None", None, "")


def curves(ax: Axes) -> list[Line2D]:
    """The visible lines in data coordinates: not those of axhline and axvline."""
    return [line for line in ax.lines if line.get_transform() == ax.transData and is_visible(line)]


def within(ax: Axes, line: Line2D) -> list[np.ndarray]:
    """Which of a line's points lie between the ends of either axis, of those that are finite, and positive on a log."""
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    good = np.isfinite(x) & np.isfinite(y)
    good &= (x > 0) | (ax.get_xscale() != "log")
    good &= (y > 0) | (ax.get_yscale() != "log")
    ends = (sorted(ax.get_xlim()), sorted(ax.get_ylim()))
    return [(low <= values[good]) & (values[good] <= high) for values, (low, high) in zip((x, y), ends, strict=True)]


def is_empty(ax: Axes) -> bool:
    """Whether a panel shows no point of a curve, no image, and no bar with a height."""
    bars = [bar for container in ax.containers if isinstance(container, BarContainer) for bar in container]
    shown = any(np.logical_and(*within(ax, line)).any() for line in curves(ax))
    return not (shown or ax.images or any(np.isfinite(bar.get_height()) and bar.get_height() for bar in bars))


def legends(name: str) -> list[str]:
    """Texts of all legends of a figure."""
    figure = figure_of(name)
    found = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    return [text.get_text() for legend in found for text in legend.get_texts()]


def of(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows with these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def means(rows: pd.DataFrame, by: str, column: str, mean: str = "mean") -> tuple[np.ndarray, np.ndarray]:
    """Places and means over seeds, as the figures show them."""
    groups = rows.groupby(by)[column]
    found = groups.agg(gmean) if mean == "geometric" else groups.agg(mean)
    return found.index.to_numpy(), found.to_numpy()


def step_and(rows: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series]:
    return rows["step"] + 1, rows[column]

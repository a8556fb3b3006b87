"""The figures that the tests look at: those saved in figures/paper, and those of `made_figures`."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_figures import MADE
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import gmean

from nin.figures import Saved, style
from nin.support.legible import make_legible

PAPER = Path(__file__).parents[2] / "figures" / "paper"
STUDIES = {"01": "linear_test_case", "02": "phase_sweep", "03": "nin_vs_loss", "04": "curvature_probe",
           "05": "robust_learning", "06": "spatial_stability", "07": "scale_detection", "08": "training_response",
           "09": "layerwise_interactions", "10": "four_probes", "11": "memorisation", "12": "your_network"}  # fmt: skip
SAVED = sorted(path.stem for path in PAPER.glob("*.json") if path.stem[:2] in STUDIES)
EVERY = sorted([*SAVED, *MADE])
FAST = EVERY[::8]  # the figures that the fast tests look at


def marked(cases: Iterable) -> list:
    """The cases of a test (names of figures, or tuples that begin with one); those that are not FAST marked slow."""
    full = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if case[0] in FAST else pytest.mark.slow) for case in full]


# Visible panels; lines, collections (bands, bars, meshes) and images of the first; its scales.
LOOKS = {
    "01a_noise_output": (4, (4, 0, 0), "linear linear"),
    "01b_decay_time": (1, (6, 2, 0), "log log"),
    "01c_end_points": (3, (7, 0, 0), "linear linear"),
    "01d_equal_decay": (3, (2, 2, 0), "linear log"),
    "02a_trajectories": (2, (12, 0, 0), "log log"),
    "02b_decay_times": (1, (7, 4, 0), "log log"),
    "02c_phase_diagram": (1, (5, 1, 0), "log log"),
    "02c_phase_map": (1, (5, 1, 0), "log log"),
    "02d_one_mode": (2, (5, 1, 0), "log log"),
    "02e_optimisers": (2, (5, 4, 0), "log log"),
    "02f_collapse": (2, (27, 2, 0), "log linear"),
    "03a_evolution": (2, (6, 3, 0), "linear log"),
    "03b_nulls": (3, (18, 6, 0), "log log"),
    "03c_interventions": (3, (8, 0, 0), "log log"),
    "03d_linear_equality": (3, (2, 2, 0), "linear log"),
    "03e_clock": (6, (5, 1, 0), "log log"),
    "04a_spectrum": (4, (7, 4, 0), "log log"),
    "04b_stability": (3, (9, 0, 0), "log log"),
    "04c_accuracy": (2, (3, 2, 0), "log log"),
    "04d_niw_decay": (2, (4, 2, 0), "linear linear"),
    "04e_amplitude": (2, (5, 2, 0), "log linear"),
    "04f_sharpening": (6, (2, 0, 0), "linear linear"),
    "05a_tuning_convolutional": (7, (7, 2, 0), "linear linear"),
    "05a_tuning_fully_connected": (7, (7, 2, 0), "linear linear"),
    "05b_robustness_convolutional": (8, (16, 5, 0), "linear linear"),
    "05b_robustness_fully_connected": (8, (16, 5, 0), "linear linear"),
    "05c_quadratic_law": (2, (10, 3, 0), "linear linear"),
    "05d_gains_convolutional": (5, (22, 7, 0), "linear linear"),
    "05d_gains_fully_connected": (5, (22, 7, 0), "linear linear"),
    "05e_phases_convolutional": (3, (12, 0, 0), "log linear"),
    "05e_phases_fully_connected": (3, (12, 0, 0), "log linear"),
    "06a_gallery": (20, (0, 0, 1), "linear linear"),
    "06b_sensitivities": (21, (6, 2, 0), "linear log"),
    "06c_spectra": (6, (4, 0, 0), "linear linear"),
    "06d_shuffled": (6, (6, 2, 0), "linear log"),
    "06e_size_and_noise": (4, (6, 2, 0), "log log"),
    "06f_claims": (9, (5, 2, 0), "log linear"),
    "07a_constant_filters": (3, (12, 6, 0), "log log"),
    "07b_activations": (2, (10, 0, 0), "linear log"),
    "07c_trained": (3, (13, 4, 0), "linear log"),
    "07d_homogeneous_filters": (4, (12, 0, 0), "linear linear"),
    "08a_constant_kernel": (3, (4, 0, 0), "log log"),
    "08b_aging": (6, (4, 4, 0), "log log"),
    "08b_prefactor": (3, (9, 0, 0), "log linear"),
    "08c_factors": (4, (4, 0, 0), "log linear"),
    "08c_widths": (1, (8, 2, 0), "log log"),
    "08d_methods": (1, (3, 3, 0), "log log"),
    "08e_splitting": (2, (3, 2, 0), "log log"),
    "08f_stochastic": (2, (7, 2, 0), "log linear"),
    "08g_contrast": (4, (10, 6, 0), "log linear"),
    "08h_fragility": (4, (6, 2, 0), "linear linear"),
    "08i_plasticity": (1, (10, 3, 0), "log log"),
    "08j_phases": (3, (4, 0, 0), "log log"),
    "09a_planted": (3, (6, 2, 0), "linear linear"),
    "09b_strength": (6, (4, 5, 0), "linear linear"),
    "09c_changes": (3, (2, 3, 0), "linear linear"),
    "09d_with_depth": (6, (5, 4, 0), "linear linear"),
    "09e_by_order": (6, (5, 1, 0), "linear log"),
    "09f_ledger": (1, (1, 5, 0), "linear linear"),
    "09g_log_odds": (2, (2, 0, 0), "linear linear"),
    "09h_choices": (3, (8, 0, 0), "linear linear"),
    "09i_phases": (3, (12, 0, 0), "log linear"),
    "09j_by_layer": (6, (9, 3, 0), "linear linear"),
    "09k_probes": (6, (12, 4, 0), "linear linear"),
    "10a_along_training": (25, (2, 2, 0), "log log"),
    "10b_details": (15, (2, 1, 0), "log linear"),
    "10c_change_points": (5, (13, 13, 0), "log linear"),
    "10d_together": (1, (0, 0, 1), "linear linear"),
    "10e_coloured": (8, (48, 1, 0), "log log"),
    "11a_linear": (3, (8, 4, 0), "log log"),
    "11b_along_training": (12, (5, 3, 0), "log linear"),
    "11c_reading": (2, (12, 4, 0), "linear log"),
    "11d_elsewhere": (3, (3, 0, 0), "linear linear"),
    "12a_foretold": (2, (61, 0, 0), "log log"),
    "12b_residual": (2, (14, 0, 0), "log log"),
    "12c_transformer": (2, (14, 0, 0), "log log"),
    "12d_probes": (6, (4, 4, 0), "log linear"),
}


@cache
def table_of(name: str) -> pd.DataFrame:
    """The table that a figure shows."""
    return MADE[name][1]().reset_index(drop=True) if name in MADE else pd.read_csv(PAPER / f"{name}.csv")


@cache
def figure_of(name: str) -> Figure:
    """The figure, drawn once; closed, so that it does not count as open."""
    with mpl.rc_context(style()):
        if name in MADE:
            figure = MADE[name][0](table_of(name))
            make_legible(figure)  # as `nin.figures.save` does
        else:
            figure = Saved(name, "paper").drawn()
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

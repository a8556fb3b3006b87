"""Catches empty panels, data outside the axes, missing labels, and curves that are not those of the table."""

import numpy as np
import pandas as pd
import pytest
from drawn import (
    EVERY,
    LOOKS,
    MADE,
    SAVED,
    STUDIES,
    curves,
    drawn,
    is_empty,
    is_visible,
    legends,
    marked,
    means,
    of,
    panels_of,
    step_and,
    table_of,
    within,
)  # fmt: skip
from matplotlib.colors import to_rgba

from nin import theory
from nin.figures import PHASE_COLORS, Saved
from nin.phases import PHASES

# Colours of the curves that a figure cuts on purpose, and why.
CUT = {
    "01a_noise_output": {"0.5"},  # the wide limit grows without bound
    "01b_decay_time": {"k", "0.5"},  # theory, beyond the measured range
    "02a_trajectories": {PHASE_COLORS["divergent"]},
    "02b_decay_times": {"C0", "0.3", "k"},  # decay times far above the length of a run
    "02c_phase_diagram": {"k", "#a50026"},  # borders, beyond the grid
    "03d_linear_equality": {"C0"},  # a decay to zero
    "03e_clock": {"C1"},  # without its floor the law goes to zero
    "04a_spectrum": {"k"},  # a reading that its error does not tell from zero
    "04b_stability": {PHASE_COLORS["divergent"]},
    "08b_aging": {"C0", "C1", "C3"},  # MSE decays to zero
    "08j_phases": {PHASE_COLORS["divergent"]},
    "12b_residual": {PHASE_COLORS["divergent"]},
}
# Panels whose limits cut their data: divergent runs, multipliers above 4, a noise output far below its residual, and
# strengths below 1e-5 of the largest.
CUT_PANELS = {
    "01a_noise_output": (3,),
    "01c_end_points": (2,),
    "01d_equal_decay": (2,),
    "04a_spectrum": (3,),
    "10a_along_training": range(4, 25, 5),
    "10b_details": (4, *range(5, 10), 14),
}


def test_every_study_has_saved_figures():
    studies = [Saved(name, "paper").sidecar["draw"].split(".")[1] for name in SAVED]
    assert {name[:2] for name in SAVED} == set(STUDIES) and set(studies) >= set(STUDIES.values())
    assert len(SAVED) == 76 and not set(SAVED) & set(MADE)


@pytest.mark.parametrize("name", marked(EVERY))
def test_no_panel_is_empty(name):
    assert panels_of(name)
    for ax in panels_of(name):
        assert not is_empty(ax), f"{name}: panel {ax.get_title()!r} is empty"


@pytest.mark.parametrize("name", marked(EVERY))
def test_every_panel_says_what_it_shows(name):
    """A title or labels of its own, or those of the top and the left of its column and row."""
    for ax in panels_of(name):
        grid, cell = ax.get_gridspec(), ax.get_subplotspec()
        row, column = cell.rowspan.start, cell.colspan.start
        own = [a for a in panels_of(name) if a.get_subplotspec().get_gridspec() is grid]
        beside = [a for a in own if a.get_subplotspec().rowspan.start == row]
        above = [a for a in own if a.get_subplotspec().colspan.start == column]
        named = name == "10d_together"  # by its ticks, which test_drawn_probes compares
        assert ax.get_title() or any(a.get_ylabel() for a in beside) or named
        ticks = [text.get_text() for a in above for text in a.get_xticklabels()]
        assert any(a.get_xlabel() for a in above) or any(ticks) or ax.images


@pytest.mark.parametrize("name", marked(EVERY))
def test_all_data_are_within_the_axes(name):
    cut = {to_rgba(color) for color in CUT.get(name, ())}
    for ax in [ax for place, ax in enumerate(panels_of(name)) if place not in CUT_PANELS.get(name, ())]:
        for line in curves(ax):
            law = name == "01c_end_points" and line.get_marker() == "None"  # it grows beyond the measured range
            cap = name == "09a_planted" and line.get_marker() == "_"  # the end of an interval, beyond 1
            if to_rgba(line.get_color()) not in cut and not law and not cap:
                assert np.logical_and(*within(ax, line)).all(), f"{name}: {line.get_label()} leaves {ax.get_title()!r}"


@pytest.mark.parametrize("name", marked(EVERY))
def test_number_of_artists_and_scales(name):
    first = panels_of(name)[0]
    artists = (len([line for line in first.lines if is_visible(line)]), len(first.collections), len(first.images))
    assert (len(panels_of(name)), artists, f"{first.get_xscale()} {first.get_yscale()}") == LOOKS[name]


LEGENDS = {
    "01a_noise_output": [r"wide limit, $n_0(1-\kappa_0)^t$", "closed map, noise average", "closed map, same draws",
                         "SGD"],
    "02a_trajectories": [r"decoupled, $\sigma$ = 0.0754", r"decay, $\sigma$ = 3", r"catapult, $\sigma$ = 47.5",
                         r"divergent, $\sigma$ = 189"],
    "02c_phase_diagram": [*PHASES, "plain SGD unstable", r"$-\ln 0.9$ lost in $T$ steps", r"$\eta_1$: $\kappa_1=2$",
                          "divergence", r"$\kappa_H=2$", r"$\kappa_H=4$"],
    "03c_interventions": ["unchanged", "learning rate / 4", "label noise .3", "width 256", "4096 samples",
                          "task switch", "task switch, rate / 4", "theory"],
    "03e_clock": ["curvature of the start", "without the floor", "pull along $W$ only", "law with its floor",
                  "measured"],
    "04b_stability": [*PHASES],
    "05b_robustness_convolutional": ["NIN, first layer", "NIN, all layers", "Gaussian inputs", "dropout", "L2"],
    "06b_sensitivities": ["initial", "trained"],
    "06e_size_and_noise": ["strided, GAP", "LeNet-like", "VGG-like, GAP", "VGG, 9 conv."],
    "06f_claims": ["control", "last hidden", "output", "filters", "first", "middle"],
    "07c_trained": ["task 2, ReLU", "task 2, no penalty", "task 2, tanh", "task 1, ReLU", "constant filters"],
    "07d_homogeneous_filters": [],
    "08b_aging": ["tanh", "relu", "sigmoid", "leaky_relu"],
    "08d_methods": ["SGD", "momentum", "Adam"],
    "08e_splitting": ["tanh", "relu"],
    "08i_plasticity": ["MSE", "CE", "sigmoid + MSE"],
}  # fmt: skip


def test_phase_map_shows_each_cell_in_the_colour_of_its_phase():
    """Paler where seeds disagree, hatched where plain SGD spikes, beside the borders that were predicted."""
    (ax,), table = panels_of("02c_phase_map"), table_of("02c_phase_map")
    (mesh,) = ax.collections
    colors = mesh.get_array()
    for i, lr in enumerate(sorted(set(table["lr"]))):
        for j, sigma in enumerate(sorted(set(table["sigma"]))):
            (row,) = of(table, lr=lr, sigma=sigma).itertuples()
            expected = (*to_rgba(PHASE_COLORS[row.phase])[:3], 0.1 + 0.55 * row.agree)
            np.testing.assert_allclose(colors[i, j], expected, atol=0.01)
    (hatched,) = ax.patches
    assert hatched.get_y() == pytest.approx(10**-0.5) and hatched.get_hatch()
    assert [line.get_label() for line in ax.lines[:3]] == [
        r"$-\ln 0.9$ lost in $T$ steps", r"$\eta_1$: $\kappa_1=2$", "divergence"
    ]  # fmt: skip


@pytest.mark.parametrize("name", marked(LEGENDS))
def test_legends(name):
    assert legends(name) == LEGENDS[name]


def gain(table):
    rows = of(table, test="gaussian").pivot(index=["strength", "seed"], columns="method", values="accuracy")
    return 100 * (rows["dropout"] - rows["none"]).groupby("strength").mean().to_numpy()


# Figure, panel, label of a curve: the x (None: not compared) and y of its points, from the table by another route.
CURVES = {
    ("01a_noise_output", 2, "SGD"): lambda t: (of(t, kappa0=2.5)["step"], of(t, kappa0=2.5)["n"]),
    ("01b_decay_time", 0, "SGD"): lambda t: (of(t, source="SGD")["kappa0"] ** 0.5, of(t, source="SGD")["tau"]),
    ("01c_end_points", 1, "$N=10^{4}$"): lambda t: (of(t, width=1e4)["kappa0"], of(t, width=1e4)["peak"]),
    ("01c_end_points", 2, "rademacher, $|B|$ = 8"): lambda t: (
        None, of(t, law="rademacher", batch=8)["multiplier"]
    ),
    ("02a_trajectories", 0, r"decay, $\sigma$ = 3"): lambda t: step_and(of(t, phase="decay", seed=0), "noisy_loss"),
    ("02b_decay_times", 0, r"$\tau$ of test loss"): lambda t: means(
        t[t["tau_test"] < np.inf], "sigma", "tau_test", "median"
    ),
    ("02d_one_mode", 0, "measured"): lambda t: means(of(t, activation="softplus"), "sigma", "tau", "geometric"),
    ("02f_collapse", 0, "spike, all networks"): lambda t: tuple(
        of(t, control="kappa_1", what="spikes", group="all")[column] for column in ("kappa", "fraction")
    ),
    ("03b_nulls", 0, "loss"): lambda t: (
        None, means(of(t.assign(loss=1 - t["loss"]), resample="epoch"), "sigma", "loss", "geometric")[1]
    ),
    ("03c_interventions", 2, "width 256"): lambda t: (of(t, case="width 256")["loss"], of(t, case="width 256")["rate"]),
    ("03e_clock", 0, "law with its floor"): lambda t: step_and(of(t, sigma=0.2, seed=0), "full"),
    ("03e_clock", 1, "measured"): lambda t: step_and(of(t, sigma=6.0, seed=0), "niw_norm"),
    ("03d_linear_equality", 0, "residual $|E|$"): lambda t: means(of(t, ratio=0.5), "step", "E"),
    ("04a_spectrum", 1, "NIW decay"): lambda t: step_and(of(t, phase="decay", method="NIW decay"), "value"),
    ("04b_stability", 1, "decay"): lambda t: (
        None, means(of(t, phase="decay").dropna(), "step", "eta_noisy_sharpness")[1]
    ),
    ("04c_accuracy", 0, "softplus"): lambda t: (None, of(t, activation="softplus")["value"]),
    ("04d_niw_decay", 0, "linear net"): lambda t: (None, of(t, network="linear net")["read"]),
    ("04e_amplitude", 1, "autograd's Hessian"): lambda t: means(of(t, activation="relu"), "amplitude", "autograd"),
    ("04f_sharpening", 3, "thermometer"): lambda t: tuple(
        of(t, network="MLP", rule="fixed")[column] for column in ("step", "value")
    ),
    ("05a_tuning_fully_connected", 0, "Gaussian noise"): lambda t: (
        None, means(of(t, method="nin_input"), "strength", "noisy")[1]
    ),
    ("05b_robustness_convolutional", 0, "dropout"): lambda t: (None, gain(t)),
    ("05c_quadratic_law", 1, "relu"): lambda t: (
        None, means(of(t.assign(ratio=t["pull"] / t["pull_law"]), activation="relu"), "sigma", "ratio")[1]
    ),
    ("06b_sensitivities", 0, "trained"): lambda t: means(
        of(t, architecture="fully_connected", state="trained"), "place", "D", "geometric"
    ),
    ("06d_shuffled", 3, "shuffled"): lambda t: means(
        of(t, architecture="vgg", state="shuffled"), "place", "D", "geometric"
    ),
    ("06e_size_and_noise", 0, "LeNet-like"): lambda t: means(
        of(t, study="size", architecture="lenet"), "n_train", "R", "geometric"
    ),
    ("07a_constant_filters", 1, "stride 2, linear"): lambda t: (
        None, of(t, case="stride 2, linear", quantity="G")["measured"]
    ),
    ("06e_size_and_noise", 2, "VGG-like, GAP"): lambda t: means(
        of(t, study="noise", architecture="vgg_gap"), "noise", "G", "geometric"
    ),
    ("07b_activations", 0, "linear"): lambda t: (None, of(t, net="linear", amplitude=0.1)["measured"]),
    ("07b_activations", 1, "tanh, $k=1$"): lambda t: (None, of(t, net="tanh", k=1)["measured"]),
    ("07c_trained", 1, "task 2, ReLU"): lambda t: means(of(t, case="task 2, ReLU"), "k", "G", "geometric"),
    ("08a_constant_kernel", 2, "CE"): lambda t: (of(t, loss="ce")["step"], of(t, loss="ce")["error"]),
    ("08b_aging", 0, "relu"): lambda t: (
        None, means(of(t, activation="relu", loss="mse"), "step", "response", "geometric")[1]
    ),
    ("08c_factors", 1, "tanh"): lambda t: (None, means(of(t, activation="tanh", loss="ce"), "step", "output_share")[1]),
    ("08d_methods", 0, "Adam"): lambda t: (None, means(of(t, method="adam"), "step", "response", "geometric")[1]),
    ("08f_stochastic", 0, "relu"): lambda t: means(of(t, study="cap", activation="relu"), "eta", "stability"),
    ("08b_prefactor", 1, "tanh"): lambda t: (
        None, means(of(t, activation="tanh", loss="sigmoid_mse"), "step", "measured")[1][::3]
    ),
    ("08c_widths", 0, r"NTK scaling, $\eta$ fixed"): lambda t: means(
        of(t, scaling="ntk"), "hidden", "drift", "geometric"
    ),
    ("08g_contrast", 1, "tanh, label noise"): lambda t: means(
        of(t[t["u"] > 0], activation="tanh", training="label noise", sigma=0.5), "u", "flips"
    ),
    ("08g_contrast", 3, "relu, GD"): lambda t: means(
        of(t[t["u"] > 0], activation="relu", training="GD"), "u", "error_all"
    ),
    ("08h_fragility", 3, "tanh"): lambda t: (
        None, t[t["activation"] == "tanh"].groupby("training", sort=False)["margin"].mean()
    ),
    ("08i_plasticity", 0, "CE"): lambda t: means(
        of(t, loss="ce").assign(before=t["before"] + 1), "before", "relearning", "geometric"
    ),
    ("08j_phases", 2, r"decay, $\sigma=8$"): lambda t: step_and(of(t, sigma=8.0, phase="decay"), "niw_norm"),
    ("11b_along_training", 10, "wrong labels fitted"): lambda t: means(
        of(t[t["step"] > 0], fraction=0.3, sigma=t["sigma"].min(), resample="fixed"), "step", "fitted"
    ),
    ("11c_reading", 1, "held-out loss"): lambda t: (None, means(of(t, rule="held-out loss"), "fraction", "loss")[1]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "panel", "label"), marked(CURVES))
def test_a_curve_is_that_of_the_table(name, panel, label):
    x, y = drawn(panels_of(name)[panel], label)
    expected_x, expected_y = CURVES[name, panel, label](table_of(name))
    assert len(y) and np.asarray(y) == pytest.approx(np.asarray(expected_y), rel=1e-9, nan_ok=True)
    if expected_x is not None:
        assert np.asarray(x) == pytest.approx(np.asarray(expected_x), rel=1e-9)


def test_gallery_shows_each_image_in_its_row_and_column():
    table, panels = table_of("06a_gallery"), panels_of("06a_gallery")
    cutoffs, deltas = sorted(set(table["c"])), sorted(set(table["delta"]))
    assert len(panels) == len(cutoffs) * len(deltas)
    for place, (c, delta) in enumerate((c, delta) for c in cutoffs for delta in deltas):
        rows = of(table, c=c, delta=delta).sort_values(["row", "column"])
        assert np.asarray(panels[place].images[0].get_array()).ravel().tolist() == rows["value"].tolist()


def test_spectra_are_means_over_the_modes_of_an_eigenvalue():
    table, ax = (
        of(table_of("06c_spectra"), state="trained", architecture="strided", depth=1),
        panels_of("06c_spectra")[0],
    )
    x, y = drawn(ax, "layer 1")
    modes = table["mode"].nunique()
    expected = [modes * table.loc[abs(table["eigenvalue"] - value) < 1e-5, "share"].mean() for value in x]
    assert y == pytest.approx(expected) and x[0] == pytest.approx(0, abs=1e-6)


def test_closed_forms_are_drawn_beside_the_measurement():
    end = panels_of("01b_decay_time")[0].lines[0]
    kappa = np.square(end.get_xdata())
    assert end.get_ydata()[:50] == pytest.approx(theory.decay_time(kappa[:50]))
    constant = Saved("07c_trained", "paper").sidecar["arguments"]["predicted"]
    x, y = drawn(panels_of("07c_trained")[0], "constant filters")
    assert dict(zip(x, y, strict=True)) == {row["k"]: row["D"] for row in constant if row["D"] > 0}


def test_splitting_is_relative_to_the_start():
    table = table_of("08e_splitting")
    for ax, bias in zip(panels_of("08e_splitting"), (1.0, 0.0), strict=True):
        for activation in ("tanh", "relu"):
            rows = of(table, bias=bias, activation=activation).pivot(index="step", columns="seed", values="ratio")
            expected = np.exp(np.log(rows / rows.loc[0]).mean(axis=1))
            assert drawn(ax, activation)[1] == pytest.approx(expected.to_numpy())


def test_excess_over_constant_filters_is_drawn_for_each_seed():
    table, ax = table_of("07c_trained"), panels_of("07c_trained")[2]
    runs = [rows["D"] - rows["D_constant"] for _, rows in of(table, case="task 2, ReLU").groupby("seed")]
    shown = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) > 2]
    above = [run.where(run > 0) for run in runs]  # on a logarithmic axis
    assert np.array(shown) == pytest.approx(np.array(above), nan_ok=True)


def test_claims_are_drawn_with_their_intervals_and_controls():
    table = table_of("06f_claims")
    claims = list(dict.fromkeys(table["claim"]))
    claim = table.loc[table["rival"].notna(), "claim"].iloc[0]
    rows, ax = of(table, claim=claim, at="output"), panels_of("06f_claims")[claims.index(claim)]
    bars = next(c for c in ax.containers if c.get_label() == "output")
    assert bars.lines[0].get_xdata() == pytest.approx(rows["ratio"].to_numpy())
    ends = np.array([segment[:, 0] for segment in bars.lines[2][0].get_segments()])
    assert ends == pytest.approx(rows[["low", "high"]].to_numpy())
    controls = [line.get_xdata() for line in ax.lines if line.get_label() == "control"]
    assert controls[1] == pytest.approx(rows["rival"].to_numpy())


def test_filters_have_a_line_for_each_run():
    for ax in panels_of("07d_homogeneous_filters"):
        runs = of(table_of("07d_homogeneous_filters"), case=ax.get_title()).groupby("seed")
        shown = [line.get_ydata().tolist() for line in ax.lines if len(line.get_ydata()) > 2]
        assert shown == [rows["share"].tolist() for _, rows in runs]


def test_evolution_is_relative_to_the_start():
    table = table_of("03a_evolution")
    for ax, mode in zip(panels_of("03a_evolution"), dict.fromkeys(table["resample"]), strict=True):
        runs = of(table, resample=mode).dropna(subset=["train_loss"])
        ratio = runs["train_loss"] / runs.groupby("seed")["train_loss"].transform("first")
        solid = [line for line in ax.lines if line.get_color() == "C1" and line.get_linestyle() == "-"]
        assert solid[0].get_ydata() == pytest.approx(ratio.groupby(runs["step"]).mean().to_numpy())
        assert pd.Series(solid[0].get_xdata()).max() == pytest.approx(runs["step"].max() / 468)

"""Catches figures of notebooks 09 and 10 that show something else than their tables."""

import numpy as np
import pytest
from drawn import drawn, figure_of, legends, marked, means, of, panels_of, step_and, table_of
from matplotlib.colors import to_rgba
from scipy import stats

from nin.figures import PHASE_COLORS, Saved
from nin.phases import PHASES

LEGENDS = {
    "09a_planted": ["initial", "trained", "floor of the probe", "planted", "found"],
    "09c_changes": ["floor of forget", "floor of new", "overlap", "forget", "new"],
    "09d_with_depth": ["trained", "another seed", "untrained", "permuted in order", "floor of the probe",
                       "the head as probe"],
    "09f_ledger": ["stem", "block1", "block2", "block3", "remainder"],
    "09g_log_odds": ["log-odds", "margin"],
    "09h_choices": ["as in the paper", "splits to 0.5 %", "threshold by image", "no delta", "ties to low orders",
                    "AND alone", "margin", "the head as probe"],
    "09i_phases": ["no node", r"decoupled, $\sigma=0.1$", r"decay, $\sigma=10$", r"decay, $\sigma=30$",
                   r"catapult, $\sigma=30$"],
    "09j_by_layer": ["trained", "untrained", "permuted in order", "untrained, permuted", "floor of the probe"],
    "09k_probes": ["fitted to the labels", "fitted to the logits", "the head",
                   "untrained network, fitted to the logits"],
    "10a_along_training": ["loss", "accuracy", r"$\eta\,\lambda$, all weights", r"$\eta\lambda$ at the node",
                           "self-kernel", "its drift", "response", "feature rank", "completeness", "redundancy",
                           "mean order / n", "D", "G", "R"],
    "10b_details": ["d ln response / d ln t", *(f"order {m}" for m in range(1, 9)), "act1", "act2", "act3", "output"],
    "10c_change_points": [],
    "10e_coloured": list(PHASES),
}  # fmt: skip


@pytest.mark.parametrize("name", marked(LEGENDS))
def test_legends(name):
    assert legends(name) == LEGENDS[name]


@pytest.mark.parametrize("name", ["09b_strength", "09e_by_order"])
def test_each_column_names_its_layers(name):
    found = [ax.get_legend() for ax in figure_of(name).axes if not ax.axison]
    assert [legend.get_texts()[0].get_text() for legend in found] == ["dense1", "conv1", "stem"]
    assert all(legend.get_texts()[-1].get_text() == "floor of the probe" for legend in found)


def test_floor_of_the_probe_is_the_distance_of_the_last_hidden_layer_from_the_truth():
    table = of(table_of("09d_with_depth"), network="model", architecture="LeNet-like", layer="dense2")
    for place, quantity, truth in ((1, "completeness", 1), (4, "redundancy", 0)):
        ax = panels_of("09d_with_depth")[place]
        (band,) = (patch for patch in ax.patches if patch.get_label() == "floor of the probe")
        ends = sorted((band.get_y(), band.get_y() + band.get_height()))
        assert ends == pytest.approx(sorted((table[quantity].mean(), truth)))
        assert drawn(ax, "the head as probe")[1] == [truth]
    rows = of(table_of("09j_by_layer"), network="model", architecture="MLP")
    ends = rows.groupby("depth")["stability"].agg(stats.gmean).iloc[-2:]
    (band,) = (patch for patch in panels_of("09j_by_layer")[3].patches if patch.get_label() == "floor of the probe")
    assert sorted((band.get_y(), band.get_y() + band.get_height())) == pytest.approx(sorted(ends))


# All labels of a figure's axes.
LABELS = {
    "09b_strength": {"order", "AND strength", "OR strength"},
    "09c_changes": {"strength"},
    "09d_with_depth": {"completeness", "redundancy"},
    "09e_by_order": {"order", "IoU of seeds", "stability"},
    "09f_ledger": {"order", "part of the output's strength"},
    "09g_log_odds": {"order", "share of AND strength"},
    "09i_phases": {"step + 1"},
    "09j_by_layer": {"IoU of seeds", "stability"},
    "09k_probes": {"completeness", "redundancy"},
    "10a_along_training": {"step + 1", "performance", "curvature", "training response", "interactions", "stability"},
    "10b_details": {"step + 1", "aging exponent", "strength", "R"},
    "10c_change_points": {"step + 1"},
    "10e_coloured": {r"noise scale $\sigma$", r"learning rate $\eta$", r"$\kappa_1$ before training",
                     "curvature at the node", "feature rank", "mean order", "R"},
}  # fmt: skip


@pytest.mark.parametrize("name", marked(LABELS))
def test_labels_of_the_axes(name):
    axes = [axis for ax in panels_of(name) for axis in (ax.xaxis, ax.yaxis)]
    assert {axis.label.get_text() for axis in axes} - {""} == LABELS[name]
    assert all(axis.label.get_visible() for axis in axes if axis.label.get_text())


def part_of_output(table, entry):
    """Mean over seeds of an entry's share of the output's strength, by order."""
    whole = of(table, entry="output").set_index(["seed", "order"])["strength"]
    share = of(table, entry=entry).set_index(["seed", "order"])["share"]
    return (share / whole).groupby("order").mean()


def above_0(*args):
    """`means` on a logarithmic axis."""
    x, y = means(*args)
    return x, np.where(y > 0, y, np.nan)


def along(table, **values):
    steps, expected = means(of(table, **values).dropna(subset=["value"]), "step", "value")
    return steps + 1, expected


# Figure, panel, label of a curve: the x (None: not compared) and y of its points, from the table by another route.
CURVES = {
    ("09a_planted", 1, "trained"): lambda t: (
        0.1 + np.arange(5), of(t, state="trained").groupby("layer", sort=False)["iou"].mean()
    ),
    ("09b_strength", 0, "dense2"): lambda t: means(
        of(t, architecture="MLP", kind="and", layer="dense2"), "order", "strength"
    ),
    ("09b_strength", 4, "conv2"): lambda t: means(
        of(t, architecture="LeNet-like", kind="or", layer="conv2"), "order", "strength"
    ),
    ("09c_changes", 0, "forget"): lambda t: (None, means(of(t, architecture="MLP"), "layer", "forget")[1]),
    ("09d_with_depth", 0, "untrained"): lambda t: means(
        of(t, architecture="MLP", network="untrained"), "depth", "completeness"
    ),
    ("09d_with_depth", 5, "trained"): lambda t: means(
        of(t, architecture="residual", network="model"), "depth", "redundancy"
    ),
    ("09e_by_order", 1, "conv2"): lambda t: above_0(
        of(t, architecture="LeNet-like", network="model", layer="conv2"), "order", "generalisation"
    ),
    ("09e_by_order", 5, "output, permuted"): lambda t: above_0(
        of(t, architecture="residual", network="permuted", layer="output"), "order", "stability"
    ),
    ("09j_by_layer", 1, "untrained"): lambda t: means(
        of(t, architecture="LeNet-like", network="untrained"), "depth", "generalisation"
    ),
    ("09k_probes", 2, "fitted to the logits"): lambda t: means(
        of(t, architecture="residual", probe="logits"), "depth", "completeness"
    ),
    ("09f_ledger", 0, "block2"): lambda t: (None, part_of_output(t, "block2")),
    ("09g_log_odds", 1, "margin"): lambda t: (
        of(t, readout="output", value="margin")["order"], of(t, readout="output", value="margin")["share"]
    ),
    ("09h_choices", 0, "no delta"): lambda t: (
        of(t, choice="no delta")["depth"][:-1], of(t, choice="no delta")["completeness"][:-1]
    ),
    ("09h_choices", 2, "AND alone"): lambda t: (of(t, choice="AND alone")["depth"],
                                                of(t, choice="AND alone")["mean_order"]),
    ("09i_phases", 1, "no node"): lambda t: step_and(of(t, phase="no node", seed=0), "completeness"),
    ("10a_along_training", 3, "loss"): lambda t: along(t, phase="catapult", quantity="loss"),
    ("10a_along_training", 10, "response"): lambda t: along(t, phase="no node", quantity="response"),
    ("10b_details", 2, "d ln response / d ln t"): lambda t: along(t, phase="decay", quantity="aging"),
    ("10b_details", 5, "order 2"): lambda t: along(t, phase="no node", quantity="strength", order=2),
    ("10b_details", 11, "act2"): lambda t: along(t, phase="decoupled", quantity="R", layer="act2"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "panel", "label"), marked(CURVES))
def test_a_curve_is_that_of_the_table(name, panel, label):
    x, y = drawn(panels_of(name)[panel], label)
    expected_x, expected_y = CURVES[name, panel, label](table_of(name))
    assert len(y) and np.asarray(y) == pytest.approx(np.asarray(expected_y), rel=1e-9, nan_ok=True)
    if expected_x is not None:
        assert np.asarray(x) == pytest.approx(np.asarray(expected_x), rel=1e-9)


def test_intervals_of_planted_are_students():
    rows = of(table_of("09a_planted"), state="trained", layer="hidden3")
    low, high = stats.ttest_1samp(rows["completeness"], 0).confidence_interval(0.95)
    trained = panels_of("09a_planted")[0].containers[1]
    assert trained.lines[2][0].get_segments()[2][:, 1] == pytest.approx([low, high])


def test_planted_terms_have_their_sizes():
    terms = Saved("09a_planted", "paper").sidecar["arguments"]["terms"]
    lines = [list(line.get_ydata()) for line in panels_of("09a_planted")[2].lines]
    for name in {term["coalition"] for term in terms}:
        rows = [term for term in terms if term["coalition"] == name]
        assert [rows[0]["planted"]] * 2 in lines and [row["found"] for row in rows] in lines


@pytest.mark.slow
def test_bands_are_the_range_over_seeds():
    runs = of(table_of("10a_along_training"), phase="no node", quantity="loss")
    corners = panels_of("10a_along_training")[0].collections[0].get_paths()[0].vertices
    for step, values in runs.groupby("step")["value"]:
        found = corners[np.isclose(corners[:, 0], step + 1), 1]
        assert (found.min(), found.max()) == pytest.approx((values.min(), values.max()))


def test_runs_of_one_phase_at_two_noise_scales_look_different():
    ends, ax = of(table_of("09i_phases"), step=table_of("09i_phases")["step"].max()), panels_of("09i_phases")[0]
    shown = {(line.get_color(), line.get_marker(), line.get_ydata()[-1]) for line in ax.lines}
    looks = {(phase, sigma): {look[:2] for look in shown if look[2] in set(rows["mean_order"])}
             for (phase, sigma), rows in ends.groupby(["phase", "sigma"])}  # fmt: skip
    assert all(len(look) == 1 for look in looks.values()) and len(set.union(*looks.values())) == len(looks) == 5


def test_bars_of_the_ledger_stand_at_their_order():
    x, _ = drawn(panels_of("09f_ledger")[0], "block2")  # the middle of five entries
    assert x == pytest.approx(sorted(set(table_of("09f_ledger")["order"])))


def test_change_points_are_the_steps_of_each_quantity():
    table = table_of("10c_change_points")
    names = list(dict.fromkeys(table["quantity"]))
    assert [text.get_text() for text in panels_of("10c_change_points")[0].get_yticklabels()] == names
    for ax in panels_of("10c_change_points"):
        for place, name in enumerate(names):
            rows = of(table, phase=ax.get_title(), quantity=name).dropna(subset=["step"])
            dots = ax.collections[place]
            assert dots.get_offsets()[:, 0].tolist() == pytest.approx((rows["step"] + 1).tolist())
            assert set(dots.get_offsets()[:, 1]) <= {place}
            assert dots.get_sizes() == pytest.approx((22 * rows["explained"] ** 2).to_numpy())


def test_together_has_shares_above_and_ranks_below():
    table, (ax,) = table_of("10d_together"), panels_of("10d_together")
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names == [text.get_text() for text in ax.get_yticklabels()]
    texts = {text.get_position(): text for text in ax.texts}
    for row in table.itertuples():
        above, below = sorted((names.index(row.first), names.index(row.second)))
        assert shown[above, below] == pytest.approx(row.share - row.chance)
        assert shown[below, above] == pytest.approx(row.rank, nan_ok=True)
        text = texts[below, above]
        assert float(text.get_text()) == pytest.approx(row.share - row.chance, abs=0.0051)
        assert (text.get_weight() == "bold") == (row.p < 0.05)
        if np.isfinite(row.rank):
            assert float(texts[above, below].get_text()) == pytest.approx(row.rank, abs=0.0051)


def test_coloured_diagrams_have_the_value_and_the_phase_of_each_run():
    table, panels = table_of("10e_coloured"), panels_of("10e_coloured")
    top, bottom = (panels[: len(panels) // 2], panels[len(panels) // 2 :])
    for ax, below, quantity in zip(top, bottom, dict.fromkeys(table["quantity"]), strict=True):
        rows = of(table, quantity=quantity)
        values = np.ma.filled(ax.collections[0].get_array(), np.nan).ravel()
        expected = rows.groupby(["lr", "sigma"])["value"].mean()
        assert ax.get_title() == below.get_ylabel() and values == pytest.approx(expected.to_numpy(), nan_ok=True)
        colors = [to_rgba(PHASE_COLORS[phase]) for phase in rows["phase"]]
        assert [to_rgba(line.get_markerfacecolor()) for line in ax.lines] == colors
        assert all(
            line.get_xdata()[0] == pytest.approx(row.sigma, rel=3) and line.get_ydata()[0] == row.lr
            for line, row in zip(ax.lines, rows.itertuples(), strict=True)
        )
        points = [(*line.get_xdata(), *line.get_ydata()) for line in below.lines[: len(rows)]]
        assert np.array(points) == pytest.approx(rows[["kappa_1", "value"]].to_numpy(), nan_ok=True)

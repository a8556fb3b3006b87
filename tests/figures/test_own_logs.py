"""Catches: a figure of one's own log that shows other numbers than the log, or hides a run."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import nin
from nin import figures
from nin.figures import Saved
from nin.phases import criteria, fit_decay


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    """Runs in the four phases."""
    base = nin.RunConfig(n_train=256, widths=(16,), steps=150, batch_size=32, eval_points=8, resample="step", lr=0.1)
    return nin.train([base.replace(sigma=sigma) for sigma in (0.1, 8.0, 30.0, 300.0)]).frame()


def lines(ax):
    return [line for line in ax.lines if len(line.get_xdata()) > 2]


def test_trajectories_show_every_run_in_the_colour_of_its_phase(log):
    found = {run: criteria(rows).phase for run, rows in log.groupby("run")}
    assert len(set(found.values())) >= 3
    with mpl.rc_context(figures.style()):
        figure = figures.trajectories(log)
    left, right = figure.axes
    assert len(lines(right)) == 4
    for line, (run, rows) in zip(lines(right), log.groupby("run"), strict=True):
        assert line.get_color() == figures.PHASE_COLORS[found[run]]
        np.testing.assert_allclose(line.get_ydata(), rows["niw_norm"] / rows["niw_norm"].iloc[0])
        np.testing.assert_array_equal(line.get_xdata(), rows["step"] + 1)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label for label in labels if label.startswith(found[0])] == [f"{found[0]}, $\\sigma$ = 0.1"]
    measured = log[log["run"] == 0].dropna(subset=["expected_loss"])
    assert any(np.array_equal(line.get_ydata(), measured["expected_loss"]) for line in left.lines)


def test_a_log_of_three_columns_is_enough_and_weight_decay_is_drawn_apart(log):
    one = log.loc[log["run"] == 0, ["step", "noisy_loss", "niw_norm"]]
    assert len(lines(figures.trajectories(one).axes[1])) == 1
    decayed = one.assign(niw_decay=np.exp(-one["step"] / 100))
    figure = figures.trajectories(decayed)
    assert np.array_equal(figure.axes[1].lines[1].get_ydata(), decayed["niw_decay"])
    with pytest.raises(ValueError, match="data has no column noisy_loss; a log has"):
        figures.trajectories(one.drop(columns="noisy_loss"))


def test_phases_show_the_numbers_that_decide(log):
    figure = figures.phases(log)
    shown = {}
    for ax, value in zip(figure.axes, ("spike", "kept"), strict=True):
        points = [(x, y) for c in ax.containers for x, y in zip(*c.lines[0].get_data(), strict=True)]
        shown[value] = dict(points)
        for _, rows in log.groupby("run"):
            number, sigma = getattr(criteria(rows), value), rows["sigma"].iloc[0]
            if number < 100:
                assert shown[value][sigma] == pytest.approx(number)
        triangles = [line for line in ax.lines if line.get_marker() == "^" and len(line.get_xdata())]
        assert {x for line in triangles for x in line.get_xdata()} | set(shown[value]) == set(log["sigma"])
    with pytest.raises(ValueError, match="data has no column sigma"):
        figures.phases(log.drop(columns="sigma"))


def test_decay_times_are_those_of_the_fit(log):
    figure = figures.decay_times(log)
    (ax,) = figure.axes
    points = {
        x: y for c in ax.containers for x, y in zip(*c.lines[0].get_data(), strict=True) if "W_{NI}" in c.get_label()
    }
    calm = [(rows["sigma"].iloc[0], rows) for _, rows in log.groupby("run") if criteria(rows).phase != "divergent"]
    taus = {sigma: fit_decay(rows["step"], rows["niw_norm"]).tau for sigma, rows in calm}
    assert points == {sigma: pytest.approx(tau) for sigma, tau in taus.items() if np.isfinite(tau)}
    assert points


def test_readings_have_a_panel_for_each_number_and_a_line_for_each_run(log):
    steps = [0, 10, 100]
    table = pd.DataFrame(
        [(run, step, layer, run + step, step**2.0) for run in (0, 1) for step in steps for layer in ("a", "b")],
        columns=["run", "step", "layer", "rank", "flips"],
    ).assign(failure=np.nan)
    figure = figures.readings(table)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["rank", "flips"]
    assert [len(ax.lines) for ax in shown] == [4, 4]
    assert np.array_equal(shown[0].lines[2].get_ydata(), [1, 11, 101])
    with pytest.raises(ValueError, match="no column of numbers beside step"):
        figures.readings(table[["run", "step", "layer"]])


def test_tables_of_the_four_probes_have_a_panel_for_each_quantity():
    rows = [
        (quantity, layer, 0, step + place, 0.5, step)
        for step in (0, 10, 100)
        for quantity, layers in (("lambda", ["1"]), ("D", ["1", "out"]))
        for place, layer in enumerate(layers)
    ]
    table = pd.DataFrame(rows, columns=["quantity", "layer", "order", "value", "error", "step"])
    figure = figures.readings(table.assign(probe="all"))
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["lambda", "D"]
    assert [len(ax.containers) for ax in shown] == [1, 2]
    line, _, (bars,) = shown[1].containers[1].lines
    assert np.array_equal(line.get_ydata(), [1, 11, 101])
    assert [np.ptp(segment[:, 1]) for segment in bars.get_segments()] == [1.0, 1.0, 1.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "out"]
    colors = [container.lines[0].get_color() for ax in shown for container in ax.containers]
    assert colors == [figures.PALETTE[0], figures.PALETTE[0], figures.PALETTE[1]]


@pytest.mark.slow
def test_a_figure_is_saved_where_one_is_and_drawn_again_from_there(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path / "elsewhere"))
    figures.save(figures.trajectories, "mine", data=log, folder=".")
    assert {path.name for path in tmp_path.iterdir()} == {f"mine.{end}" for end in ("pdf", "svg", "png", "csv", "json")}
    before = (tmp_path / "mine.pdf").read_bytes()
    figures.redraw("mine", folder=tmp_path)
    assert (tmp_path / "mine.pdf").read_bytes() == before
    assert Saved("mine", "quick", tmp_path).sidecar["draw"] == "nin.figures.own_logs.trajectories"
    with pytest.raises(ValueError, match="name='yours' is not a figure in .*; there are: mine"):
        figures.redraw("yours", folder=tmp_path)

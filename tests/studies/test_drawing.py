"""Catches lines over seeds at other means, or with other ranges and intervals, than those computed by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studies.drawing import line_with_interval, line_with_range
from studies.statistics import geometric_band, mean_interval

X = (1, 10, 100)


@pytest.fixture
def runs() -> pd.DataFrame:
    """Five seeds at each x, in no order, of positive values."""
    generator = np.random.default_rng(1)
    table = pd.DataFrame({"x": np.repeat(X, 5), "y": generator.lognormal(size=15)})
    return table.sample(frac=1, random_state=2)


@pytest.fixture
def ax():
    return plt.subplots()[1]


def values(runs, x):
    return runs.loc[runs["x"] == x, "y"].to_numpy()


def bars(ax):
    """The ends of the error bars: (lower, upper) at each x."""
    (container,) = ax.containers
    return [tuple(segment[:, 1]) for segment in container.lines[2][0].get_segments()]


def band(ax):
    """The ends of the band at each x."""
    (shape,) = ax.collections
    corners = shape.get_paths()[0].vertices
    return [(corners[corners[:, 0] == x, 1].min(), corners[corners[:, 0] == x, 1].max()) for x in X]


@pytest.mark.parametrize("center", ["mean", "median"])
def test_range_is_from_the_smallest_to_the_largest(ax, runs, center):
    line_with_range(ax, runs["x"], runs["y"], color="C1", center=center)
    assert ax.lines[0].get_xdata().tolist() == list(X)
    expected = [getattr(np, center)(values(runs, x)) for x in X]
    assert ax.lines[0].get_ydata() == pytest.approx(expected, rel=1e-12)
    ends = [(values(runs, x).min(), values(runs, x).max()) for x in X]
    assert np.array(band(ax)) == pytest.approx(np.array(ends), rel=1e-12)


@pytest.mark.parametrize("shape", [bars, band])
def test_interval_is_students(ax, runs, shape):
    line_with_interval(ax, runs["x"], runs["y"], color="C1", band=shape is band)
    intervals = [mean_interval(values(runs, x)) for x in X]
    assert ax.lines[0].get_ydata() == pytest.approx([one.mean for one in intervals], rel=1e-12)
    ends = [(one.mean - one.half, one.mean + one.half) for one in intervals]
    assert np.array(shape(ax)) == pytest.approx(np.array(ends), rel=1e-12)
    by_scipy = [stats.ttest_1samp(values(runs, x), 0).confidence_interval(0.95) for x in X]
    assert np.array(shape(ax)) == pytest.approx(np.array(by_scipy), rel=1e-9)


@pytest.mark.parametrize("shape", [bars, band])
def test_geometric_interval_is_that_of_the_logarithms(ax, runs, shape):
    line_with_interval(ax, runs["x"], runs["y"], color="C1", geometric=True, band=shape is band)
    found = [geometric_band(values(runs, x)) for x in X]
    assert ax.lines[0].get_ydata() == pytest.approx([one.mean for one in found], rel=1e-12)
    assert np.array(shape(ax)) == pytest.approx(np.array([(one.low, one.high) for one in found]), rel=1e-12)


def test_missing_and_infinite_values_are_left_out(ax, runs):
    runs = pd.concat([runs, pd.DataFrame({"x": [1, 10], "y": [np.nan, np.inf]})])
    line_with_interval(ax, runs["x"], runs["y"], color="C1")
    finite = runs[np.isfinite(runs["y"])]
    assert ax.lines[0].get_ydata() == pytest.approx(finite.groupby("x")["y"].mean().to_numpy())


def test_one_seed_has_a_mean_and_no_interval(ax, runs):
    one = runs.drop_duplicates("x")
    line_with_interval(ax, one["x"], one["y"], color="C1")
    assert ax.lines[0].get_ydata() == pytest.approx(one.sort_values("x")["y"].to_numpy())
    (container,) = ax.containers
    assert not any(len(segment) for segment in container.lines[2][0].get_segments())


def test_labels_of_the_axes_are_left_alone(ax, runs):
    ax.set_ylabel("own")
    line_with_range(ax, runs["x"], runs["y"], color="C1", label="curve")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_legend()) == ("", "own", None)
    assert ax.get_legend_handles_labels()[1] == ["curve"]


@pytest.mark.parametrize("draw", [line_with_range, line_with_interval])
@pytest.mark.parametrize("scales", [{"xscale": "log"}, {"yscale": "log"}, {"yscale": "symlog"}])
def test_axes_that_are_not_linear_are_refused(ax, runs, draw, scales):
    ax.set(**scales)
    with pytest.raises(ValueError, match="both must be linear here, so set them after drawing the lines"):
        draw(ax, runs["x"], runs["y"], color="C1")

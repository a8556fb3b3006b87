"""Catches figures that cannot be read in print and are not mended, and figures without faults that are changed."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from nin.figures import panels, style
from nin.support.legible import covered, labels, make_legible, overlapping


@pytest.fixture
def ax():
    with mpl.rc_context(style()):
        figure, axes = panels(1, 2, height=0.8)
        axes[0, 1].plot([0, 1], [0, 1])
        yield axes[0, 0]
        plt.close(figure)


def drawn(ax):
    ax.figure.draw_without_rendering()
    return [text.get_text() for text in labels(ax.yaxis)]


@pytest.mark.parametrize(
    "ends", [(0.43, 6.2), (0.0177, 0.0509), (0.00206, 0.0602), (0.43, 0.48), (3e-7, 2e-6), (0.2, 9e5)]
)
def test_a_log_axis_of_any_length_gets_two_labels(ax, ends):
    ax.plot([0, 1], ends)
    ax.set(yscale="log", ylim=ends)
    make_legible(ax.figure)
    assert len(drawn(ax)) >= 2 and not overlapping(labels(ax.yaxis))


def test_labels_of_a_short_log_axis_are_numbers(ax):
    ax.plot([0, 1], [0.00206, 0.0602])
    ax.set(yscale="log", ylim=(0.00206, 0.0602))
    ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    assert drawn(ax) == [r"$\mathdefault{10^{-2}}$"]
    make_legible(ax.figure)
    assert drawn(ax) == ["0.01", "0.003", "0.03"]


def test_labels_that_overlap_are_thinned():
    with mpl.rc_context(style()):
        figure, axes = panels(1, 7, height=0.8)
    for ax in axes[0]:
        ax.plot([0, 1], [0.0269, 0.309])
        ax.set(yscale="log", xlim=(0, 60))
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(9))
    figure.draw_without_rendering()
    assert overlapping(labels(axes[0, 0].xaxis))
    make_legible(figure)
    figure.draw_without_rendering()
    for ax in axes[0]:
        assert len(labels(ax.xaxis)) >= 2 and not overlapping(labels(ax.xaxis))
        assert len(labels(ax.yaxis)) >= 2 and not overlapping(labels(ax.yaxis))
    plt.close(figure)


def test_ticks_set_by_hand_and_hidden_ones_stay(ax):
    ax.set(yticks=[0.5], yticklabels=["half"])
    ax.tick_params(labelbottom=False)
    make_legible(ax.figure)
    assert drawn(ax) == ["half"] and labels(ax.xaxis) == []


def test_no_text_is_below_six_points(ax):
    ax.plot([0, 1], [0, 1], label="curve")
    ax.legend(fontsize=4.5)
    ax.tick_params(labelsize=5)
    make_legible(ax.figure)
    ax.set_xlim(0, 1234)  # makes new ticks
    ax.figure.draw_without_rendering()
    assert {text.get_fontsize() for text in [*labels(ax.xaxis), *ax.get_legend().get_texts()]} == {6.0}


def test_a_legend_leaves_the_data_where_there_is_room(ax):
    x = np.linspace(0, 1, 50)
    ax.plot(x, 1 - np.exp(-9 * x), label="curve")
    legend = ax.legend(loc="upper right")
    ax.figure.draw_without_rendering()
    assert covered(ax, legend) > 0.1
    make_legible(ax.figure)
    ax.figure.draw_without_rendering()
    assert covered(ax, legend) == 0


def test_covered_is_the_part_of_the_length_of_the_curves(ax):
    """One segment without a vertex within the legend's box, which takes the middle half of its length."""
    ax.plot([0, 1], [0.5, 0.5], label="")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    legend = ax.legend([mpl.lines.Line2D([], [])], [""], loc="center")
    legend.get_window_extent = lambda renderer=None: mpl.transforms.Bbox(
        ax.transData.transform([(0.25, 0.4), (0.75, 0.6)])
    )
    ax.figure.draw_without_rendering()
    assert covered(ax, legend) == pytest.approx(0.5, abs=0.02)


def test_a_figure_without_faults_keeps_its_bytes():
    def saved(mend):
        with mpl.rc_context(style()):
            figure, axes = panels(1, 2, height=0.8)
            axes[0, 0].plot([1, 1000], [1, 1000], label="curve")
            axes[0, 0].set(xscale="log", yscale="log", xlabel="x", title="panel")
            axes[0, 0].legend(loc="upper left")
            axes[0, 1].plot([0, 1], [0, 1])
            if mend:
                make_legible(figure)
            file = io.BytesIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
            plt.close(figure)
        return file.getvalue()

    assert saved(True) == saved(False)

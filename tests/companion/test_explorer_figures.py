"""Catches explorer figures with an empty panel, other curves than the runs', or shading that is not at its borders."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from nin.companion.explorer.borders import Borders
from nin.companion.explorer.figures import LR, SIGMA, diagram, files, over_time
from nin.companion.explorer.setting import Found, Setting
from nin.figures import PHASE_COLORS
from nin.phases import PHASES

ONSET = np.array([0.4, 0.3, 0.1, 0.002])
BORDERS = Borders(
    sigma=np.array([0.05, 10.0, 30.0, 250.0]),
    rates={"decay": np.array([0.4, 0.01, 0.001, 0.0001]), "catapult": ONSET, "divergent": 3 * ONSET},
    plain=0.4,
)


def runs(last: float | None = None) -> pd.DataFrame:
    """Two seeds of 40 steps, whose node decays by 0.95 a step, or grows to `last`."""
    step = np.arange(0, 40, 2)
    niw = 0.95**step if last is None else np.geomspace(1, min(last, 1e20), len(step))
    if last == np.inf:
        niw[len(niw) // 2 :] = np.inf
    columns = {"step": step, "niw": niw, "theory": 0.94**step}
    return pd.concat([pd.DataFrame({"seed": seed} | columns | {"noisy_loss": niw + seed}) for seed in (0, 1)])


def tried() -> pd.DataFrame:
    """Three settings, the last of which is the current one."""
    rows = [(1.0, 0.01, "decay"), (2.0, 0.01, "decay"), (100.0, 0.1, "divergent")]
    return pd.DataFrame(rows, columns=["sigma", "lr", "phase"])


def test_over_time_shows_each_run_and_the_theory():
    data = runs()
    loss, size = over_time(data, phase="decay").axes
    assert (loss.get_title(), size.get_title()) == ("noisy training loss", "size of the node over its start")
    assert {(ax.get_xlabel(), ax.get_xscale(), ax.get_yscale()) for ax in (loss, size)} == {("step + 1", "log", "log")}
    for line, (_, run) in zip(loss.lines, data.groupby("seed"), strict=True):
        assert np.array_equal(line.get_xdata(), run["step"] + 1)
        assert line.get_ydata() == pytest.approx(run["noisy_loss"].clip(lower=1e-8).to_numpy())
        assert to_rgba(line.get_color()) == to_rgba(PHASE_COLORS["decay"])
    for number, (_, run) in enumerate(data.groupby("seed")):
        measured, theory = size.lines[2 * number : 2 * number + 2]
        assert measured.get_ydata() == pytest.approx(run["niw"].to_numpy())
        assert theory.get_ydata() == pytest.approx(run["theory"].to_numpy()) and theory.get_linestyle() == "--"
    assert [text.get_text() for text in size.get_legend().get_texts()] == ["measured", r"theory, $|1-\kappa|^t$"]


@pytest.mark.parametrize("last", [None, 1e4, 1e12, np.inf])
def test_size_of_the_node_stays_within_its_axis(last):
    _, size = over_time(runs(last), phase="divergent").axes
    low, high = size.get_ylim()
    for line in size.lines[::2]:
        assert np.isfinite(line.get_ydata()).all()
        assert (low < np.asarray(line.get_ydata())).all() and (np.asarray(line.get_ydata()) < high).all()


def test_digits_have_no_theory():
    loss, size = over_time(runs().drop(columns="theory"), phase="decay").axes
    assert len(loss.lines) == len(size.lines) == 2
    assert [text.get_text() for text in size.get_legend().get_texts()] == ["measured"]


def test_diagram_is_shaded_between_the_borders():
    (ax,) = diagram(tried(), borders=BORDERS).axes
    inside = dict.fromkeys(PHASES, 0)
    bands = ax.collections[: len(PHASES)]
    for sigma in np.geomspace(*SIGMA, 23)[1:-1]:
        rates = [BORDERS.rate(phase, sigma) for phase in PHASES[1:]]
        for lr in np.geomspace(*LR, 17)[1:-1]:
            if min(abs(np.log(lr / rates))) < 0.02:
                continue  # on a border, which is drawn as a polygon
            expected = PHASES[sum(lr > rate for rate in rates)]
            assert BORDERS.phase(sigma, lr) == expected
            for band, phase in zip(bands, PHASES, strict=True):
                assert band.get_paths()[0].contains_point((sigma, lr)) == (phase == expected), (sigma, lr, phase)
                assert to_rgba(band.get_facecolor()[0])[:3] == to_rgba(PHASE_COLORS[phase])[:3]
            inside[expected] += 1
    assert min(inside.values()) > 0
    for below, above, phase in zip(bands, bands[1:], PHASES[1:], strict=False):  # both end on the border between them
        for sigma in SIGMA[0], 10.0, 30.0, 250.0, SIGMA[1]:
            edges = [
                {y for path in band.get_paths() for x, y in path.vertices if np.isclose(x, sigma, rtol=1e-12)}
                for band in (below, above)
            ]
            assert min(abs(y / BORDERS.rate(phase, sigma) - 1) for y in edges[0] & edges[1]) < 1e-9


def test_diagram_hatches_what_plain_sgd_does_by_itself():
    *_, hatched = diagram(tried(), borders=BORDERS).axes[0].collections
    box = hatched.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == pytest.approx((0.4, LR[1])) and hatched.get_hatch()
    assert (box.x0, box.x1) == pytest.approx(SIGMA)
    stable = Borders(BORDERS.sigma, BORDERS.rates)
    assert len(diagram(tried(), borders=stable).axes[0].collections) == len(PHASES)


def test_diagram_shows_the_settings_and_the_borders():
    (ax,) = diagram(tried(), borders=BORDERS).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == (r"noise scale $\sigma$", r"learning rate $\eta$")
    assert (ax.get_xlim(), ax.get_ylim()) == (SIGMA, LR) and (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    lines, dots = ax.lines[:2], ax.lines[2:]
    for line, phase in zip(lines, ("catapult", "divergent"), strict=True):
        assert line.get_ydata() == pytest.approx(BORDERS.rate(phase, line.get_xdata()))
        assert (line.get_xdata()[0], line.get_xdata()[-1]) == pytest.approx(SIGMA)
    assert not any(dot.get_clip_on() for dot in dots)
    before, now = dots
    assert (before.get_xdata().tolist(), before.get_ydata().tolist()) == ([1.0, 2.0], [0.01, 0.01])
    assert (list(now.get_xdata()), list(now.get_ydata()), now.get_markeredgecolor()) == ([100.0], [0.1], "k")
    assert to_rgba(now.get_color()) == to_rgba(PHASE_COLORS["divergent"])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [r"$\kappa_1=2$", r"$\kappa_1=6$", "plain SGD unstable", "divergent"]


def found(setting: Setting) -> Found:
    return Found(setting, runs(), ("decay",) * 3, ("stable",) * 3, BORDERS)


def test_diagram_shows_the_settings_of_its_own_plane():
    """A point of another width would lie on the borders of another network."""
    here = [found(Setting(sigma=sigma)) for sigma in (3.0, 4.0)]
    elsewhere = found(Setting(sigma=100.0, width=16))
    alone, together = (files(tried)["explore_diagram.png"] for tried in (here, [elsewhere, *here]))
    assert alone == together != files(here[1:])["explore_diagram.png"]


def test_files_hold_both_figures_and_the_table():
    setting = Setting(sigma=2.0, lr=0.1)
    contents = files([found(setting)])
    table = pd.read_csv(io.BytesIO(contents["explore.csv"]))
    pd.testing.assert_frame_equal(table, runs().reset_index(drop=True))
    for name, inches in (("explore.png", 5.5), ("explore_diagram.png", 3.0)):
        picture = plt.imread(io.BytesIO(contents[name]))
        assert picture.shape[1] == pytest.approx(160 * inches, abs=1) and picture[..., :3].std() > 0.01
    assert not plt.get_fignums()

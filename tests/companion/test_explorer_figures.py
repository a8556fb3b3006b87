"""Catches explorer figures with an empty panel, other curves than the runs', or shading that is not at its borders."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from nin.companion.explorer.borders import Borders
from nin.companion.explorer.figures import FRAME, LR, SIGMA, diagram, files, over_time, picture, small
from nin.companion.explorer.setting import Setting
from nin.companion.explorer.trained import Found
from nin.figures import PHASE_COLORS
from nin.phases import PHASES, Criteria

ONSET = np.array([0.4, 0.3, 0.1, 0.002])
BORDERS = Borders(
    sigma=np.array([0.05, 10.0, 30.0, 250.0]),
    rates={"decay": np.array([0.4, 0.01, 0.001, 0.0001]), "catapult": ONSET, "divergent": 3 * ONSET},
    scatter=dict.fromkeys(PHASES[1:], 1.3),
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
    assert (loss.get_title(), size.get_title()) == ("noisy training loss", "size of the node / its start")
    assert {(ax.get_xlabel(), ax.get_xscale(), ax.get_yscale()) for ax in (loss, size)} == {("step + 1", "log", "log")}
    for line, (_, run) in zip(loss.lines, data.groupby("seed"), strict=True):
        assert np.array_equal(line.get_xdata(), run["step"] + 1)
        assert line.get_ydata() == pytest.approx(run["noisy_loss"].clip(lower=1e-8).to_numpy())
        assert to_rgba(line.get_color()) == to_rgba(PHASE_COLORS["decay"])
    for number, (_, run) in enumerate(data.groupby("seed")):
        measured, theory = size.lines[2 * number : 2 * number + 2]
        assert measured.get_ydata() == pytest.approx(run["niw"].to_numpy())
        assert theory.get_ydata() == pytest.approx(run["theory"].to_numpy()) and theory.get_linestyle() == "--"
    assert [text.get_text() for text in size.get_legend().get_texts()] == ["measured", "theory, typical batches"]


def test_over_time_shows_the_loss_without_a_node():
    data = runs().assign(plain_loss=lambda frame: np.where(frame["seed"] == 0, 0.5, np.nan))
    loss, _ = over_time(data, phase="decay").axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["without node", "with node"]
    assert loss.lines[0].get_ydata() == pytest.approx(np.full(20, 0.5)) and len(loss.lines) == 3


def test_a_small_panel_shows_loss_and_node_over_their_start():
    (ax,) = small(runs(), phase="decay", steps=300).axes
    loss, size = ax.lines
    run = runs()[runs()["seed"] == 0]
    assert loss.get_ydata() == pytest.approx((run["noisy_loss"] / run["noisy_loss"].iloc[0]).to_numpy())
    assert size.get_ydata() == pytest.approx(run["niw"].to_numpy()) and ax.get_xlim() == (1, 301)


def test_axes_lie_where_the_animation_is_laid():
    """The page lays it over the pictures, at these fractions of each panel."""
    left, bottom, right, top = FRAME
    halves = [ax.get_position() for ax in over_time(runs(), phase="decay").axes]
    (plane,) = [ax.get_position() for ax in diagram(tried(), borders=BORDERS).axes]
    for box, (begin, share) in zip([*halves, plane], [(0, 2), (0.5, 2), (0, 1)], strict=True):
        assert (box.x0, box.x1) == pytest.approx((begin + left / share, begin + right / share))
        assert (box.y0, box.y1) == pytest.approx((bottom, top))


def test_nothing_is_cut_off():
    """Texts lie within the picture: the frame is fixed, and nothing else makes room for them."""
    drawn = [over_time(runs(last), phase="decay") for last in (None, 1e4)] + [diagram(tried(), borders=BORDERS)]
    for figure in drawn:
        figure.draw_without_rendering()
        for ax in figure.axes:
            box, whole = ax.get_tightbbox(), figure.bbox
            assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1, (box, whole)
            assert box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1, (box, whole)


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
    phases = [phase for phase, _, _ in BORDERS.regions(1.0)]
    bands = ax.collections[: len(phases)]
    for sigma in np.geomspace(*SIGMA, 23)[1:-1]:
        edges = [low for _, low, _ in BORDERS.regions(sigma)[1:]]
        for lr in np.geomspace(*LR, 17)[1:-1]:
            if min(abs(np.log(lr / edges))) < 0.02:
                continue  # on a border, which is drawn as a polygon
            expected = BORDERS.phase(sigma, lr)
            shaded = [
                phase for band, phase in zip(bands, phases, strict=True)
                if any(path.contains_point((sigma, lr)) for path in band.get_paths())
            ]  # fmt: skip
            assert shaded == [expected], (sigma, lr)
            inside[expected] += 1
    for band, phase in zip(bands, phases, strict=True):
        assert to_rgba(band.get_facecolor()[0])[:3] == to_rgba(PHASE_COLORS[phase])[:3]
    assert min(inside.values()) > 0
    assert {text.get_text() for text in ax.texts} <= set(PHASES) and len(ax.texts) >= 3


def test_diagram_hatches_what_plain_sgd_does_by_itself():
    *_, hatched = diagram(tried(), borders=BORDERS).axes[0].collections
    box = hatched.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == pytest.approx((0.4, LR[1])) and hatched.get_hatch()
    assert (box.x0, box.x1) == pytest.approx(SIGMA)
    stable = Borders(BORDERS.sigma, BORDERS.rates, BORDERS.scatter)
    assert len(diagram(tried(), borders=stable).axes[0].collections) == len(BORDERS.regions(1.0))


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
    assert texts == [r"$\kappa_1=2$", r"$\kappa_1=6$", "SGD alone unstable"]


def found(setting: Setting) -> Found:
    return Found(setting, runs(), (Criteria(spike=1.0, kept=0.4, peak=1.0, finite=True),) * 2, BORDERS)


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
    for name, inches in (("explore.png", 5.8), ("explore_diagram.png", 2.9)):
        pixels = plt.imread(io.BytesIO(contents[name]))
        assert pixels.shape[1] == pytest.approx(160 * inches, abs=1) and pixels[..., :3].std() > 0.01
    assert picture(lambda: small(runs(), phase="decay", steps=40)).startswith(b"\x89PNG")
    assert not plt.get_fignums()

"""Catches: figures that differ from run to run or from their table, lost provenance, changed matplotlib settings."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import seaborn as sns

from nin import figures
from nin.figures import begin, panels, redraw, save

FILES = ("pdf", "svg", "png")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    begin("00_test", profile="quick", parameters={"seeds": 2}, data={"digits": "abc"})
    return tmp_path / "quick"


def draw(data, *, color="C0", powers=(1, 2)):
    figure, axes = panels(1, 2)
    for power in powers:
        axes[0, 0].plot(data["x"], data["y"] ** power, color=color, label=rf"$y^{power}$")
    axes[0, 1].plot(data["x"], data["label"].str.len())
    return figure


DATA = pd.DataFrame({"x": np.linspace(0, 1, 7) / 3, "y": np.geomspace(1, 2, 7), "label": list("abcdefg"), "seed": 3})


def read(folder, name="curve"):
    return {suffix: (folder / f"{name}.{suffix}").read_bytes() for suffix in FILES}


def test_same_bytes_on_rerun_and_on_redraw(folder):
    save(draw, "curve", data=DATA, color="C1")
    first = read(folder)
    save(draw, "curve", data=DATA, color="C1")
    assert read(folder) == first
    for suffix in FILES:
        (folder / f"curve.{suffix}").unlink()
    redraw("curve")
    assert read(folder) == first
    save(draw, "curve", data=DATA, color="C2")
    assert all(read(folder)[suffix] != first[suffix] for suffix in FILES)


def test_sidecar_tells_where_a_figure_comes_from(folder):
    save(draw, "curve", data=DATA, powers=[1, 3])
    sidecar = json.loads((folder / "curve.json").read_text())
    assert sidecar["draw"] == f"{__name__}.draw" and sidecar["arguments"] == {"powers": [1, 3]}
    assert sidecar["notebook"] == "00_test" and sidecar["parameters"] == {"seeds": 2}
    assert sidecar["seeds"] == [3] and sidecar["data"] == {"digits": "abc"}
    assert {"torch", "numpy", "matplotlib", "nin"} <= set(sidecar["versions"]) and sidecar["seconds"] >= 0


def test_table_is_the_plotted_one(folder):
    save(draw, "curve", data=DATA)
    saved = pd.read_csv(folder / "curve.csv")
    pd.testing.assert_frame_equal(saved, DATA, check_exact=True, check_dtype=False)


def test_settings_and_open_figures_are_left_alone():
    before = dict(mpl.rcParams)
    save(draw, "curve", data=DATA)
    assert dict(mpl.rcParams) == before
    assert mpl.pyplot.get_fignums() == []


def test_figure_has_the_text_width_and_the_colours():
    with mpl.rc_context(figures.style()):
        assert draw(DATA).get_size_inches()[0] == pytest.approx(5.5)
        colours = [mpl.colors.to_rgb(entry["color"]) for entry in mpl.rcParams["axes.prop_cycle"]]
    mpl.pyplot.close("all")
    assert np.array(colours) == pytest.approx(np.array(sns.color_palette("colorblind")))


def test_bad_input_is_named(folder):
    with pytest.raises(ValueError, match="cannot be imported by name"):
        save(lambda data: None, "curve", data=DATA)
    with pytest.raises(ValueError, match="arguments of .*draw must be JSON"):
        save(draw, "curve", data=DATA, color=object())
    save(draw, "curve", data=DATA)
    with pytest.raises(ValueError, match="name='curv' is not a figure in .*; there are: curve"):
        redraw("curv")


def test_a_mistake_in_a_draw_function_is_shown_as_it_is(folder):
    """While a figure is made the error is the author's to read; drawn again, it says which notebook to run."""
    save(draw, "curve", data=DATA)
    with pytest.raises(KeyError, match="label"):
        save(draw, "curve", data=DATA[["x", "y"]])
    redraw("curve")  # what was saved before is whole
    DATA[["x", "y"]].to_csv(folder / "curve.csv", index=False)
    with pytest.raises(ValueError, match=r"curve.csv is not the table that curve.json was saved with.*run .* again"):
        redraw("curve")
    sidecar = json.loads((folder / "curve.json").read_text())
    (folder / "curve.json").write_text(json.dumps({key: sidecar[key] for key in ("draw", "arguments", "notebook")}))
    with pytest.raises(ValueError, match=r"cannot draw .*curve.csv \(KeyError.*run .* again"):
        redraw("curve")


def test_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write curve.csv into .*file/quick: .*NIN_FIGURES"):
        save(draw, "curve", data=DATA)

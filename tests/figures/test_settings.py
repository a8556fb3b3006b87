"""Catches: pictures that depend on the user's matplotlib or seaborn settings, and settings that saving changes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import seaborn as sns

from nin.companion.papers.export import export
from nin.figures import Saved, panels, save

DATA = pd.DataFrame({"x": [-1.0, 2.0], "y": [3.0, -4.0], "day": pd.to_datetime(["2020-01-01", "2020-01-02"])})


def several(data):
    """Letters, cycles, dates, minus signs, a legend."""
    figure, axes = panels(1, 3)
    axes[0, 0].plot(data["x"], data["y"], "b--", label="a")
    axes[0, 0].plot(data["x"], 2 * data["y"], "k", label="b")
    axes[0, 0].legend()
    axes[0, 1].plot(data["x"], data["y"])
    axes[0, 2].plot(data["day"], data["y"])
    axes[0, 2].tick_params("x", rotation=90)
    return figure


def dates():
    mpl.rcParams["timezone"] = "America/New_York"


USERS = {
    "seaborn": lambda: sns.set_theme(context="talk", style="darkgrid", palette="deep", font="serif"),
    "letters": lambda: sns.set_color_codes("pastel"),
    "dark": lambda: plt.style.use("dark_background"),
    "classic": lambda: plt.style.use("classic"),
    "minus": lambda: mpl.rcParams.update({"axes.unicode_minus": False, "axes.formatter.use_locale": True}),
    "zone": dates,
    "own": lambda: mpl.rcParams.update({"savefig.bbox": "tight", "savefig.transparent": True, "path.simplify": False}),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("a folder"))


def pictures(folder):
    save(several, "my figure", data=DATA, folder=folder)
    export(Saved("my figure", "quick", folder), folder / "out", format="svg")
    found = [path for suffix in ("pdf", "svg", "png", "tex") for path in folder.rglob(f"*.{suffix}")]
    return {path.relative_to(folder): path.read_bytes() for path in found}


@pytest.mark.slow
@pytest.mark.parametrize("user", USERS)
def test_the_users_settings_change_no_byte_and_stay_as_they_were(tmp_path, plain, user):
    letters = {letter: mpl.colors.to_rgba(letter) for letter in mpl.colors.BASE_COLORS}
    try:
        with mpl.rc_context():
            USERS[user]()
            before, colors = dict(mpl.rcParams), {letter: mpl.colors.to_rgba(letter) for letter in letters}
            assert pictures(tmp_path / "a b") == plain
            assert dict(mpl.rcParams) == before
            assert {letter: mpl.colors.to_rgba(letter) for letter in letters} == colors
            assert plt.get_fignums() == []
    finally:
        sns.set_color_codes("reset")
    assert len(plain) == 5

"""Catches: a file that has a function called, or a module imported, that was not known before it was read; a name that
leaves its folder; and files that are written before the figure is drawn."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from nin import figures
from nin.__main__ import main
from nin.figures import Saved, panels, redraw, save
from nin.figures.drawers import UnknownDraw, named

DATA = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})


def line(data):
    figure, axes = panels(1, 1)
    axes[0, 0].plot(data["x"], data["y"])
    return figure


def broken(data):
    raise RuntimeError("no figure")


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with a saved figure."""
    folder = tmp_path_factory.mktemp("saved")
    save(line, "mine", data=DATA, folder=folder)
    return folder


@pytest.fixture
def folder(mine, tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    return shutil.copytree(mine, tmp_path / "quick")


def told(folder, draw, table="x,y\n1,2\n"):
    """A stranger's figure."""
    (folder / "theirs.json").write_text(json.dumps({"draw": draw, "arguments": {}}))
    (folder / "theirs.csv").write_text(table)


@pytest.mark.parametrize("draw", ["subprocess.run", "os.system", "pandas.to_pickle", "builtins.exec", "nin.checks.save",
                                  "nin.figures.saving.Saved", "nin.figures.saving.save", "nin.figures.drawers._saved",
                                  "nin.figures.own_logs.np.savez", "studies.four_probes.measure.read_runs",
                                  "studies.four_probes.figures.np.save", "studies.four_probes.figures.panels",
                                  "studies..figures.x", "run", "", "studies.four_probes.figures._edges"])  # fmt: skip
def test_a_file_cannot_name_another_function(folder, draw, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("it was run"))
    told(folder, draw)
    with pytest.raises(UnknownDraw, match=f"theirs: draw='{draw}' is "):
        redraw("theirs")
    with pytest.raises(UnknownDraw):
        named(draw)


@pytest.mark.slow
def test_nothing_is_imported_from_the_working_directory(folder, tmp_path):
    """In another process, by listing, exporting and redrawing, for a module and for a `studies` of a stranger."""
    (tmp_path / "evil.py").write_text("print('EVIL')\ndef draw(data): pass\n")
    (tmp_path / "studies" / "evil").mkdir(parents=True)
    for place in ("", "evil/"):
        (tmp_path / "studies" / place / "__init__.py").write_text("print('EVIL')\n")
    code = "import sys; sys.path.insert(0, ''); from nin.figures import redraw; redraw('theirs')"
    for draw in ("evil.draw", "studies.evil.draw"):
        told(folder, draw)
        for command in (["-m", "nin", "figures", "list"], ["-m", "nin", "figures", "export", "theirs"], ["-c", code]):
            done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode and "EVIL" not in done.stdout + done.stderr, (draw, command, done)


def test_one_of_your_own_is_passed(folder, monkeypatch):
    monkeypatch.setattr("nin.figures.drawers._saved", {})
    with pytest.raises(UnknownDraw, match=r"pass the function, as in nin.figures.redraw\(name, draw=function\)"):
        redraw("mine", folder=folder)
    before = (folder / "mine.png").read_bytes()
    (folder / "mine.png").unlink()
    redraw("mine", folder=folder, draw=line)
    assert (folder / "mine.png").read_bytes() == before


def test_one_that_is_not_ours_does_not_hide_the_others(folder, capsys):
    told(folder, "os.system")
    (folder / "torn.json").write_text("{")
    assert main(["figures", "list", "--profile", "quick"]) == 1
    seen = capsys.readouterr()
    assert "mine" in seen.out and "theirs: draw='os.system'" in seen.err and "torn.json is damaged" in seen.err


def test_other_files_beside_figures_are_none(folder, capsys):
    for place in (".hidden", "checks", "../.other/x"):
        path = folder / f"{place}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert [figure.name for figure in figures.saved()] == ["mine"] and figures.profiles() == ["quick"]
    assert main(["figures", "list"]) == 0


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", ".", "", ".hidden", "a\\b", "checks", "x\n", "x\0"])
def test_a_name_stays_in_its_folder(folder, name):
    before = sorted(path for path in folder.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"name='.*' (must be a plain name|is that of the table of checks)"):
        save(line, name, data=DATA)
    with pytest.raises(ValueError, match=r"name='"):
        redraw(name)
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("profile", ["../..", "/tmp", "a/b", ""])
def test_a_profile_stays_in_its_folder(folder, profile):
    with pytest.raises(ValueError, match="profile='.*' must be a plain name"):
        Saved("mine", profile)
    with pytest.raises(ValueError, match="profile="):
        redraw("mine", profile=profile)


def test_a_name_with_blanks_is_one(folder):
    figures.save(line, "my own figure", data=DATA, folder=folder)
    assert (folder / "my own figure.pdf").exists()


def test_a_draw_that_fails_writes_nothing(folder):
    files = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RuntimeError, match="no figure"):
        save(broken, "mine", data=DATA, folder=folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == files

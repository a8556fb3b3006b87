"""Catches: a figure whose files are of two versions and is shown as one, after a kill between any two replacements."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from nin import figures
from nin.__main__ import main
from nin.figures import Saved, panels, redraw, save
from nin.support import former, paths

SUFFIXES = ("pdf", "svg", "png", "csv", "json")
OLD, NEW = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}), pd.DataFrame({"x": [1.0, 2.0], "y": [9.0, 4.0]})


def line(data, *, color="C0"):
    figure, axes = panels(1, 1)
    axes[0, 0].plot(data["x"], data["y"], color=color)
    return figure


class Killed(BaseException):
    """What stands for the end of the process."""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with a saved figure."""
    folder = tmp_path_factory.mktemp("saved")
    save(line, "mine", data=OLD, folder=folder)
    return folder


@pytest.fixture
def folder(mine, tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    return shutil.copytree(mine, tmp_path / "quick")


def killed_at(monkeypatch, number):
    """Let the process end before its replacement of this number: nothing is tidied up."""
    count, replace = [0], Path.replace

    def counted(self, target):
        count[0] += 1
        if count[0] == number:
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)


def state(folder):
    files = [folder / f"mine.{suffix}" for suffix in SUFFIXES]
    return {path.suffix[1:]: path.read_bytes() for path in files if path.exists()}


def files(version, color, table=OLD):
    """What a figure is written from: pictures, table, sidecar."""
    content = table.to_csv(index=False).encode()
    sidecar = {"draw": f"{__name__}.line", "arguments": {"color": color}, "columns": {}}
    return {suffix: f"{suffix} {version}".encode() for suffix in SUFFIXES[:3]}, content, sidecar


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("changed", [OLD, NEW], ids=["other arguments", "another table"])
def test_a_kill_between_replacements_leaves_old_or_new_or_a_refusal(tmp_path, monkeypatch, number, hashes, changed):
    folder, versions = tmp_path / "quick", {"C0": "old", "C1": "new"}
    mine, other = Saved("mine", "quick", folder), Saved("mine", "quick", tmp_path / "other")
    mine.write(*files("old", "C0"))
    if not hashes:  # as an earlier version wrote it
        sidecar = json.loads((folder / "mine.json").read_text())
        (folder / "mine.json").write_text(json.dumps({"draw": sidecar["draw"], "arguments": sidecar["arguments"]}))
    old = state(folder)
    other.write(*files("new", "C1", changed))
    new = state(tmp_path / "other")
    if number < 6:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_at(patch, number)
            mine.write(*files("new", "C1", changed))
    else:
        mine.write(*files("new", "C1", changed))

    found = Saved("mine", "quick", folder)
    try:
        read = versions[found.sidecar["arguments"]["color"]], found.table()["y"][0]
    except (ValueError, OSError) as error:  # between table and sidecar
        read = None
        assert "is not the table that mine.json was saved with" in str(error) or not (folder / "mine.json").exists()
        assert number == 5 if hashes else 1 <= number <= 5
    assert read in (("old", 3.0), ("new", changed["y"][0]), None)
    if read and (hashes or read[0] == "new"):
        for suffix in SUFFIXES[:3]:
            assert found.picture(suffix) in (f"{suffix} {read[0]}".encode(), None)
        whole = state(folder) in (old, new)
        assert (found.fault() == "") == whole == (number == 6 or (number == 1 and hashes))
        if not whole:
            assert "pdf" in found.fault() and "show another version of mine than its table" in found.fault()
            found.write_pictures(files(*read)[0])
            assert state(folder) == (new if read[0] == "new" else old)
    mine.write(*files("new", "C1", changed))
    assert state(folder) == new and not any(path.name.startswith(".") for path in folder.iterdir())


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock_and_no_mixture(folder):
    """Killed at random moments, by the system."""
    code = (
        "import itertools, pandas as pd\nfrom nin import figures\nimport test_replacing\nprint('ready', flush=True)\n"
        "for n in itertools.count():\n"
        "    figures.save(test_replacing.line, 'mine', data=pd.DataFrame({'x': [1, 2], 'y': [n, 1]}))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    for wait in (0.0, 0.31, 0.62, 0.93):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
            process.stdout.readline()
            time.sleep(wait)
            process.kill()
        figure = Saved("mine", "quick")
        if not figure.fault():
            before = state(folder)
            redraw("mine")
            assert state(folder) == before
    save(line, "mine", data=NEW)
    assert Saved("mine", "quick").fault() == ""


def test_a_mixture_is_named_by_every_reader(folder, capsys):
    (folder / "mine.png").write_bytes(b"another")
    assert main(["figures", "list"]) == 1
    assert "mine.png in" in capsys.readouterr().err
    assert main(["figures", "sheet", "--to", str(folder / "sheet.pdf")]) == 0  # draws it, as it does without a picture
    OLD.to_csv(folder / "mine.csv")
    for command in (["list"], ["export", "mine", "--to", str(folder)], ["sheet", "--to", str(folder / "sheet.pdf")]):
        assert main(["figures", *command]) > 0
        assert "mine.csv is not the table that mine.json was saved with" in capsys.readouterr().err
    with pytest.raises(ValueError, match="mine.csv is not the table"):
        redraw("mine")


def test_what_another_matplotlib_draws_is_the_figure_too(folder):
    sidecar = json.loads((folder / "mine.json").read_text())
    sidecar["files"]["png"] = "of another version"
    (folder / "mine.json").write_text(json.dumps(sidecar))
    assert "show another version" in Saved("mine", "quick").fault()
    redraw("mine")
    assert Saved("mine", "quick").fault() == ""


@pytest.mark.slow
def test_figures_of_a_former_run_are_marked_until_they_are_made_again(folder, capsys):
    def begin(notebook):
        figures.begin(notebook, profile="quick", parameters={})

    begin("05_one")
    save(line, "mine", data=OLD)
    save(line, "second", data=OLD)
    begin("06_other")
    save(line, "third", data=OLD)
    assert main(["figures", "list"]) == 0
    begin("05_one")
    save(line, "second", data=NEW)
    assert former.figures(folder) == {"mine": "05_one"}
    capsys.readouterr()
    assert main(["figures", "list"]) == 1
    seen = capsys.readouterr()
    assert "is of a former run: 05_one was started again and has not made it since; run 05_one again" in seen.err
    assert "mine.png" in seen.err and "second.png" not in seen.err and "third.png" not in seen.err
    assert "mine" in seen.out
    assert main(["figures", "export", "mine", "--to", str(folder / "new")]) == 0
    assert "mine.png is of a former run" in capsys.readouterr().err.replace(str(folder) + "/", "")
    save(line, "mine", data=NEW)
    assert main(["figures", "list"]) == 0 and not (folder / ".former.json").exists()


def test_a_notebook_that_begins_again_with_further_data_goes_on(folder):
    """Figures saved in between are its own of this run; begun anew with the same data, it has not made them yet."""
    begin = {"profile": "quick", "parameters": {"seeds": 2}}
    figures.begin("11_two", **begin)
    save(line, "early", data=OLD)
    figures.begin("11_two", **begin, data={"digits": "abc"})
    assert former.figures(folder) == {}
    save(line, "late", data=OLD)
    figures.begin("11_two", **begin, data={"digits": "abc"})
    assert former.figures(folder) == {"early": "11_two", "late": "11_two"}


def test_the_journal_of_a_notebook_has_every_file_of_its_figures(folder, tmp_path, monkeypatch):
    """Else the runner takes them for those of all notebooks that run at once."""
    monkeypatch.setenv(paths.WRITTEN, str(tmp_path / "journal"))
    save(line, "another", data=OLD)
    redraw("mine", profile="quick", draw=line)
    noted = (tmp_path / "journal").read_text().splitlines()
    assert {str(folder / f"another.{suffix}") for suffix in SUFFIXES} <= set(noted)
    assert {str(folder / f"mine.{suffix}") for suffix in ("pdf", "svg", "png")} <= set(noted)

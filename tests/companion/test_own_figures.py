"""Catches: a figure of one's own table that is drawn from something else, overwrites it, or fails without a word."""

import re

import numpy as np
import pandas as pd
import pytest

from nin import figures
from nin.__main__ import main
from nin.figures import Saved


def log(**columns):
    """Two runs of 30 steps."""
    steps = np.arange(30)
    runs = [
        pd.DataFrame({"run": run, "step": steps, "sigma": sigma, "noisy_loss": np.exp(-steps / 9) + 0.1,
                      "niw_norm": np.exp(-steps / (8 / sigma))} | columns)
        for run, sigma in enumerate((1.0, 2.0))
    ]  # fmt: skip
    return pd.concat(runs, ignore_index=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path / "figures"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trajectories", "phases", "decay_times", "readings"])
def test_a_table_is_drawn_as_by_the_library(folder, capsys, kind):
    log().to_csv("my runs.csv", index=kind == "phases")  # with the row numbers of pandas, and without
    before = (folder / "my runs.csv").read_bytes()
    assert main(["figures", "draw", kind, "my runs.csv"]) == 0
    assert f"my runs_{kind}.pdf" in capsys.readouterr().out
    figures.save(getattr(figures, kind), "other", data=log(), folder=folder)
    drawn = folder / "figures" / "own" / f"my runs_{kind}.svg"
    assert drawn.read_bytes() == (folder / "other.svg").read_bytes()
    assert (folder / "my runs.csv").read_bytes() == before
    if kind == "phases":
        assert main(["figures", "export", f"my runs_{kind}", "--venue", "prl", "--column", "one"]) == 0
        assert (folder / "paper" / f"my runs_{kind}.pdf").exists()


def test_a_name_and_a_folder_may_be_given(folder, capsys):
    log().to_csv("mine.csv", index=False)
    assert main(["figures", "draw", "phases", "mine.csv", "--to", "results", "--name", "first"]) == 0
    assert Saved("first", "own", folder / "results").sidecar["draw"] == "nin.figures.own_logs.phases"
    assert main(["figures", "draw", "phases", "mine.csv", "--to", ".", "--name", "mine"]) == 2
    assert "would overwrite mine.csv; choose another with --name or --to" in capsys.readouterr().err


WRONG = {
    "no such figure": ("phase", log(), "figure='phase' is unknown.* Did you mean 'phases'"),
    "no column": ("phases", log().drop(columns="niw_norm"), "my.csv: data has no column niw_norm; a log has step"),
    "no sigma": ("decay_times", log().drop(columns="sigma"), "data has no column sigma"),
    "no step": ("readings", log().drop(columns="step"), "data has no column step; readings have step"),
    "no number": ("readings", log()[["run", "step"]].assign(layer="a"), "no column of numbers beside step"),
    "words": ("trajectories", log(noisy_loss="high"), "data column 'noisy_loss' must be numbers, not 'high'"),
    "other words": ("trajectories", log(test_loss="high"), "data column 'test_loss' must be numbers"),
    "nothing": ("phases", log(niw_norm=np.nan), "data column 'niw_norm' has no number"),
    "no rows": ("phases", log()[:0], "data has no rows"),
    "two runs in one": ("phases", log().drop(columns="run"), "data has several values of sigma.*in a column run"),
    "two steps": ("trajectories", log().drop(columns=["run", "sigma"]), "data has step 0 twice; number the runs"),
    "a sigma that changes": ("phases", log().assign(run=0), "run 0 has several values of sigma, or misses some"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_drawn_is_told_in_a_line(folder, capsys, name):
    kind, table, message = WRONG[name]
    table.to_csv("my.csv", index=False)
    assert main(["figures", "draw", kind, "my.csv"]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and told.count("\n") == 1 and not (folder / "figures").exists(), told


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n1,2,3\n4\n"'])
def test_what_is_no_table_is_told_in_a_line(folder, capsys, content):
    (folder / "my.csv").write_bytes(content)
    for path in ("my.csv", "none.csv", "."):
        assert main(["figures", "draw", "phases", path]) == 2
        told = capsys.readouterr().err
        assert path in told and told.count("\n") == 1, told

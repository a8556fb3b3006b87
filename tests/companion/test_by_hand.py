"""Catches: a notebook changed in JupyterLab that overwrites the figures of its profile, or takes values that the
command would refuse."""

import os
import subprocess

import pytest
import written

from nin.companion import by_hand
from nin.companion.notebooks import begin
from nin.support import paths, provenance

CELL = 'profile: str = "quick"  # folder\nlr: float = {lr}  # learning rate [> 0]\nwidths: tuple[int, ...] = (8, 4)'
VALUES = {"profile": "quick", "lr": 0.05, "widths": (8, 4)}


def save(path, lr):
    written.notebook(path, CELL.format(lr=lr))


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook in a repository where it is committed, in place of the clone."""
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setattr(by_hand, "_set_here", None)
    monkeypatch.setattr(provenance, "_source", provenance.Source())
    for name in (by_hand.FIGURES, paths.WRITTEN):
        monkeypatch.setenv(name, "")  # so that it is as before when the test ends
        monkeypatch.delenv(name)
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "quick.yaml").write_text("{}\n")
    (tmp_path / "notebooks" / "profiles" / "paper.yaml").write_text("01_own:\n  lr: 1e-3\n  widths: [16, 8]\n")
    path = tmp_path / "notebooks" / "01_own.ipynb"
    save(path, 0.05)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=n@n"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "it"]):
        subprocess.run([*git, *words], check=True)
    return path


@pytest.mark.parametrize(
    "values", [VALUES, VALUES | {"profile": "paper", "lr": 0.001, "widths": (16, 8)}], ids=["quick", "paper"]
)
def test_the_values_of_a_profile_go_to_its_folder(notebook, values, capsys):
    begin("01_own", values)
    assert by_hand.FIGURES not in os.environ and capsys.readouterr().out == ""
    assert paths.figures(values["profile"]) == paths.root() / "figures" / values["profile"]


@pytest.mark.parametrize("saved", [False, True], ids=["unsaved", "saved"])
def test_others_are_kept_apart_also_once_they_are_saved_in_the_file(notebook, saved, capsys):
    if saved:
        save(notebook, 0.1)
    begin("01_own", VALUES | {"lr": 0.1})
    assert paths.figures("quick") == paths.root() / "runs" / "custom" / "figures" / "quick"
    assert capsys.readouterr().out == (
        "lr: not as in profile 'quick', whose figures and checks are kept; those of this run go to "
        "runs/custom/figures/quick.\n"
    )
    begin("01_own", VALUES)  # changed back, in the same kernel
    assert paths.figures("quick") == paths.root() / "figures" / "quick"


def test_a_folder_that_was_chosen_and_the_runner_are_left_alone(notebook, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(by_hand.FIGURES, str(tmp_path / "mine"))
    begin("01_own", VALUES | {"lr": 0.1})
    assert paths.figures("quick") == tmp_path / "mine" / "quick"
    monkeypatch.delenv(by_hand.FIGURES)
    monkeypatch.setenv(paths.WRITTEN, str(tmp_path / "journal"))
    begin("01_own", VALUES | {"lr": 0.1})
    assert by_hand.FIGURES not in os.environ and capsys.readouterr().out == ""


def test_a_value_that_the_command_refuses_is_refused(notebook):
    with pytest.raises(ValueError, match=r"lr=-1\.0: expected a finite number > 0"):
        begin("01_own", VALUES | {"lr": -1.0})


def test_without_git_the_file_decides(notebook, monkeypatch):
    monkeypatch.setenv("PATH", "")
    begin("01_own", VALUES | {"lr": 0.1})
    assert by_hand.FIGURES in os.environ

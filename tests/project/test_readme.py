"""Catches: a README whose code does not run as printed, or that names files and commands that do not exist."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_code_runs_as_printed(block, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("NIN_STORE", str(tmp_path))
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_named_files_exist():
    for link in re.findall(r"!\[[^\]]*\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link
    for notebook in re.findall(r"`(\d\d_\w+)`", TEXT):
        assert (ROOT / "notebooks" / f"{notebook}.ipynb").exists(), notebook
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^    make (\w+)", TEXT, flags=re.MULTILINE)) <= targets


def test_indented_python_compiles():
    """The scripts for pools and clusters, which a test cannot run."""
    scripts = re.findall(r"(?:^    (?:from|import) .*\n(?:(?:    .*)?\n)+)", TEXT, flags=re.MULTILINE)
    assert len(scripts) == 2
    for script in scripts:
        compile(textwrap.dedent(script), "README.md", "exec")

"""Catches: a help page that takes seconds, is missing, or names other values than the code; a wrong version."""

import dataclasses
import subprocess
import sys
from importlib.metadata import version

import pytest

from nin.companion import command, prediction
from nin.companion.command import main
from nin.companion.explorer.setting import NETWORKS, Setting
from nin.companion.papers.export import FORMATS, VENUES
from nin.model.data import DATASETS
from nin.model.losses import LOSSES
from nin.model.networks import ACTIVATIONS, INITS
from nin.model.noise import LAWS

PAGES = [
    "",
    "run",
    "list",
    "runs",
    "figures",
    "figures list",
    "figures export",
    "figures draw",
    "figures sheet",
    "explore",
    "predict",
]
HEAVY = {"torch", "matplotlib", "pandas", "numpy", "scipy", "nbformat", "papermill", "ipywidgets", "yaml"}


def test_help_and_version_load_nothing_heavy():
    """In a fresh process, which ends at once: `-X importtime` shows some 0.1 s for our own modules and argparse."""
    code = (
        "import sys\n"
        "from nin.companion.command import main\n"
        f"for words in {[*([*page.split(), '--help'] for page in PAGES), ['--version']]}:\n"
        "    try: main(words)\n"
        "    except SystemExit as stop: assert stop.code == 0, words\n"
        f"print(*sorted(set(sys.modules) & {HEAVY}), sep=',')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.splitlines()[-1] == ""
    assert done.stdout.count("usage: python -m nin") == len(PAGES)
    assert done.stdout.splitlines()[-2] == f"nin {version('nin')}"


def page(words: str, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit, match="0"):
        main([*words.split(), "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("words", PAGES)
def test_every_page_says_what_the_command_does_and_fits_a_terminal(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    usage, text, *_ = page(words, capsys).split("\n\n")
    assert usage.startswith(f"usage: python -m nin {words}".strip()) and len(text.split()) >= 6
    assert max(map(len, page(words, capsys).splitlines())) <= 120


def test_pages_name_the_values_that_the_code_takes(capsys):
    export = page("figures export", capsys)
    for venue, found in VENUES.items():
        (line,) = [line.split() for line in export.splitlines() if line.split()[:1] == [venue]]
        assert line[1::2][: len(found.widths)] == [f"{width:g}" for width in reversed(found.widths.values())]
    assert all(name in export for name in FORMATS)
    explore = page("explore", capsys)
    assert all(f"{f.name}={f.default}" in explore for f in dataclasses.fields(Setting))
    assert all(name in explore for name in (*NETWORKS, *LAWS))
    predict = page("predict", capsys)
    defaults = prediction.RunConfig().as_json() | {"widths": "128,128,128"}
    assert all(f"{name}={defaults[name]}" in predict for name in prediction.FIELDS)
    assert all(name in predict for name in (*DATASETS, *ACTIVATIONS, *INITS, *LOSSES, *LAWS))


def test_every_command_has_its_page():
    _, commands = command._parsers()
    assert {" ".join(words) for words in commands} == set(PAGES) - {"", "figures"}

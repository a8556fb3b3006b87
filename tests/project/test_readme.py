"""Catches: a README or a guide whose code does not run or prints something else than it states, or that names files and
commands that do not exist."""

import re
import textwrap
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
BLOCKS = {
    f"{page.stem}-{number}": block
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
}
STATED = re.compile(r"# [^#\n]*\bprints\b[^:\n]*: (.*)")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def agree(stated: str, printed: str) -> bool:
    """The same words, integers and number of numbers; decimals to 1.5 units in the last digit that is stated."""
    if NUMBER.sub("0", stated).split() != NUMBER.sub("0", printed).split():
        return False
    for a, b in zip(NUMBER.findall(stated), NUMBER.findall(printed), strict=True):
        digits, _, power = a.partition(".")[2].partition("e")
        unit = 10.0 ** (int(power or 0) - len(digits)) if digits else 0.0
        if abs(float(a) - float(b)) > 1.5 * unit:
            return False
    return True


def not_printed(stated: list[str], printed: list[str]) -> list[str]:
    """Stated lines that are not printed in this order, and the last printed line unless it is the last stated."""
    left = iter(printed)
    missing = [line for line in stated if not any(agree(line, other) for other in left)]
    unstated = [] if stated and printed and agree(stated[-1], printed[-1]) else printed[-1:]
    return missing + unstated


@pytest.mark.parametrize(
    "stated, printed, same",
    [
        ("loss 0.38, (1, 3)", "loss  0.386,  (1, 3)", True),
        ("0.386", "0.387", True),
        ("0.386", "0.388", False),
        ("1.25e-07", "1.26e-07", True),
        ("1.25e-07", "1.28e-07", False),
        ("2 runs", "3 runs", False),
        ("2 runs", "2 rows", False),
        ("(1, 3)", "(1, 3, 3)", False),
        ("8.0 decay 0.29", "8.0 decoupled 0.29", False),
        ("0.10 NaN", "0.10 nan", False),
    ],
)
def test_wrong_output_is_seen(stated, printed, same):
    assert agree(stated, printed) == same


def test_output_that_is_missing_or_not_stated_is_seen():
    assert not_printed(["a 1", "b 2"], ["a 1", "x", "b 2"]) == []
    assert not_printed(["b 2", "a 1"], ["a 1", "b 2"]) == ["a 1", "b 2"]
    assert not_printed(["a 1"], []) == ["a 1"]
    assert not_printed([], ["a 1"]) == ["a 1"]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_code_prints_what_is_stated(block, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("NIN_STORE", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # for what it writes where one is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    stated = STATED.findall(block)
    assert stated and not_printed(stated, printed) == [], "\n".join(printed)


def test_the_readme_is_short_and_links_to_every_guide():
    assert len(TEXT.splitlines()) <= 200
    assert {link for link in re.findall(r"\]\((docs/guide/[^)]+)\)", TEXT)} == {
        page.relative_to(ROOT).as_posix() for page in PAGES[1:]
    }


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!\w+:|#)([^)#]+)[^)]*\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_named_files_exist():
    links = re.findall(r"!\[[^\]]*\]\((?!http)([^)]+)\)", TEXT)
    assert links and not [link for link in links if not (ROOT / link).exists()]
    notebooks = set(re.findall(r"`(\d\d_\w+)`", TEXT))
    assert notebooks == {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^    make (\w+)", TEXT, flags=re.MULTILINE))
    assert named and named <= targets


def test_indented_python_compiles():
    """The scripts for pools and clusters, which a test cannot run."""
    text = (ROOT / "docs" / "guide" / "sweeps.md").read_text()
    scripts = re.findall(r"(?:^    (?:from|import) .*\n(?:(?:    .*)?\n)+)", text, flags=re.MULTILINE)
    assert len(scripts) == 2
    for script in scripts:
        compile(textwrap.dedent(script), "README.md", "exec")

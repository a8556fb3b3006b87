"""Catches: launch buttons that lead nowhere before a copy is named, and a name that is none in a link."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("badge", ROOT / "binder" / "badge.py")
badge = importlib.util.module_from_spec(spec)
spec.loader.exec_module(badge)
README = (ROOT / "README.md").read_text()


def test_nothing_links_to_a_placeholder():
    shown = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "site").glob("*.md"), ROOT / "CITATION.cff"]
    assert len(shown) > 10
    assert not [path.name for path in shown if "OWNER" in path.read_text()]


def test_buttons_are_written_and_replaced():
    once = badge.launched(README, "ada/nin")
    assert once.count("https://mybinder.org/v2/gh/ada/nin/HEAD?urlpath=") == 2
    again = badge.launched(once, "emmy-n/my.copy_2")
    assert "ada" not in again and again.count("gh/emmy-n/my.copy_2/HEAD") == 2
    outside = [
        text[: text.index("<!-- launch -->")] + text[text.index("<!-- launched -->") :] for text in (README, again)
    ]
    assert outside[0] == outside[1]


@pytest.mark.parametrize(
    "repo", ["", "nin", "ada/nin/tree", "https://github.com/ada/nin", "ada nin", "ada/nin.git", "a/{b}"]
)
def test_a_name_that_is_none_is_refused(repo):
    with pytest.raises(ValueError, match=r"must be the owner and name .* make badge REPO=ada/nin"):
        badge.launched(README, repo)


def test_a_readme_without_a_place_is_refused():
    with pytest.raises(ValueError, match="has 0 places"):
        badge.launched("# nin\n", "ada/nin")


def test_the_command_says_what_is_wrong_in_one_line_and_leaves_the_file():
    done = subprocess.run([sys.executable, ROOT / "binder" / "badge.py"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout
    assert (ROOT / "README.md").read_text() == README

"""Put the launch buttons of one's own copy into README.md: `make badge REPO=OWNER/REPO`.

Until then README.md and the site have none. Run again, for another copy, it replaces them.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
PART = re.compile(r"(?<=<!-- launch -->\n).*?(?=<!-- launched -->)", re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
BUTTONS = """\
[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{repo}/HEAD?urlpath=voila%2Frender%2Fnotebooks%2Fexplore.ipynb)
opens the explorer in the cloud;
[all notebooks](https://mybinder.org/v2/gh/{repo}/HEAD?urlpath=lab/tree/notebooks) open in JupyterLab.
"""


def launched(text: str, repo: str) -> str:
    """The text of README.md with the buttons of a repository; ValueError if it is none, or has no place for them."""
    if not NAME.fullmatch(repo) or repo.endswith(".git"):
        raise ValueError(f"REPO={repo!r} must be the owner and name of a copy on GitHub, as in make badge REPO=ada/nin")
    text, places = PART.subn(lambda _: BUTTONS.format(repo=repo), text)
    if places != 1:
        raise ValueError(
            f"README.md has {places} places for the buttons: the lines <!-- launch --> and <!-- launched -->"
        )
    return text


def main(arguments: list[str]) -> int:
    """Rewrite README.md; 2, with one line, for a name that is none."""
    try:
        text = launched(README.read_text(), " ".join(arguments))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    README.write_text(text)
    print(f"README.md and the site now launch {arguments[0]}: commit README.md, and push it there.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

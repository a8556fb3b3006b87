"""Citations of the reference: "NIN prediction 13" in a text, and the place in docs/reference that it names.

The short names of the pages, and which page a bare "prediction 13" means, are read from docs/reference/README.md.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
PAPERS = r"NINR?|CAT|response|interactions|stability|(?:arXiv )?2\d{3}\.\d{5}"
KINDS = {"pre": "prediction", "ide": "identity", "equ": "equation", "eq.": "equation", "eqs": "equation"}
KINDS["sec"] = "section"
NUMBER = r"(?:\(\d{1,2}(?:\.\d+)?\)|\d{1,2}(?:\.\d+)?(?!\w|\.\d))"
# The 12 of "identity 4, 12)" belongs to the list; that of "prediction 4, 12 steps" does not.
ANOTHER = rf"(?:\(\d{{1,2}}\)|{NUMBER}(?=[,;:)\"']|\.(?!\d)|$| and \d| to \d))"
NUMBERED = re.compile(
    rf"(?:\b(?P<paper>{PAPERS})(?: and 2\d{{3}}\.\d{{5}})?,? (?:reference )?)?"
    r"\b(?P<kind>[Pp]redictions?|[Ii]dentit(?:y|ies)|[Ee]quations?|[Ee]qs?\.|[Ss]ections?) "
    rf"(?P<numbers>{NUMBER}(?:(?:, (?:and )?| and | to ){ANOTHER})*)"
)
PAPER = re.compile(r"(?<![\w.])(?:NINR?\b|CAT\b|(?:arXiv )?2\d{3}\.\d{5}(?!\d))")


@dataclass(frozen=True)
class Citation:
    """A citation in a text.

    start, end  where it is in the text
    page        the name of the file in docs/reference, without .md
    anchors     what it names there, such as "prediction-13"
    """

    start: int
    end: int
    page: str
    anchors: tuple[str, ...]

    def missing(self) -> list[str]:
        """The anchors that its page does not have."""
        known = anchors(self.page) if self.page else ()
        return [anchor for anchor in self.anchors if anchor not in known]


@functools.cache
def index() -> tuple[dict[str, str], dict[str, str]]:
    """From README.md: the page of each short name, and the short name of each word in a path."""
    text = (FOLDER / "README.md").read_text()
    pages = dict(re.findall(r"^\| (\w+) \| \[[^\]]+\]\(([\w-]+)\.md\) \|", text, re.MULTILINE))
    rows = re.findall(r"^\| (`.+`) \| (\w+) \|$", text, re.MULTILINE)
    return pages, {word: name for words, name in rows for word in re.findall(r"`(\w+)`", words)}


@functools.cache
def anchors(page: str) -> frozenset[str]:
    """The anchors of a page of the reference; ValueError if one of them occurs twice."""
    found = re.findall(r'<a id="([^"]+)"></a>', (FOLDER / f"{page}.md").read_text())
    if twice := {anchor for anchor in found if found.count(anchor) > 1}:
        raise ValueError(f"docs/reference/{page}.md has the anchors {sorted(twice)} twice: rename one of each.")
    return frozenset(found)


def home(path: str) -> str:
    """The page that bare citations in a file mean."""
    pages, words = index()
    return pages[next((name for word, name in words.items() if word in path), "NIN")]


def page_of(paper: str) -> str:
    """The page of a short name, of NINR or CAT, or of an arXiv number; "" if no page has that paper."""
    pages, _ = index()
    if paper in ("NINR", "CAT"):
        return pages["NIN"]
    number = paper.removeprefix("arXiv ")
    return pages.get(paper) or next((page for page in pages.values() if f"paper-{number}" in anchors(page)), "")


def numbered(text: str, path: str) -> list[Citation]:
    """Every numbered citation in a text; one without a paper means the paper of the one before it, else the path's."""
    found: list[Citation] = []
    for match in NUMBERED.finditer(text):
        goes_on = found and re.fullmatch(r",? (?:and )?|; ", text[found[-1].end : match.start()])
        page = page_of(match["paper"]) if match["paper"] else found[-1].page if goes_on else home(path)
        kind = KINDS[match["kind"][:3].lower()]
        found.append(Citation(match.start(), match.end(), page, tuple(f"{kind}-{n}" for n in expand(match["numbers"]))))
    return found


def expand(numbers: str) -> list[str]:
    """The numbers of a list in words: "1 to 3 and (7)" is 1, 2, 3, 7."""
    spelt = re.compile(r"\(?(\d+)\)? to \(?(\d+)\)?")
    listed = spelt.sub(lambda ends: " ".join(map(str, range(int(ends[1]), int(ends[2]) + 1))), numbers)
    return re.findall(r"\d+(?:\.\d+)?", listed)


def papers(text: str) -> list[Citation]:
    """Every paper that a text names, cited as a whole."""
    known = {"NIN": "2210.13599", "NINR": "2210.15764", "CAT": "2003.02218"}
    found = []
    for match in PAPER.finditer(text):
        number = known.get(match[0], match[0].removeprefix("arXiv "))
        found.append(Citation(match.start(), match.end(), page_of(number), (f"paper-{number}",)))
    return found

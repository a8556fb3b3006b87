"""Catches: a citation of an equation, prediction, identity or section that the reference does not have; a citation that
is read as one of another page; an anchor that is lost when a page of the reference is edited."""

import csv
import importlib
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def load(name: str):
    """A module of the site; its folder has the name of one of Python's own modules."""
    sys.path.insert(0, str(ROOT / "site"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "site"))


citations = load("citations")


def places(text: str, path: str) -> list[tuple[str, str]]:
    return [(cited.page, anchor) for cited in citations.numbered(text, path) for anchor in cited.anchors]


def sources() -> dict[str, str]:
    """The text of every file that may cite, on one line, by its path; of notebooks the code. Not tests of citations."""
    files = [path for folder in ("nin", "studies", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    texts = {path: path.read_text() for path in files if path.parent != Path(__file__).parent}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        texts[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return {path.relative_to(ROOT).as_posix(): re.sub(r"\n\s*", " ", text) for path, text in texts.items()}


def with_templates(text: str) -> str:
    """Text after each `name(7)` of a `name = "identity {}".format` is written out."""
    for name, template in re.findall(r'(\w+) = f?"(\w+ \{\})"\.format', text):
        text = re.sub(rf"\b{name}\((\d+)\)", lambda call, template=template: template.format(call[1]), text)
    return text


def test_every_citation_resolves():
    count, dead = 0, []
    for path, text in sources().items():
        text = with_templates(text)
        for cited in [*citations.numbered(text, path), *citations.papers(text)]:
            count += 1
            if cited.missing():
                dead.append(f"{path}: {text[cited.start : cited.end]} names {cited.missing()} of {cited.page!r}")
    assert count > 200
    assert dead == []


def test_every_source_of_a_check_resolves():
    """Of the stored tables: what a notebook builds while it runs is in them too."""
    tables = sorted((ROOT / "figures").glob("*/checks.csv"))
    assert tables
    for path in tables:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert rows
        for row in rows:
            where = f"notebooks/{row['notebook']}.ipynb"
            cited = [*citations.numbered(row["source"], where), *citations.papers(row["source"])]
            assert [one for one in cited if one.missing()] == [], row
            assert cited or not re.search(r"\d\)?$", row["source"]), row


def test_a_dead_citation_is_seen():
    (cited,) = citations.numbered("prediction 21", "nin/theory/nodes.py")
    assert cited.missing() == ["prediction-21"]
    (cited,) = citations.papers("arXiv 2999.00001")
    assert cited.page == "" and cited.missing() == ["paper-2999.00001"]


NODES, RESPONSE, INTERACTIONS, STABILITY = (
    "noise-injection-nodes",
    "training-response",
    "layerwise-interactions",
    "spatial-stability",
)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("prediction 13", "nin/model/nodes.py", [(NODES, "prediction-13")]),
        ("Prediction 3: H", "tests/studies/test_simple_networks.py", [(RESPONSE, "prediction-3")]),
        ("identity 12, 13).", "notebooks/07_scale_detection.ipynb", [(STABILITY, f"identity-{k}") for k in (12, 13)]),
        ("Identities 1 to 3 and 7", "interactions", [(INTERACTIONS, f"identity-{k}") for k in (1, 2, 3, 7)]),
        ("NIN, prediction 13, eq. (10)", "response", [(NODES, "prediction-13"), (NODES, "equation-10")]),
        ("equation (8); section 8 of", "", [(NODES, "equation-8"), (NODES, "section-8")]),
        ("NIN, section 3.2", "", [(NODES, "section-3.2")]),
        ("CAT, section 2", "stability", [(NODES, "section-2")]),
        (
            "arXiv 2210.13599 and 2210.15764, reference equations (1) and (2)",
            "",
            [(NODES, f"equation-{k}") for k in (1, 2)],
        ),
        ("2210.13599, equations (7) and (8) of", "", [(NODES, "equation-7"), (NODES, "equation-8")]),
        ("2210.01506, section 4", "", [(STABILITY, "section-4")]),
        ("stability equation (2)", "", [(STABILITY, "equation-2")]),
        ("response identity 12", "", [(RESPONSE, "identity-12")]),
        ("prediction 13 within 3 %", "", [(NODES, "prediction-13")]),
        ("Prediction 4, 300 steps", "", [(NODES, "prediction-4")]),
        ("prediction 1, 1e-12", "", [(NODES, "prediction-1")]),
        ("predictions of 3 networks; identity(1)", "", []),
    ],
)
def test_how_a_citation_is_read(text, path, expected):
    assert places(text, path) == expected


def test_papers_are_read():
    (cited,) = citations.papers("as in NINR.")
    assert (cited.page, cited.anchors) == (NODES, ("paper-2210.15764",)) and not cited.missing()
    assert [one.anchors for one in citations.papers("NIN_STORE, 12210.13599, NIW")] == []


@pytest.mark.parametrize(
    ("page", "kind", "last"),
    [
        *((NODES, "equation", 12), (NODES, "prediction", 20), (NODES, "section", 8)),
        *((RESPONSE, "equation", 4), (RESPONSE, "prediction", 16), (RESPONSE, "section", 3)),
        *((INTERACTIONS, "identity", 13), (INTERACTIONS, "section", 3)),
        *((STABILITY, "equation", 2), (STABILITY, "identity", 16), (STABILITY, "section", 6)),
    ],
)
def test_every_number_has_its_anchor(page, kind, last):
    assert {f"{kind}-{k}" for k in range(1, last + 1)} <= citations.anchors(page)
    assert f"{kind}-{last + 1}" not in citations.anchors(page)


def test_anchors_stand_at_what_they_name():
    """An item of a list begins with its number, a heading follows its section's, an equation is in the block below."""
    for page in (NODES, RESPONSE, INTERACTIONS, STABILITY):
        lines = (REFERENCE / f"{page}.md").read_text().splitlines()
        for at, line in enumerate(lines):
            for kind, number in re.findall(r'<a id="(prediction|identity|section|equation)-([\d.]+)"></a>', line):
                below = "\n".join(lines[at + 1 : at + 12]).split("\n$$\n")
                if kind == "equation":
                    assert f"({number})" in below[1], line
                elif kind == "section" and "." not in number:
                    assert lines[at + 2].startswith(f"## {number}. ")
                else:
                    assert line.startswith(f"{number.split('.')[-1]}. <a id=")


def test_the_index_names_every_page():
    pages, words = citations.index()
    assert list(pages) == ["NIN", "response", "interactions", "stability"]
    assert {f"{page}.md" for page in pages.values()} | {"README.md"} == {path.name for path in REFERENCE.glob("*")}
    assert set(words.values()) == {"response", "interactions", "stability"}
    for page in pages.values():
        named = {anchor.removeprefix("paper-") for anchor in citations.anchors(page) if anchor.startswith("paper-")}
        assert named and any(number in (REFERENCE / "README.md").read_text() for number in named)

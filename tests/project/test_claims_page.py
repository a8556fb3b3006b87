"""Catches: a claims page that drifts from figures/paper, records of checks or figures that do not exist, and verdicts
that are kinder than the checks."""

import dataclasses
import importlib
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "site"))
claims, claims_page, front_page, pages = (
    importlib.import_module(name) for name in ("claims", "claims_page", "front_page", "pages")
)
sys.path.remove(str(ROOT / "site"))

PAPER = ROOT / "figures" / "paper"
EVERY = [claim for found in claims.PAPERS.values() for claim in found]


def test_records_name_checks_and_figures_that_exist():
    unknown = claims_page.Findings(PAPER).unknown()
    assert not unknown, "change these in site/claims.py:\n" + "\n".join(unknown)


def test_a_pending_notebook_has_not_all_of_its_checks():
    """Once it is run at full size, its verdicts are shown: take it out of PENDING in site/claims.py."""
    known = claims_page.Findings(PAPER).checks
    for number in claims.PENDING:
        names = [name for claim in EVERY for part in claim.parts for name in part.checks if name[:2] == number]
        assert names and not set(names) <= set(known), number


def test_the_page_is_what_the_checks_give():
    text = claims_page.page(claims_page.Findings(PAPER))
    assert (ROOT / claims_page.PAGE).read_text() == text, "docs/claims.md has drifted: run python site/claims_page.py"


def test_the_front_page_says_what_was_measured():
    checks = claims_page.Findings(PAPER).checks
    for said in claims_page.STATEMENTS:
        assert said.holds or said.fails, said.text
        assert all(checks[name].holds for name in said.holds), said.text
        assert not any(checks[name].holds for name in said.fails), said.text


def test_every_finding_of_the_front_page_has_its_checks():
    """The paragraphs below "Five questions" and the answers of the table, no sentence more."""
    text = (ROOT / "README.md").read_text()
    part = text[text.index("## Five questions it answers") : text.index("\n| notebook ")]
    paragraphs = re.findall(r"^\*\*[^*]+\?\*\* (.*?)(?=\n\n)", part, re.MULTILINE | re.DOTALL)
    told = " ".join(" ".join(paragraphs).split())
    assert told == " ".join(said.text for said in front_page.PARAGRAPHS)
    answers = {name[:2]: answer for name, (_, answer) in pages.answers().items()}
    assert answers == {number: said.text for number, said in front_page.ANSWERS.items()}


def test_a_part_has_checks_or_a_reason():
    assert len(claims.PAPERS) == 4 and len(EVERY) > 20
    for part in [part for claim in EVERY for part in claim.parts]:
        assert bool(part.checks) != bool(part.why), part.text
    assert all(claim.figures for claim in EVERY if any(part.checks for part in claim.parts))


def findings(tmp_path, **holds):
    """A folder with one check for each letter: "+" holds, "-" does not; in capitals with a rival."""
    rows = [
        {"notebook": "02_x", "name": name, "source": "a paper", "measured": 1.0 if sign == "+" else 9.0,
         "predicted": 1.0, "tolerance": 0.5, "relation": "=", "rival": 3.0 if name.isupper() else None,
         "holds": sign == "+"}
        for name, sign in holds.items()
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "checks.csv", index=False)
    return claims_page.Findings(tmp_path)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [("AB", "reproduced"), ("Aa", "reproduced"), ("a", "reproduced in part"), ("AD", "reproduced in part"),
     ("D", "not reproduced"), ("dD", "not reproduced"), ("", "not testable here")],
)  # fmt: skip
def test_verdict_of_a_part(tmp_path, names, wanted):
    found = findings(tmp_path, A="+", B="+", a="+", D="-", d="-")
    part = claims.Part("it", tuple(f"02: {name}" for name in names))
    assert claims_page.verdict_of_part(part, found) == wanted


def test_verdict_of_a_sentence_is_that_of_its_parts():
    yes, part, no, none = claims_page.REPRODUCED, claims_page.IN_PART, claims_page.NOT, claims_page.UNTESTED
    later = claims_page.UNRUN
    cases = {(yes, yes): yes, (yes, none): part, (yes, no): part, (no, none): no, (none,): none, (part,): part}
    cases |= {(no, no): no, (part, no): part, (later, none): later, (later, yes): part}
    assert {verdicts: claims_page.verdict(list(verdicts)) for verdicts in cases} == cases


def test_a_rival_that_passes_is_shown(tmp_path):
    found = findings(tmp_path, A="+")
    check = found.checks["02: A"]
    assert claims_page.row("02: A|", check) == r"| 02: A\| | 1 | = 1 ± 0.5 | 3 | yes |"
    too_near = check._replace(rival=1.4, holds=False)
    assert claims_page.row("02: A", too_near) == "| 02: A | 1 | = 1 ± 0.5 | 1.4 (passes too) | **no** |"
    assert "| none |" in claims_page.row("02: A", check._replace(rival=float("nan")))


def test_unknown_names_come_with_the_nearest(tmp_path, monkeypatch):
    found = findings(tmp_path, spike="+", decay="+")
    part = claims.Part("it", ("02: spikes",))
    monkeypatch.setattr(claims_page, "PAPERS", {("1", "t"): (claims.Claim("it", (part,), ("02a_curve",)),)})
    (tmp_path / "02a_curves.json").write_text("{}")
    assert found.unknown()[0] == "check '02: spikes': nearest are '02: spike', '02: decay'"
    assert claims_page.Findings(tmp_path).unknown()[1] == "figure '02a_curve': nearest are '02a_curves'"
    with pytest.raises(ValueError, match="nearest are '02: spike'"):
        claims_page.page(found)


def test_a_size_that_a_figure_was_not_run_with_is_named():
    claim = next(claim for claim in EVERY if "{" in claim.ours)
    with pytest.raises(ValueError, match=r"has no parameter 'nobody'; site/claims.py may use profile, "):
        claims_page.Findings(PAPER).size(dataclasses.replace(claim, ours="{nobody}"))


def test_the_page_is_on_the_site(tmp_path, monkeypatch):
    assert "\ndocs/claims\n" in pages.sources()["index.md"]
    monkeypatch.setattr(pages, "PROFILES", ("paper",))
    pages.stage(tmp_path / "source")
    assert (tmp_path / "source" / "docs" / "claims.md").read_bytes() == (ROOT / claims_page.PAGE).read_bytes()
    shutil.rmtree(tmp_path / "source")

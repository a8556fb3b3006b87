"""Write docs/claims.md: the abstracts' sentences beside our checks, from claims.py and figures/paper.

    python site/claims_page.py

Verdicts and numbers come from figures/paper/checks.csv, sizes of our runs from the figures' sidecars, so that the page
cannot drift. Run it after checks or figures of the paper profile have changed; a test compares the committed page.
"""

import difflib
import math
import re
import sys
from pathlib import Path

import pandas as pd
from claims import PAPERS, PENDING, Claim, Part
from front_page import ANSWERS, PARAGRAPHS, Statement

from nin.checks import Check, table
from nin.figures import Saved
from nin.support import paths

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/claims.md"
REPRODUCED, IN_PART, NOT, UNTESTED = "reproduced", "reproduced in part", "not reproduced", "not testable here"
UNRUN = "not run at full size yet"
INTRODUCTION = f"""# Claims

Every sentence of the abstracts of four papers, paraphrased, with what we find; sentences that say two things are two
rows here. Each is split into its assertions, and each of these has the checks that must hold if it is true.

- **{REPRODUCED}**: all of its checks hold, and at least one of them has a rival.
- **{IN_PART}**: some of its checks hold, or all do but none has a rival.
- **{NOT}**: no check holds.
- **{UNTESTED}**: it has no check; the reason is given.
- **{UNRUN}**: its notebook has changed since its last run at full size.

A sentence is reproduced if all of its parts are; with a part that is untested or not run it is so at best in part.
*Measured* must lie within the tolerance of what is *claimed*. The *rival* is the value that would be measured if the
claim were false: a null, a control, another theory; a check whose rival passes too does not hold. A verdict is about
our experiment at our size, which stands beside what we know of the paper's; it is not about the paper.

The page is computed from the full-size [checks](../figures/paper/checks.csv) by `python site/claims_page.py`.
"""

FRONT = """## On the front page

What README.md says was found, with the checks it rests on. *As said* is yes where a check that must hold does, and
where one that must not hold, because the sentence says that something was not found, does not."""
STATEMENTS = (*PARAGRAPHS, *ANSWERS.values())


def escape(text: str) -> str:
    """Text that Markdown shows as it is, also within a table."""
    return re.sub(r"([\\\\`*_{}\[\]<>|#$~^])", r"\\\1", text)


class Findings:
    """The checks and figures of the paper profile, by the names that claims.py uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        frame = table(folder)
        if frame["former"].any():
            names = ", ".join(sorted(set(frame["notebook"][frame["former"]])))
            raise ValueError(f"checks of a former run: {names} was started again and has not saved any; run it again.")
        self.checks = {f"{row.notebook[:2]}: {row.name}": row for row in frame.itertuples(index=False)}
        self.figures = {path.stem for path in folder.glob("*.json")}
        self.notebooks = {name[:2]: name for name in frame["notebook"]}

    def unknown(self) -> list[str]:
        """What claims.py names and the folder does not have, each with the nearest names there are."""
        found = []
        for claim in (claim for claims in PAPERS.values() for claim in claims):
            wanted = [("check", name, self.checks) for part in claim.parts for name in part.checks]
            wanted += [("figure", name, self.figures) for name in claim.figures]
            for kind, name, known in wanted:
                if name not in known and name[:2] not in PENDING:
                    same = [other for other in sorted(known) if other[:2] == name[:2]] or sorted(known)
                    near = difflib.get_close_matches(name, same, n=3, cutoff=0) or ["none"]
                    found.append(f"{kind} {name!r}: nearest are {', '.join(map(repr, near))}")
        said = [name for statement in STATEMENTS for name in (*statement.holds, *statement.fails)]
        return found + [f"check {name!r} of the front page" for name in said if name not in self.checks]

    def size(self, claim: Claim) -> str:
        """The size of our runs, filled in from the sidecar of a claim's first figure; ValueError for another name."""
        if "{" not in claim.ours:
            return claim.ours
        if claim.figures[0][:2] in PENDING:
            return UNRUN
        sidecar = Saved(claim.figures[0], self.folder.name).sidecar
        try:
            text = claim.ours.format_map(sidecar["parameters"])
        except KeyError as error:
            known = ", ".join(sidecar["parameters"])
            raise ValueError(f"{claim.figures[0]} has no parameter {error}; site/claims.py may use {known}.") from None
        return text.replace("_", "-")


def verdict_of_part(part: Part, findings: Findings) -> str:
    """Reproduced if all checks hold and one has a rival, in part if some hold; untested without checks."""
    if any(name[:2] in PENDING for name in part.checks):
        return UNRUN
    checks = [findings.checks[name] for name in part.checks]
    if not checks:
        return UNTESTED
    if not any(check.holds for check in checks):
        return NOT
    with_rival = any(not pd.isna(check.rival) for check in checks)
    return REPRODUCED if with_rival and all(check.holds for check in checks) else IN_PART


def verdict(verdicts: list[str]) -> str:
    """Of a sentence, from those of its parts: untested only if all are, not reproduced if nothing tested is."""
    tested = [one for one in verdicts if one not in (UNTESTED, UNRUN)]
    if not tested:
        return UNRUN if UNRUN in verdicts else UNTESTED
    if set(tested) == {NOT}:
        return NOT
    return REPRODUCED if set(verdicts) == {REPRODUCED} else IN_PART


def page(findings: Findings) -> str:
    """The whole page; ValueError if claims.py names something unknown."""
    if unknown := findings.unknown():
        raise ValueError("site/claims.py names what figures/paper does not have:\n" + "\n".join(unknown))
    parts = [INTRODUCTION, overview(findings)]
    for (number, title), claims in PAPERS.items():
        parts.append(f"## {title}\n\n[arXiv {number}](https://arxiv.org/abs/{number})")
        parts += [section(claim, f"{number}, {place}", findings) for place, claim in enumerate(claims, 1)]
    parts += [FRONT, *(said(statement, findings) for statement in STATEMENTS)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def overview(findings: Findings) -> str:
    """One row for each sentence."""
    lines = ["| paper | sentence | verdict | checks that hold |", "|---|---|---|---|"]
    for (number, _), claims in PAPERS.items():
        for claim in claims:
            names = [name for part in claim.parts for name in part.checks if name[:2] not in PENDING]
            holds = sum(bool(findings.checks[name].holds) for name in names)
            found = verdict([verdict_of_part(part, findings) for part in claim.parts])
            lines.append(
                f"| {number} | {escape(claim.text)} | {found} | {f'{holds} of {len(names)}' if names else '-'} |"
            )
    return "\n".join(lines)


def section(claim: Claim, name: str, findings: Findings) -> str:
    """A sentence, its verdict, sizes and figures, and its parts with their checks."""
    verdicts = [verdict_of_part(part, findings) for part in claim.parts]
    lines = [f"### {name}: {verdict(verdicts)}", "", f"> {escape(claim.text)}", ""]
    if any(part.checks for part in claim.parts) or claim.figures:
        lines += [f"- Ours: {escape(findings.size(claim) or 'exact, on examples of any size')}",
                  f"- Theirs: {escape(claim.theirs or 'not stated in our reference')}"]  # fmt: skip
    if claim.figures:
        shown = [figure for figure in claim.figures if figure[:2] not in PENDING]
        pictures = [f'<a href="../figures/paper/{figure}.png">{figure}</a>' for figure in shown]
        figures = f"{', '.join(pictures)}; " if pictures else ""
        lines.append(f"- Figures: {figures}{', '.join(links(claim, findings))}")
    for part, found in zip(claim.parts, verdicts, strict=True):
        reason = f": {escape(part.why)}" if part.why else ""
        lines += ["", f"**{escape(part.text)}**: {found}{reason}"]
        if part.checks:
            lines += ["", "| check | measured | claimed | rival | holds |", "|---|---|---|---|---|"]
            lines += [
                f"| {escape(name)} |  |  |  | {UNRUN} |" if name[:2] in PENDING else row(name, findings.checks[name])
                for name in part.checks
            ]
    return "\n".join(lines)


def said(statement: Statement, findings: Findings) -> str:
    """A sentence of the front page and its checks."""
    lines = [f"> {escape(statement.text)}", "", "| check | measured | claimed | rival | holds | as said |"]
    lines.append("|---|---|---|---|---|---|")
    for name, wanted in (*((n, True) for n in statement.holds), *((n, False) for n in statement.fails)):
        check = findings.checks[name]
        lines.append(f"{row(name, check)} {'yes' if bool(check.holds) == wanted else '**no**'} |")
    return "\n".join(lines)


def links(claim: Claim, findings: Findings) -> list[str]:
    """Links to the notebooks of a claim's figures."""
    numbers = dict.fromkeys(figure[:2] for figure in claim.figures)
    names = [findings.notebooks[number] for number in numbers if number in findings.notebooks]
    return [f"[notebook {name[:2]}](../notebooks/{name}.ipynb)" for name in names]


def row(name: str, check: tuple) -> str:
    """A check as a row: measured, what is claimed with its tolerance, the rival, and whether it holds."""
    claimed = f"{check.relation} {check.predicted:.3g}" + (f" ± {check.tolerance:.2g}" if check.tolerance else "")
    rival = "none" if pd.isna(check.rival) else f"{check.rival:.3g}"
    if not pd.isna(check.rival) and passes(check):
        rival += " (passes too)"
    cells = [escape(name), number(check.measured), escape(claimed), escape(rival), "yes" if check.holds else "**no**"]
    return f"| {' | '.join(cells)} |"


def passes(check: tuple) -> bool:
    """Whether a check's rival lies within its tolerance."""
    fields = ("name", "source", "measured", "predicted", "tolerance", "relation", "rival")
    return not Check(**{field: getattr(check, field) for field in fields}).tests


def number(value: float) -> str:
    """Three digits; a rounding error as such."""
    return escape(f"{value:.3g}") if not math.isfinite(value) or abs(value) >= 1e-12 or not value else f"{value:.0e}"


def main() -> int:
    """Write the page, or print what claims.py must be changed in; return 1 then."""
    try:
        text = page(Findings(paths.root() / "figures" / "paper"))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    (ROOT / PAGE).write_text(text)
    print(f"Wrote {PAGE}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

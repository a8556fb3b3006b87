"""Write docs/networks.md: which kinds of networks each probe measures rightly, by asking them all.

    python site/networks_page.py           the kinds of networks, in small: needs torch alone
    python site/networks_page.py --real    those of torchvision, timm, transformers and peft (`make networks`)

Each leaves the part of the other as it is. The networks, the probes and the independent computations are in
tests/networks. Verdicts, errors and costs come from running every cell, so that the page cannot drift; a test runs them
again and compares the verdicts.
"""

import math
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "networks"))
import cells  # noqa: E402
import real  # noqa: E402
from cells import (  # noqa: E402
    COLUMNS,
    CRASHES,
    CURVATURE,
    FAMILIES,
    KINDS,
    LIBRARIES,
    NONE,
    OTHERS,
    REAL,
    REFUSED,
    RIGHT,
    WRONG,
    Cell,
)  # fmt: skip
from kinds import Kind  # noqa: E402

PAGE = "docs/networks.md"
Found = dict[tuple[str, str], Cell]  # by kind and column
INTRODUCTION = """# Networks

Which networks can be measured, and how far the numbers can be trusted. A row is a kind of network, in small; a column
is a probe, asked about it and compared with a computation that shares nothing with it: finite differences, loops over
samples, hooks written for the comparison.

- A number is the largest relative error of what the probe gives. With it stands the cost of one call, in units of one
  training step on the same batch of 8 samples: `2e-12 (30)` is right to 12 digits, for the time of 30 steps. In such
  small networks most of the time goes to calling functions; in large ones a probe costs fewer steps.
- **refused**: the probe raises an error that says why; the number in brackets is its place in the list below.
- **crashes**: it raises an error of torch or Python instead.
- **wrong**: the error is above the tolerance, {tolerance:.0e} in float64, or the network was left changed: a parameter,
  buffer, gradient, mode or hook, or the random state, bit for bit.
- -: the probe does not apply: deformations are of square images, a ledger is of a residual stream, noise on inputs
  needs inputs that are numbers.

Networks compute in float64 and in eval mode unless the row says otherwise; for `critical_rate` and `predict` batch
norms use the statistics of each batch, as in training. Warnings count as errors. The page is written by
`python site/networks_page.py`; a test asks for every cell again and compares the verdicts.

## Kinds of networks
"""
REAL_HEADING = "## Networks of libraries"
REAL_INTRODUCTION = f"""{REAL_HEADING}

The same for networks of torchvision, timm, transformers and peft, built from tiny configurations with random weights,
by `make networks`. The norms of Llama and T5 round to float32, which bounds their errors.
"""


def escape(text: str) -> str:
    """Text that Markdown shows as it is, also within a table."""
    return re.sub(r"([\\`*_{}\[\]<>|#$~^])", r"\\\1", text)


def measured(kinds: dict[str, Kind], *, times: int = 3) -> Found:
    """Every cell of these kinds, with its lowest cost: a call may wait for other programs, or load a library."""
    found = {}
    for name, kind in kinds.items():
        print(name, flush=True)
        step = cells.training_step(kind)
        for column in COLUMNS:
            asked = [cells.run(column, kind, step=step) for _ in range(times)]
            found[name, column] = min(asked, key=lambda cell: cell.cost)
    return found


def part(introduction: str, found: Found, families: dict[str, list[Kind]]) -> str:
    """A part of the page: its tables, and the errors in them."""
    sentences = list(dict.fromkeys(cell.sentence for cell in found.values() if cell.sentence))
    parts = [introduction]
    for family, kinds in families.items():
        parts.append(f"### {family}")
        for columns in (CURVATURE, OTHERS):
            parts.append(table(found, [kind.name for kind in kinds], list(columns), sentences))
    parts += ["### Errors", "\n".join(f"{place}. {escape(text)}" for place, text in enumerate(sentences, 1))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def parts(text: str) -> tuple[str, str]:
    """The two parts of a page: kinds in small, and networks of libraries ("" before they have been asked)."""
    small, heading, libraries = text.partition(REAL_HEADING)
    return small.rstrip() + "\n", heading + libraries


def table(found: Found, names: list[str], columns: list[str], sentences: list[str]) -> str:
    """One row for each kind."""
    lines = [["network", *map(escape, columns)], ["---"] * (len(columns) + 1)]
    lines += [[escape(name), *(shown(found[name, column], sentences) for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(cell: Cell, sentences: list[str]) -> str:
    """A cell in Markdown."""
    if cell.verdict == NONE:
        return NONE
    place = f" ({sentences.index(cell.sentence) + 1})" if cell.sentence else ""
    if cell.verdict == REFUSED:
        return f"{REFUSED}{place}"
    if cell.verdict == RIGHT:
        cost = "" if math.isnan(cell.cost) else f" ({cell.cost:.0f})"
        return f"{_digit(cell.error)}{cost}"
    error = "" if math.isnan(cell.error) else f" {_digit(cell.error)}"
    return f"**{cell.verdict}**{error}{place}"


def _digit(error: float) -> str:
    return f"{error:.0e}" if error else "0"


def read(text: str) -> Found:
    """The cells of a page, without numbers: verdicts and sentences."""
    sentences = {place: re.sub(r"\\(.)", r"\1", words) for place, words in re.findall(r"^(\d+)\. (.*)$", text, re.M)}
    found, columns = {}, []
    for line in text.splitlines():
        if not line.startswith("| "):
            continue
        name, *entries = (re.sub(r"\\(.)", r"\1", entry) for entry in line[2:-2].split(" | "))
        if name == "network":
            columns = entries
        elif name != "---":
            found |= {(name, column): _cell(entry, sentences) for column, entry in zip(columns, entries, strict=True)}
    return found


def _cell(entry: str, sentences: dict[str, str]) -> Cell:
    verdict = next((one for one in (REFUSED, CRASHES, WRONG) if one in entry), NONE if entry == NONE else RIGHT)
    place = re.search(r"\((\d+)\)", entry) if verdict in (REFUSED, CRASHES, WRONG) else None
    return Cell(verdict, sentence=sentences[place[1]] if place else "")


def main(arguments: list[str]) -> int:
    """Write one part of the page; return 1 if a library is missing."""
    others = "--real" in arguments
    if others and (why := real.missing()):
        print(why, file=sys.stderr)
        return 1
    found = measured(REAL, times=1) if others else measured(KINDS)
    place = ROOT / PAGE
    small, libraries = parts(place.read_text()) if place.exists() else ("", "")
    if others:
        libraries = part(REAL_INTRODUCTION, found, LIBRARIES)
    else:
        small = part(INTRODUCTION.format(tolerance=1e-6), found, FAMILIES)
    place.write_text("\n".join(text for text in (small, libraries) if text))
    print(f"Wrote {PAGE}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Which notebooks are up to date: hashes of all that decides about their results, in stamps that are written last.

A stamp also has the hashes of what its notebook wrote: a figure that was removed or changed is drawn again.
"""

import csv
import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nin
from nin.companion.parameters import cells
from nin.companion.side_by_side import Outcome
from nin.support import paths, provenance

SCHEMA = 1
PACKAGES = (
    "torch", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "seaborn", "tueplots", "pyarrow", "jaxtyping",
    "threadpoolctl", "ipykernel",
)  # fmt: skip
IMAGES = ("*-ubyte*", "*/*-ubyte*", "*/*/*-ubyte*")  # where `nin.load_data` looks in NIN_DATA
SHOWN = 3  # reasons that are shown in full

Deciding = dict[str, str]  # what decides, by name -> its value, or the hash of its content


def deciding(notebook: Path, plan: Mapping[str, Any]) -> Deciding:
    """All that decides about a notebook's results.

    The sources of its cells, its parameters, each file of code of nin, of the studies that it names and beside it, each
    file of data, the versions of the packages. A comment is a change: it is the content of files that counts.
    """
    sources = json.dumps([[cell.kind, cell.source, *cell.tags] for cell in cells(notebook)])
    found = {"the notebook": hashlib.sha256(sources.encode()).hexdigest()}
    found |= {f"parameter {name}": repr(value) for name, value in plan.items()}
    package, root, data = Path(nin.__file__).parent, paths.root(), paths.data()
    code = {file: package.parent for file in package.rglob("*.py")}
    code |= {file: root for file in _studies(notebook)}
    code |= {file: notebook.parent for file in notebook.parent.glob("*.py")}
    found |= {f"code {file.relative_to(base)}": _sha(file) for file, base in code.items()}
    files = {file: root for file in (root / "data").rglob("*") if file.is_file()}
    files |= {file: data for place in IMAGES if data for file in data.glob(place) if file.is_file()}
    found |= {f"data {file.relative_to(base)}": _sha(file) for file, base in files.items()}
    versions = {"python": platform.python_version(), "machine": platform.machine()} | provenance.versions(PACKAGES)
    return found | {f"version {package}": version for package, version in versions.items()}


def summary(found: Deciding) -> str:
    """A hash of all that decides, and how much of each kind there is."""
    whole = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    count = {kind: sum(name.startswith(f"{kind} ") for name in found) for kind in ("parameter", "code", "data")}
    versions = len(found) - 1 - sum(count.values())
    of_code = f"{count['parameter']} parameters, {count['code']} files of code, {count['data']} of data"
    return f"{whole[:12]}: the notebook, {of_code}, {versions} versions"


class Stamp:
    """The stamp of a notebook whose executed copy is in a folder and whose figures are in another."""

    def __init__(self, notebook: Path, executed: Path, figures: Path) -> None:
        self.notebook, self.executed, self.figures = notebook, executed / notebook.name, figures
        self.path = executed / "stamps" / f"{notebook.stem}.json"

    def reasons(self, now: Deciding) -> list[str]:
        """Why the notebook has to run, in words, or nothing if it is up to date."""
        if (stamp := self._read()) is None:
            return ["it has not finished here before"]
        then = stamp["deciding"]
        found = [_difference(name, then.get(name), now.get(name)) for name in {**now, **then}]
        for name, sha in stamp["produced"].items():
            if (present := self._produced(name)) != sha:
                found.append(f"{name} {'is missing' if present is None else 'was changed'}")
        return [reason for reason in found if reason]

    def outcome(self) -> Outcome:
        """The outcome of the run that the stamp was written after."""
        stamp = self._read()
        names = [name for name in stamp["produced"] if name != self.executed.name]
        written = tuple(sorted(self.figures / name for name in names))
        of = (self.notebook.stem, stamp["seconds"], stamp["peak_bytes"], None, self.executed, self.figures, written)
        return Outcome(*of, up_to_date=True)

    def remove(self) -> None:
        """What a notebook left is not up to date from the moment that it runs again."""
        self.path.unlink(missing_ok=True)

    def write(self, outcome: Outcome, deciding: Deciding) -> None:
        """Stamp what a notebook has produced without an error."""
        names = [self.executed.name, *(path.name for path in outcome.written)]
        content = {
            "schema": SCHEMA,
            "deciding": deciding,
            "produced": {name: self._produced(name) for name in names},
            "seconds": outcome.seconds,
            "peak_bytes": outcome.peak_bytes,
        }
        paths.write(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def _read(self) -> dict[str, Any] | None:
        """The stamp, or None if there is none, or none that this version reads."""
        try:
            stamp = json.loads(self.path.read_text())
            return stamp if stamp["schema"] == SCHEMA and stamp["deciding"] and stamp["produced"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _produced(self, name: str) -> str | None:
        """The hash of a file that the notebook wrote, of the table of checks its own rows; None if it is missing."""
        path = self.executed if name == self.executed.name else self.figures / name
        try:
            if name != "checks.csv":
                return _sha(path)
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row.get("notebook") == self.notebook.stem]
            return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        except FileNotFoundError:
            return None


def listed(reasons: list[str]) -> str:
    """Reasons in one line: the first of them, and how many more there are."""
    more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return ", ".join(reasons[:SHOWN]) + more


def _difference(name: str, then: str | None, now: str | None) -> str | None:
    """How something that decides has changed, in words; None if it has not."""
    kind, _, what = name.partition(" ")
    if then == now:
        return None
    if kind in ("parameter", "version"):
        return f"{what} {then} -> {now}"
    change = "is new" if then is None else "is gone" if now is None else "changed"
    return f"{what if kind in ('code', 'data') else name} {change}"


def _studies(notebook: Path) -> set[Path]:
    """The code of all studies that a notebook's code names, and that they name.

    A study counts as named if its name is a word of any code that mentions `studies`: rather one too many.
    """
    folder = paths.root() / "studies"
    known = {path.stem: path for path in folder.glob("*") if path.suffix == ".py" or path.is_dir()}
    found: set[Path] = set()
    unread = ["\n".join(cell.source for cell in cells(notebook) if cell.kind == "code")]
    while unread:
        words = set(re.findall(r"\w+", unread.pop()))
        if "studies" not in words:
            continue
        named = [known[name] for name in {*words, "__init__"} & set(known)]
        new = {file for path in named for file in (path.rglob("*.py") if path.is_dir() else [path])} - found
        found |= new
        unread += [file.read_text() for file in new]
    return found


def _sha(path: Path) -> str:
    stat = path.stat()
    return _sha_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@cache
def _sha_of(path: Path, *_: int) -> str:
    """The hash of a file's content, read again only if the system says that it was written since."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_seconds(notebooks: Iterable[str], *folders: Path) -> dict[str, float]:
    """The longest time that the figures of each notebook record, in the first of the folders that has some of it."""
    found: dict[str, float] = {}
    wanted = set(notebooks)
    for folder in folders:
        there: dict[str, float] = {}
        for path in folder.glob("*.json"):
            try:
                sidecar = json.loads(path.read_text())
                there[sidecar["notebook"]] = max(there.get(sidecar["notebook"], 0.0), float(sidecar["seconds"]))
            except (OSError, ValueError, KeyError, TypeError):  # not a figure's
                continue
        found = {name: there[name] for name in wanted & set(there)} | found
    return found

"""Results of a notebook's former runs: marked when it starts, each until it is replaced.

The marks are in .former.json beside the figures: {"figures": {name: notebook}, "checks": [notebook]}.
"""

import csv
import json
from pathlib import Path
from typing import Any

from nin.support import paths
from nin.support.exclusive import exclusive


def mark(folder: Path, notebook: str) -> None:
    """Mark all figures and checks of a notebook that are in a folder of figures as those of a former run."""
    if not folder.is_dir():
        return
    with exclusive(folder):
        marks = _read(folder)
        for path in folder.glob("*.json"):
            if not path.name.startswith(".") and _notebook(path) == notebook:
                marks["figures"][path.stem] = notebook
        if notebook in _checked(folder):
            marks["checks"] = sorted({*marks["checks"], notebook})
        _write(folder, marks)


def replaced(folder: Path, *, figure: str | None = None, checks: str | None = None) -> None:
    """Drop the mark of a figure, or of a notebook's checks; the caller holds the folder."""
    marks = _read(folder)
    marks["figures"].pop(figure, None)
    marks["checks"] = [notebook for notebook in marks["checks"] if notebook != checks]
    _write(folder, marks)


def figures(folder: Path) -> dict[str, str]:
    """The figures of former runs in a folder, and the notebook of each."""
    return _read(folder)["figures"]


def checks(folder: Path) -> list[str]:
    """The notebooks whose checks in a folder are those of a former run."""
    return _read(folder)["checks"]


def _read(folder: Path) -> dict[str, Any]:
    path = folder / ".former.json"
    try:
        marks = json.loads(path.read_text())
        return {"figures": dict(marks["figures"]), "checks": list(marks["checks"])}
    except FileNotFoundError:
        return {"figures": {}, "checks": []}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); delete it and run the notebooks of {folder} again."
        ) from error


def _write(folder: Path, marks: dict[str, Any]) -> None:
    if marks != _read(folder):
        path = folder / ".former.json"
        if any(marks.values()):
            paths.write(path, (json.dumps(marks, indent=2, sort_keys=True) + "\n").encode())
        else:
            path.unlink(missing_ok=True)


def _notebook(sidecar: Path) -> str | None:
    try:
        content = json.loads(sidecar.read_bytes())
    except (OSError, ValueError):
        return None
    return content.get("notebook") if isinstance(content, dict) else None


def _checked(folder: Path) -> set[str]:
    try:
        with (folder / "checks.csv").open(newline="") as file:
            return {row.get("notebook") for row in csv.DictReader(file)}
    except OSError:
        return set()

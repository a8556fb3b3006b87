"""Notebooks run by hand, as in JupyterLab: their values are checked and their figures kept apart, as by `run`."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nin.companion.parameters import TAG, Parameter, complete, parameters, parse_all, read_cell
from nin.support import paths

FIGURES = "NIN_FIGURES"
_set_here: str | None = None  # the folder that a notebook of this process was given


def keep_apart(notebook: Path, given: Mapping[str, Any], profile_values: Mapping[str, Any]) -> None:
    """Send figures and checks of a notebook of the clone to runs/custom if its values are not those of its profile.

    given           the values of its parameters
    profile_values  those that its profile sets; others have their defaults, as committed: what is changed in JupyterLab
                    is saved in the notebook's file
    Nothing happens in a kernel of `python -m nin run`, or if NIN_FIGURES names a folder. Raises ValueError for a value
    that `run` would not take.
    """
    global _set_here
    if paths.WRITTEN in os.environ or os.environ.get(FIGURES) not in (None, "", _set_here):
        return
    known = parameters(notebook)
    values = parse_all(known, given, name=notebook.stem)
    complete(known, values)
    expected = {p.name: p.default for p in _committed(notebook) or known}
    expected |= parse_all(known, profile_values, name=notebook.stem)
    changed = [name for name, value in values.items() if name != "profile" and value != expected.get(name, ...)]
    if not changed:
        if _set_here:
            os.environ.pop(FIGURES, None)
        _set_here = None
        return
    folder = paths.root() / "runs" / "custom" / "figures"
    os.environ[FIGURES] = _set_here = str(folder)
    print(
        f"{', '.join(changed)}: not as in profile {given['profile']!r}, whose figures and checks are kept; those of "
        f"this run go to {folder.relative_to(paths.root())}/{given['profile']}."
    )


def _committed(notebook: Path) -> list[Parameter] | None:
    """The parameters of a notebook as it was last committed; None if git does not know it."""
    git = ["git", "-C", str(notebook.parent), "show", f"HEAD:./{notebook.name}"]
    try:
        content = json.loads(subprocess.run(git, capture_output=True, check=True).stdout)
        sources = [c["source"] for c in content["cells"] if TAG in c["metadata"].get("tags", ())]
        return read_cell("".join(sources[0]), name=notebook.name)
    except (OSError, subprocess.CalledProcessError, ValueError, LookupError):
        return None

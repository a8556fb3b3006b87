"""The notebooks of the clone: finding them by name, their headings and profiles, and the call each begins with."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nin.companion.parameters import cells, parameters
from nin.support import paths, provenance


def every() -> list[Path]:
    """Paths of all notebooks, in order of their numbers."""
    return sorted(paths.notebooks().glob("[0-9]*.ipynb"))


def chosen(names: Sequence[str | Path] = ()) -> list[Path]:
    """The notebooks with these names, each once; all if none is named. ValueError if one is unknown or none exist."""
    return list(dict.fromkeys(find(name) for name in names)) or _all()


def find(name: str | Path) -> Path:
    """The notebook with this number ("02"), name, beginning of a name, or path; else ValueError, with all names."""
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name).resolve()
    wanted, known = str(name).removesuffix(".ipynb"), _all()
    found = [path for path in known if path.stem == wanted] or [
        path for path in known if wanted and path.stem.startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    problem = "fits several notebooks" if found else "is not a notebook"
    names = ", ".join(path.stem for path in (found or known))
    raise ValueError(f"notebook={str(name)!r} {problem}; name one of {names}, or give a path to an .ipynb file.")


def _all() -> list[Path]:
    found = every()
    if not found:
        raise ValueError(
            f"there are no notebooks in {paths.notebooks()}: they come with a clone of the repository, not with the "
            "installed package; run this in a clone, or give the path of an .ipynb file."
        )
    return found


def heading(notebook: Path) -> str:
    """The first Markdown heading of a notebook, without the #, or "" if it has none."""
    for cell in cells(notebook):
        for line in cell.source.splitlines() if cell.kind == "markdown" else ():
            if line.startswith("#"):
                return line.lstrip("#").strip()
    return ""


def profile_values(profile: str) -> dict[str, dict[str, Any]]:
    """The values in notebooks/profiles/PROFILE.yaml, by notebook and parameter; other parameters keep their defaults.

    Raises ValueError for an unknown profile, listing the known ones, and for a file that is not such a mapping.
    """
    import yaml  # of the extra `companion`

    folder = paths.notebooks() / "profiles"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if profile not in known:
        raise ValueError(f"profile={profile!r} is unknown; choose one of {', '.join(known) or f'none in {folder}'}.")
    try:
        content = yaml.safe_load((folder / f"{profile}.yaml").read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"profile={profile!r}: {profile}.yaml is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise ValueError(f"profile={profile!r}: {profile}.yaml must map notebook names to `parameter: value` pairs.")
    return content


def begin(notebook: str, scope: Mapping[str, Any], *, data: Mapping[str, str] | None = None) -> None:
    """Record this notebook and its current parameters as the source of all figures and checks saved from now on.

    Torch, if it is loaded, keeps to the cores that this process may use (`nin.support.threads.fit`).

    scope   the notebook's variables: pass globals(), below the parameters cell
    data    the data sets used, name -> hash
    Raises ValueError if `scope` lacks a parameter.
    """
    if "torch" in sys.modules:  # a kernel that nobody told how many cores it has; importing torch takes seconds
        from nin.support.threads import fit

        fit()
    path = find(notebook)
    names = [parameter.name for parameter in parameters(path)]
    missing = [name for name in names if name not in scope]
    if missing:
        raise ValueError(f"scope lacks {', '.join(missing)} of {path.stem}; call it below the parameters cell.")
    given = {name: scope[name] for name in names}
    provenance.begin(path.stem, profile=given.get("profile", "quick"), parameters=given, data=data)

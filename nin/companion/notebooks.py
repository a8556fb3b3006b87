"""The notebooks of the clone: finding them by name, their headings and profiles, and the call each begins with."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nin.companion import profile_files
from nin.companion.by_hand import keep_apart
from nin.companion.parameters import cells, complete, parameters, parse_all
from nin.support import paths, provenance
from nin.support.arguments import check_choice


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
    stems = [path.stem for path in (found or known)]
    near = difflib.get_close_matches(
        f"{wanted:0>2}" if wanted.isdigit() else wanted, [*stems, *(s[:2] for s in stems)], n=1
    )
    hint = f" Did you mean {near[0]!r}?" if near and not found else ""
    raise ValueError(
        f"notebook={str(name)!r} {problem}; name one of {', '.join(stems)}, or give a path to an .ipynb file.{hint}"
    )


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


def profile_values(profile: str, *, also: Sequence[Path] = ()) -> dict[str, dict[str, Any]]:
    """The values in notebooks/profiles/PROFILE.yaml, by notebook and parameter; other parameters keep their defaults.

    also   notebooks elsewhere, which the file may name too
    Raises ValueError for an unknown profile, listing the known ones, and for a file that is not such a mapping, or that
    names an unknown notebook or parameter, or a value that does not fit.
    """
    folder = paths.notebooks() / "profiles"
    check_choice("profile", profile, sorted(path.stem for path in folder.glob("*.yaml")) or [f"(none in {folder})"])
    try:
        content = profile_files.read(folder / f"{profile}.yaml") or {}
        if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
            raise ValueError(f"{profile}.yaml must map notebook names to `parameter: value` pairs.")
        known = {path.stem: path for path in (*every(), *also)}
        for name, values in content.items():
            check_choice(f"{profile}.yaml: notebook", name, known)
            there = parameters(known[name])
            complete(there, parse_all(there, values, name=f"{profile}.yaml: {name}"))
    except ValueError as error:
        raise ValueError(f"profile={profile!r}: {error}") from None
    return content


def begin(notebook: str, scope: Mapping[str, Any], *, data: Mapping[str, str] | None = None) -> None:
    """Record this notebook and its current parameters as the source of all figures and checks saved from now on.

    Run by hand with values that are not those of its profile, it leaves the profile's figures and checks as they are,
    and says where its own go (`nin.companion.by_hand`). Torch, if it is loaded, keeps to the cores that this process
    may use (`nin.support.threads.fit`).

    scope   the notebook's variables: pass globals(), below the parameters cell
    data    the data sets used, name -> hash
    Raises ValueError if `scope` lacks a parameter, or has one that `python -m nin run` would not take.
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
    profile = given.get("profile", "quick")
    if path.parent == paths.notebooks() and (path.parent / "profiles" / f"{profile}.yaml").is_file():
        keep_apart(path, given, profile_values(profile).get(path.stem, {}))
    provenance.begin(path.stem, profile=profile, parameters=given, data=data)

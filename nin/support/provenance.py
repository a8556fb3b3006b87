"""The origin of a result: the notebook and its parameters, the package versions, the commit of the clone."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nin.support import former, paths


@dataclass(frozen=True)
class Source:
    """Where figures and checks come from: a notebook, its profile and parameters, and its data (name -> hash)."""

    notebook: str | None = None
    profile: str = "quick"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


_source = Source()


def begin(notebook: str, *, profile: str, parameters: Mapping[str, Any], data: Mapping[str, str] | None = None) -> None:
    """Set the notebook, profile, parameters and data (name -> hash) of all figures and checks saved from now on.

    Those that the notebook left in the profile's folder are marked as of a former run, each until it is saved again;
    not if it only goes on with further data.
    In a notebook, `nin.companion.notebooks.begin` finds profile and parameters by itself.
    """
    global _source
    new = Source(notebook=notebook, profile=profile, parameters=dict(parameters), data=dict(data or {}))
    same = all(getattr(new, name) == getattr(_source, name) for name in ("notebook", "profile", "parameters"))
    if not (same and _source.data.items() < new.data.items()):
        former.mark(paths.figures(profile), notebook)
    _source = new


def source() -> Source:
    """The source that `begin` set last; before any call, no notebook and the profile quick."""
    return _source


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The version of each package that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The git commit of the clone, with a + if tracked files differ from it; None outside a git clone."""
    try:
        git = ["git", "-C", str(paths.root())]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed.stdout.strip() else "")

"""The figures that `nin.figures.save` has written, found by name and profile."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nin import captions, paths
from nin.arguments import check_choice

PREFERRED = ("paper", "quick")


@dataclass(frozen=True)
class Saved:
    """A figure that `nin.figures.save` has written: figures/PROFILE/NAME.json and .csv."""

    name: str
    profile: str

    @property
    def path(self) -> Path:
        """The figure's path without a suffix."""
        return paths.figures(self.profile) / self.name

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """What the figure was drawn by and from; ValueError where it is no sidecar of a figure."""
        path = self.path.with_name(f"{self.name}.json")
        try:
            sidecar = json.loads(path.read_text())
            sidecar["draw"], sidecar["arguments"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error!r}); run the notebook of the figure again.") from error
        return sidecar

    @property
    def draw(self) -> Callable[..., Figure]:
        """The function that draws the figure; ValueError where this version of nin does not have it."""
        module, _, function = self.sidecar["draw"].rpartition(".")
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            notebook = self.sidecar.get("notebook")
            raise ValueError(
                f"{self.name} was drawn by {self.sidecar['draw']}, which is not there any more; run {notebook} again."
            ) from error

    @property
    def caption(self) -> str:
        """What the figure shows, from the docstring of its draw function."""
        return captions.caption(self.draw)


def profiles() -> list[str]:
    """Return the profiles that have figures: paper, quick, then the others by name; ValueError where none has."""
    found = {path.parent.name for path in paths.figures("").glob("*/*.json")}
    if not found:
        raise ValueError(f"there are no figures in {paths.figures('')}; save some with python -m nin run.")
    return sorted(found, key=lambda name: (PREFERRED.index(name) if name in PREFERRED else len(PREFERRED), name))


def saved(profile: str | None = None) -> list[Saved]:
    """Return the saved figures of a profile, or each figure once, from the first of `profiles` that has it.

    Raises ValueError for an unknown profile, or where there are no figures at all.
    """
    found = profiles()
    if profile is not None:
        check_choice("profile", profile, found)
    first: dict[str, str] = {}
    for name in found if profile is None else [profile]:
        for path in paths.figures(name).glob("*.json"):
            first.setdefault(path.stem, name)
    return [Saved(name, where) for name, where in sorted(first.items())]


def find(name: str, profile: str | None = None) -> Saved:
    """Return the saved figure of a name; ValueError, with the nearest name, where there is none."""
    figures = {figure.name: figure for figure in saved(profile)}
    check_choice("figure", name, figures)
    return figures[name]

"""A saved figure: its files, replaced together; its sidecar, which names the function, arguments and hashes of them."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nin.figures import drawers, tables
from nin.figures.drawers import Draw, UnknownDraw
from nin.figures.narrow import NarrowFigure
from nin.support import former, paths
from nin.support.arguments import check_choice
from nin.support.exclusive import exclusive
from nin.support.legible import make_legible

KEPT = ("checks",)  # names of other tables in the folders of figures
PREFERRED = ("paper", "quick")  # profiles that are searched first for a figure


@dataclass(frozen=True)
class Saved:
    """A figure that `nin.figures.save` has written: NAME.json and .csv in figures/PROFILE, or in a folder.

    Raises ValueError for a name or a profile that leaves that folder, or is kept for other files.
    """

    name: str
    profile: str
    folder: Path | None = None

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("profile", self.profile)):
            if not paths.is_plain(value):
                raise ValueError(
                    f"{field}={value!r} must be a plain name, without folders and not beginning with a dot."
                )
        if self.name in KEPT:
            raise ValueError(f"name={self.name!r} is that of the table of checks; choose another.")

    @property
    def path(self) -> Path:
        """The figure's path without a suffix."""
        return self.home / self.name

    @property
    def home(self) -> Path:
        """The folder that the figure is in."""
        return paths.figures(self.profile) if self.folder is None else self.folder

    def file(self, suffix: str) -> Path:
        """The path of one of the figure's files."""
        return self.home / f"{self.name}.{suffix}"

    def write(self, pictures: Mapping[str, bytes], table: bytes, sidecar: Mapping[str, Any]) -> None:
        """Replace all files of the figure, or none.

        If the process is killed between two of the replacements, the hashes in the sidecar, which comes last, tell:
        with a part of the pictures new the figure is still the old one, to be drawn again; with the table new it is
        refused. A sidecar without hashes, of an earlier version, is removed first.
        """
        hashed = {"csv": table, **pictures}
        sidecar = {**sidecar, "files": {suffix: hash_of(content) for suffix, content in hashed.items()}}
        text = json.dumps(sidecar, indent=2, default=plain) + "\n"
        self._replace({**pictures, "csv": table, "json": text.encode()})

    def write_pictures(self, pictures: Mapping[str, bytes]) -> None:
        """Replace the pictures, and their hashes in the sidecar if it has some that differ."""
        files, before = dict(pictures), self.sidecar.get("files")
        hashes = {suffix: hash_of(content) for suffix, content in pictures.items()}
        if before is not None and not hashes.items() <= before.items():
            text = json.dumps({**self.sidecar, "files": before | hashes}, indent=2) + "\n"
            files["json"] = text.encode()
        self._replace(files)

    def _replace(self, files: Mapping[str, bytes]) -> None:
        """Write the files by suffix beside their places, then move each there, in this order."""
        scratch = self.home / f".{self.name}.new"
        with paths.explained(self.file("csv")):
            self.home.mkdir(parents=True, exist_ok=True)
        with exclusive(self.home):
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            with paths.explained(self.file("csv")):
                scratch.mkdir()
            try:
                for suffix, content in files.items():
                    paths.write(scratch / suffix, content)
                if "csv" in files and not self._has_hashes():
                    self.file("json").unlink(missing_ok=True)
                for suffix in files:
                    paths.note(self.file(suffix))
                    (scratch / suffix).replace(self.file(suffix))
                paths.sync(self.home)
                if "csv" in files:
                    former.replaced(self.home, figure=self.name)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _has_hashes(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return "files" in json.loads(self.file("json").read_bytes())
        return False

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """The figure's draw function, arguments and provenance; ValueError if the file is damaged."""
        path = self.file("json")
        try:
            sidecar = json.loads(path.read_text())
            sidecar["draw"], sidecar["arguments"].keys(), sidecar.get("files", {}).keys()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error!r}); run the notebook of the figure again.") from error
        return sidecar

    @property
    def draw(self) -> Draw:
        """The function that draws the figure; ValueError if this version of nin does not have it, or it is not ours."""
        try:
            return drawers.named(_present_name(str(self.sidecar["draw"])))
        except UnknownDraw as error:
            raise UnknownDraw(f"{self.name}: {error}") from None
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{self.name} was drawn by {self.sidecar['draw']}, which no longer exists; {self._again}."
            ) from error

    @property
    def _again(self) -> str:
        return f"run {self.sidecar.get('notebook') or 'what saved it'} again"

    def table(self) -> pd.DataFrame:
        """The figure's table; ValueError if it is missing, or not the one that the sidecar was saved with."""
        path = self.file("csv")
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{path} is missing; {self._again}.") from None
        if not self._is_whole("csv", content):
            raise ValueError(
                f"{path} is not the table that {self.name}.json was saved with: saving "
                f"was cut off, or the file was changed; {self._again}."
            )
        try:
            return tables.read(content, self.sidecar.get("columns"))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read ({error}); {self._again}.") from error

    def picture(self, suffix: str) -> bytes | None:
        """The figure's picture in a format; None if there is none, or if it is another's than the sidecar's."""
        try:
            content = self.file(suffix).read_bytes()
        except FileNotFoundError:
            return None
        return content if self._is_whole(suffix, content) else None

    def fault(self) -> str:
        """What is wrong with the figure's files, and what to do, in a sentence; "" if nothing is.

        Damaged, of different versions, or left over from a former run of their notebook.
        """
        try:
            self.table()
        except (ValueError, OSError) as error:
            return str(error)
        others = [s for s in self.sidecar.get("files", {}) if self.file(s).exists() and self.picture(s) is None]
        if others:
            names = ", ".join(self.file(suffix).name for suffix in others if suffix != "csv")
            call = f"nin.figures.redraw({self.name!r}, profile={self.profile!r})"
            return f"{names} in {self.home} show another version of {self.name} than its table; call {call}."
        if notebook := former.figures(self.home).get(self.name):
            return (
                f"{self.file('png')} is of a former run: {notebook} was started again and has not made it since; "
                f"{self._again}."
            )
        return ""

    def _is_whole(self, suffix: str, content: bytes) -> bool:
        return self.sidecar.get("files", {}).get(suffix, hash_of(content)) == hash_of(content)

    def drawn(self, *, settled: bool = True) -> Figure:
        """The figure, drawn from its table and arguments with the current rcParams; the caller closes it.

        settled  False leaves `settle` of a figure for one column to the caller
        Raises ValueError, with the cause, if the table is missing or the draw function does not accept it.
        """
        draw, table, before = self.draw, self.table(), plt.get_fignums()  # these have their own messages
        try:
            return drawn_from(draw, table, self.sidecar["arguments"], settled=settled)
        except Exception as error:
            for number in set(plt.get_fignums()) - set(before):
                plt.close(number)
            raise ValueError(
                f"{self.name}: {self.sidecar['draw']} cannot draw {self.file('csv')} ({error!r}); {self._again}."
            ) from error


def drawn_from(draw: Draw, table: pd.DataFrame, arguments: Mapping[str, Any], *, settled: bool = True) -> Figure:
    """A figure that can be read in print; errors are the draw function's."""
    figure = draw(table, **arguments)
    make_legible(figure)
    if settled and isinstance(figure, NarrowFigure):
        figure.settle()
    return figure


def hash_of(content: bytes) -> str:
    """The SHA-256 of a file, as sidecars name it."""
    return hashlib.sha256(content).hexdigest()


def plain(value: Any) -> Any:
    """A NumPy value as JSON knows it; TypeError for others."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _present_name(draw: str) -> str:
    """The present name of a draw function: until version 0.1, those of notebook X were in nin.plots.X."""
    if not draw.startswith("nin.plots."):
        return draw
    study, _, function = draw.removeprefix("nin.plots.").rpartition(".")
    return f"studies.{'nin_vs_loss' if study == 'niw_vs_loss' else study}.figures.{function}"


def profiles() -> list[str]:
    """Return the profiles that have figures: paper, quick, then the others by name; ValueError if none has."""
    found = {path.parent.name for path in paths.figures("").glob("*/*.json") if paths.is_plain(path.parent.name)}
    if not found:
        raise ValueError(f"there are no figures in {paths.figures('')}; save some with python -m nin run.")
    return sorted(found, key=lambda name: (PREFERRED.index(name) if name in PREFERRED else len(PREFERRED), name))


def saved(profile: str | None = None) -> list[Saved]:
    """Return the saved figures of a profile, or each figure once, from the first of `profiles` that has it.

    Raises ValueError for an unknown profile, or if there are no figures at all.
    """
    found = profiles()
    if profile is not None:
        check_choice("profile", profile, found)
    first: dict[str, str] = {}
    for name in found if profile is None else [profile]:
        for path in paths.figures(name).glob("*.json"):
            if paths.is_plain(path.stem) and path.stem not in KEPT:  # no other can be a figure
                first.setdefault(path.stem, name)
    return [Saved(name, where) for name, where in sorted(first.items())]


def find(name: str, profile: str | None = None) -> Saved:
    """Return the saved figure of this name; ValueError, suggesting the nearest name, if none exists."""
    figures = {figure.name: figure for figure in saved(profile)}
    check_choice("figure", name, figures)
    return figures[name]

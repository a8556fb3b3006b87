"""Figures are saved with their table and provenance, found by name, and redrawn."""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nin.figures import drawers
from nin.figures.drawers import Draw, UnknownDraw
from nin.figures.style import style
from nin.support import paths, provenance
from nin.support.arguments import check_choice
from nin.support.legible import make_legible

FORMATS = ("pdf", "svg", "png")
WITHOUT_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
PACKAGES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "seaborn", "nin")
KEPT = ("checks",)  # names of other tables in the folders of figures
PREFERRED = ("paper", "quick")  # profiles that are searched first for a figure


def save(draw: Draw, name: str, *, data: pd.DataFrame, folder: str | Path | None = None, **kwargs: Any) -> Figure:
    """Draw and save NAME.pdf, .svg, .png, the plotted table .csv and a .json sidecar; return the figure.

    draw(data, **kwargs) -> Figure is a module-level function; kwargs must be JSON values. The figure is drawn
    from the table and the arguments as they are read back, so `redraw` gives the same bytes; the files are written once
    it is drawn, the sidecar last.
    folder   where the files go; None: figures/PROFILE of the clone, or of NIN_FIGURES, where the commands find them
    Raises ValueError for a draw that cannot be imported by name, arguments that are not JSON, and a name that is not
    plain; OSError if the folder cannot be written.
    """
    dotted = drawers.allow(draw)
    try:
        arguments = json.dumps(kwargs, default=_plain)
    except TypeError as error:
        raise ValueError(
            f"arguments of {dotted} must be JSON values (numbers, strings, lists, dicts): {error}."
        ) from None
    figure = Saved(name, provenance.source().profile, None if folder is None else Path(folder))
    table = data.to_csv(index=False).encode()
    sidecar = {"draw": dotted, "arguments": json.loads(arguments)} | _provenance(data)
    content = json.dumps(sidecar, indent=2, default=_plain) + "\n"
    drawn, pictures = _rendered(lambda: _drawn(draw, pd.read_csv(io.BytesIO(table)), sidecar["arguments"]))
    figure.write({"csv": table, **pictures, "json": content.encode()})
    return drawn


def redraw(name: str, *, profile: str = "quick", folder: str | Path | None = None, draw: Draw | None = None) -> Figure:
    """Draw a saved figure again from its table and sidecar alone; the files are identical byte for byte.

    folder   of a figure that was saved elsewhere than in figures/profile
    draw     the function that drew it, if it is one of your own: a file alone may not name it
    Raises ValueError for a name that was never saved there, listing those that were, and as `Saved`.
    """
    figure = Saved(name, profile, None if folder is None else Path(folder))
    if draw is not None:
        drawers.allow(draw)
    if not figure.path.with_name(f"{name}.json").exists():
        names = sorted(path.stem for path in figure.path.parent.glob("*.json"))
        there = f"{figure.path.parent}; there are: {', '.join(names) or 'none'}"
        raise ValueError(f"name={name!r} is not a figure in {there}.")
    drawn, pictures = _rendered(figure.drawn)
    figure.write(pictures)
    return drawn


def _rendered(draw: Callable[[], Figure]) -> tuple[Figure, dict[str, bytes]]:
    """A figure in the style of all, closed, and its picture in each format."""
    pictures = {}
    with mpl.rc_context(style()):
        before = plt.get_fignums()
        try:
            figure = draw()
            for suffix in FORMATS:
                buffer = io.BytesIO()
                figure.savefig(buffer, format=suffix, metadata=WITHOUT_DATE[suffix])
                pictures[suffix] = buffer.getvalue()
        finally:
            for number in set(plt.get_fignums()) - set(before):
                plt.close(number)
    return figure, pictures


def _drawn(draw: Draw, table: pd.DataFrame, arguments: dict[str, Any]) -> Figure:
    figure = draw(table, **arguments)
    make_legible(figure)
    return figure


def _provenance(data: pd.DataFrame) -> dict[str, Any]:
    source = provenance.source()
    return {
        "notebook": source.notebook,
        "profile": source.profile,
        "parameters": source.parameters,
        "seeds": sorted(int(seed) for seed in data["seed"].unique()) if "seed" in data else None,
        "data": source.data,
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
        "seconds": round(time.monotonic() - source.started, 1),
    }


def _plain_name(name: str) -> bool:
    return bool(name) and name == Path(name).name and not name.startswith(".") and not set(name) & set("\\\0\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


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
            if not _plain_name(value):
                raise ValueError(
                    f"{field}={value!r} must be a plain name, without folders and not beginning with a dot."
                )
        if self.name in KEPT:
            raise ValueError(f"name={self.name!r} is that of the table of checks; choose another.")

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files by suffix, in this order."""
        for suffix, content in files.items():
            paths.write(self.path.with_name(f"{self.name}.{suffix}"), content)

    @property
    def path(self) -> Path:
        """The figure's path without a suffix."""
        return (paths.figures(self.profile) if self.folder is None else self.folder) / self.name

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """The figure's draw function, arguments and provenance; ValueError if the file is damaged."""
        path = self.path.with_name(f"{self.name}.json")
        try:
            sidecar = json.loads(path.read_text())
            sidecar["draw"], sidecar["arguments"]
        except (ValueError, TypeError, KeyError) as error:
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
            notebook = self.sidecar.get("notebook")
            raise ValueError(
                f"{self.name} was drawn by {self.sidecar['draw']}, which no longer exists; run {notebook} again."
            ) from error

    def from_table(self) -> Figure:
        """The figure, drawn from its table and arguments with the current rcParams; errors are the draw function's."""
        table = pd.read_csv(self.path.with_name(f"{self.name}.csv"))
        return _drawn(self.draw, table, self.sidecar["arguments"])

    def drawn(self) -> Figure:
        """`from_table` for a figure saved earlier; the caller closes it.

        Raises ValueError, with the cause, if the table is missing or the draw function does not accept it.
        """
        path, notebook = self.path.with_name(f"{self.name}.csv"), self.sidecar.get("notebook")
        if not path.exists():
            raise ValueError(f"{path} is missing; run {notebook} again.")
        _, before = self.draw, plt.get_fignums()  # a draw function that no longer exists has its own message
        try:
            return self.from_table()
        except Exception as error:
            for number in set(plt.get_fignums()) - set(before):
                plt.close(number)
            raise ValueError(
                f"{self.name}: {self.sidecar['draw']} cannot draw {path} ({error!r}); run {notebook} again."
            ) from error


def _present_name(draw: str) -> str:
    """The present name of a draw function: until version 0.1, those of notebook X were in nin.plots.X."""
    if not draw.startswith("nin.plots."):
        return draw
    study, _, function = draw.removeprefix("nin.plots.").rpartition(".")
    return f"studies.{'nin_vs_loss' if study == 'niw_vs_loss' else study}.figures.{function}"


def profiles() -> list[str]:
    """Return the profiles that have figures: paper, quick, then the others by name; ValueError if none has."""
    found = {path.parent.name for path in paths.figures("").glob("*/*.json") if _plain_name(path.parent.name)}
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
            if _plain_name(path.stem) and path.stem not in KEPT:  # no other can be a figure
                first.setdefault(path.stem, name)
    return [Saved(name, where) for name, where in sorted(first.items())]


def find(name: str, profile: str | None = None) -> Saved:
    """Return the saved figure of this name; ValueError, suggesting the nearest name, if none exists."""
    figures = {figure.name: figure for figure in saved(profile)}
    check_choice("figure", name, figures)
    return figures[name]

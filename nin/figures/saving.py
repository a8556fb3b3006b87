"""Figures are drawn, saved with their table and provenance, and drawn again from them."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from nin.figures import drawers, tables
from nin.figures.drawers import Draw
from nin.figures.sidecars import Saved, drawn_from, plain
from nin.figures.style import alone
from nin.support import paths, provenance
from nin.support.arguments import check_kind

FORMATS = ("pdf", "svg", "png")
WITHOUT_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
PACKAGES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "seaborn", "nin")


def save(draw: Draw, name: str, *, data: pd.DataFrame, folder: str | Path | None = None, **kwargs: Any) -> Figure:
    """Draw and save NAME.pdf, .svg, .png, the plotted table .csv and a .json sidecar; return the figure.

    draw(data, **kwargs) -> Figure is a module-level function; kwargs must be JSON values. The figure is drawn
    from the table and the arguments as they are read back, so `redraw` gives the same bytes; the files are written once
    it is drawn.
    folder   where the files go; None: figures/PROFILE of the clone, or of NIN_FIGURES, where the commands find them
    All files are replaced together, the sidecar, with the hashes of the others, last.
    Raises ValueError for a draw that cannot be imported by name, arguments that are not JSON, a name that is not plain,
    and a table that csv does not keep (an index, columns of several levels, values of mixed kinds); OSError if the
    folder cannot be written.
    """
    check_kind("data", data, pd.DataFrame, "a pandas DataFrame: the table that is plotted")
    dotted = drawers.allow(draw)
    try:
        arguments = json.loads(json.dumps(kwargs, default=plain))
    except TypeError as error:
        raise ValueError(
            f"arguments of {dotted} must be JSON values (numbers, strings, lists, dicts): {error}."
        ) from None
    figure = Saved(name, provenance.source().profile, None if folder is None else paths.given("folder", folder))
    table, columns = tables.written(data)
    sidecar = {"draw": dotted, "arguments": arguments, "columns": columns} | _provenance(data)
    drawn, pictures = _rendered(lambda: drawn_from(draw, tables.read(table, columns), arguments))
    figure.write(pictures, table, sidecar)
    return drawn


def redraw(name: str, *, profile: str = "quick", folder: str | Path | None = None, draw: Draw | None = None) -> Figure:
    """Draw a saved figure again from its table and sidecar alone; the files are identical byte for byte.

    folder   of a figure that was saved elsewhere than in figures/profile
    draw     the function that drew it, if it is one of your own: a file alone may not name it
    Raises ValueError for a name that was never saved there, listing those that were, and as `Saved`.
    """
    figure = Saved(name, profile, None if folder is None else paths.given("folder", folder))
    if draw is not None:
        drawers.allow(draw)
    if not figure.file("json").exists():
        names = sorted(path.stem for path in figure.home.glob("*.json") if paths.is_plain(path.stem))
        there = f"{figure.home}; there are: {', '.join(names) or 'none'}"
        raise ValueError(f"name={name!r} is not a figure in {there}.")
    drawn, pictures = _rendered(figure.drawn)
    figure.write_pictures(pictures)
    return drawn


def _rendered(draw: Callable[[], Figure]) -> tuple[Figure, dict[str, bytes]]:
    """A figure in the style of all, closed, and its picture in each format."""
    pictures = {}
    with alone():
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


def _provenance(data: pd.DataFrame) -> dict[str, Any]:
    source = provenance.source()
    return {
        "notebook": source.notebook,
        "profile": source.profile,
        "parameters": source.parameters,
        "seeds": sorted(int(seed) for seed in data["seed"].dropna().unique()) if _has_seeds(data) else None,
        "data": source.data,
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
        "seconds": round(time.monotonic() - source.started, 1),
    }


def _has_seeds(data: pd.DataFrame) -> bool:
    return "seed" in data and pd.api.types.is_numeric_dtype(data["seed"])

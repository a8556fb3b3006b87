"""One style; a figure is saved together with its table and its provenance, and can be drawn again from them."""

import importlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from tueplots import axes, figsizes, fontsizes

from nin import paths, provenance
from nin.arguments import check_choice

FORMATS = ("pdf", "svg", "png")
WITHOUT_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
VENUES = {
    "neurips": (figsizes.neurips2024, fontsizes.neurips2024),
    "icml": (figsizes.icml2024_full, fontsizes.icml2024),
    "jmlr": (figsizes.jmlr2001, fontsizes.jmlr2001),
}
PACKAGES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "seaborn", "nin")
PHASE_COLORS = {"decoupled": "#0173b2", "decay": "#029e73", "catapult": "#de8f05", "divergent": "#cc78bc"}


@dataclass
class Provenance:
    """What made the figures of a notebook: set by `begin`, written into every sidecar."""

    notebook: str | None = None
    profile: str = "quick"
    parameters: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


_current = Provenance()


def begin(notebook: str, *, profile: str, parameters: dict[str, Any], data: dict[str, str] | None = None) -> None:
    """Tell which notebook, profile, parameters and data (name -> hash) the figures saved from now on come from."""
    global _current
    _current = Provenance(notebook=notebook, profile=profile, parameters=parameters, data=data or {})


def style(venue: str = "neurips") -> dict[str, Any]:
    """rcParams for figures of a venue (VENUES): its text width and font sizes, fonts that ship with matplotlib.

    Use it as `with matplotlib.rc_context(nin.figures.style()): ...`; colours are seaborn's colorblind palette.
    """
    check_choice("venue", venue, VENUES)
    size, fonts = VENUES[venue]
    return (
        axes.lines()
        | size()
        | fonts()
        | {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "mathtext.fontset": "dejavusans",
            "text.usetex": False,
            "pdf.fonttype": 42,
            "svg.hashsalt": "nin",
            "savefig.dpi": 200,
            "figure.dpi": 100,
            "axes.prop_cycle": mpl.cycler(color=sns.color_palette("colorblind")),
            "axes.grid": True,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.5,
            "lines.linewidth": 1.2,
            "lines.markersize": 3,
            "legend.frameon": False,
        }
    )


def panels(rows: int, columns: int, *, height: float = 0.75, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the style's text width with axes (rows, columns), each `height` times as high as it is wide."""
    width = mpl.rcParams["figure.figsize"][0]
    size = (width, rows * height * width / columns)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **kwargs)


def save(draw: Callable[..., Figure], name: str, *, data: pd.DataFrame, **kwargs: Any) -> Figure:
    """Draw and save NAME.pdf, .svg, .png, the plotted table .csv and a .json sidecar; return the figure.

    draw(data, **kwargs) -> Figure is a plain function of a module; kwargs must be JSON values. The figure is drawn
    from the table and the arguments as read back from disk, so `redraw` gives the same bytes.
    Raises ValueError for a draw that cannot be imported by name or arguments that are no JSON, OSError where the
    folder cannot be written.
    """
    dotted = f"{draw.__module__}.{draw.__qualname__}"
    if draw.__module__ == "__main__" or "<" in draw.__qualname__:
        raise ValueError(f"draw={dotted} cannot be imported by name; move it into a module such as nin.plots.")
    try:
        arguments = json.dumps(kwargs, default=_plain)
    except TypeError as error:
        raise ValueError(
            f"arguments of {dotted} must be JSON values (numbers, strings, lists, dicts): {error}."
        ) from None
    folder = paths.figures(_current.profile)
    paths.write(folder / f"{name}.csv", data.to_csv(index=False).encode())
    sidecar = {"draw": dotted, "arguments": json.loads(arguments)} | _provenance(data)
    paths.write(folder / f"{name}.json", (json.dumps(sidecar, indent=2, default=_plain) + "\n").encode())
    return _render(name, folder)


def redraw(name: str, *, profile: str = "quick") -> Figure:
    """Draw a saved figure again from its table and sidecar alone: byte for byte the same files.

    Raises ValueError for a name that was never saved in figures/profile, with those that were.
    """
    folder = paths.figures(profile)
    if not (folder / f"{name}.json").exists():
        saved = sorted(path.stem for path in folder.glob("*.json"))
        raise ValueError(f"name={name!r} is no figure in {folder}; there are: {', '.join(saved) or 'none'}.")
    return _render(name, folder)


def _render(name: str, folder: Path) -> Figure:
    sidecar = json.loads((folder / f"{name}.json").read_text())
    data = pd.read_csv(folder / f"{name}.csv")
    module, _, function = sidecar["draw"].rpartition(".")
    draw = getattr(importlib.import_module(module), function)
    with mpl.rc_context(style()):
        figure = draw(data, **sidecar["arguments"])
        for suffix in FORMATS:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=WITHOUT_DATE[suffix])
            paths.write(folder / f"{name}.{suffix}", buffer.getvalue())
        plt.close(figure)
    return figure


def _provenance(data: pd.DataFrame) -> dict[str, Any]:
    return {
        "notebook": _current.notebook,
        "profile": _current.profile,
        "parameters": _current.parameters,
        "seeds": sorted(int(seed) for seed in data["seed"].unique()) if "seed" in data else None,
        "data": _current.data,
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
        "seconds": round(time.monotonic() - _current.started, 1),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")

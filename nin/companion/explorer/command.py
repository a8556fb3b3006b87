"""`python -m nin explore name=value ...`: what the explorer shows, as files."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from nin.companion.explorer import figures as plots
from nin.companion.explorer.setting import Found, Setting, explore
from nin.figures import style
from nin.support import paths
from nin.support.arguments import check_choice


def run(pairs: Sequence[str], to: Path) -> int:
    """Run a setting given as name=value and write explore.png, explore_diagram.png, explore.csv into a folder."""
    found = explore(read(pairs))
    for name, content in files(found, [found]).items():
        paths.write(to / name, content)
    print(f"{found.phase}, kappa_0 = {found.kappa:.3g}: {found.sentence}")
    print(f"explore.png, explore_diagram.png and explore.csv are in {to}")
    return 0


def read(pairs: Sequence[str]) -> Setting:
    """name=value texts as a setting; ValueError for a name that is none, twice the same, or a value of another type."""
    fields = {field.name: field.type for field in dataclasses.fields(Setting)}
    given = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise ValueError(f"{pair!r} is no name=value; names are {', '.join(fields)}.")
        check_choice("name", name, fields)
        if name in given:
            raise ValueError(f"{name} is given twice; give it once.")
        try:
            given[name] = fields[name](text)
        except ValueError:
            kind = {int: "an integer", float: "a number"}[fields[name]]
            raise ValueError(f"{name}={text!r} must be {kind}.") from None
    return Setting(**given)


def files(found: Found, tried: Sequence[Found]) -> dict[str, bytes]:
    """The two figures and the table by file name; tried: all settings on the diagram, the present one last."""
    rows = [{"sigma": one.setting.sigma, "lr": one.setting.lr, "phase": one.phase} for one in tried]
    return {
        "explore.png": _png(5.5, lambda: plots.over_time(found.frame, phase=found.phase)),
        "explore_diagram.png": _png(3.0, lambda: plots.diagram(pd.DataFrame(rows), curvature=found.curvature)),
        "explore.csv": found.frame.to_csv(index=False).encode(),
    }


def _png(width: float, draw) -> bytes:
    """A picture of that many inches across."""
    with mpl.rc_context(style() | {"figure.figsize": (width, width)}):
        figure: Figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        plt.close(figure)
    return buffer.getvalue()

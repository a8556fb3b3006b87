"""Saved figures for papers: drawn again from their tables at the width and font sizes of a venue."""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.backends.backend_pgf import LatexError
from matplotlib.figure import Figure
from tueplots import figsizes, fontsizes

from nin.companion.papers import captions
from nin.companion.papers.fitting import HIGHEST, SCRIPTS, SMALLEST_TEXT, enlarge, large_scripts, problem
from nin.companion.papers.pgf import escaped, tex_system
from nin.figures import Saved
from nin.figures.narrow import NarrowFigure
from nin.figures.saving import WITHOUT_DATE
from nin.figures.style import alone
from nin.support import paths
from nin.support.arguments import check_choice
from nin.support.legible import make_legible

FORMATS = ("pdf", "pgf", "svg", "png")
DPI = 300
TALLER = (1.0, 1.25, 1.25, 1.25)  # tried in turn for a figure in one column of two
TOO_HIGH = 1.1  # pages: nothing is tried that would be as high as this, give or take what legends and labels need
HIGHER = (1.15, 1.3, 1.5, 1.75)  # and times its height for one of the full width
FONTS = {"font.family": "serif", "font.serif": ["STIXGeneral"], "mathtext.fontset": "stix"}  # like the venues' Times
PGF = {"pgf.rcfonts": False}  # a .pgf uses the fonts of its document


@dataclass(frozen=True)
class Venue:
    """Widths of a venue's columns in inches ("one" of two columns, or the "full" text), and its font sizes."""

    widths: dict[str, float]
    fonts: dict[str, float]


# tueplots lacks APS. Widths from its style guide, 8.6 cm (3 3/8 in) and 17.8 cm (7 in); 9-point captions as in ICML.
VENUES = {
    "neurips": Venue({"full": figsizes.neurips2024()["figure.figsize"][0]}, fontsizes.neurips2024()),
    "icml": Venue(
        {
            "one": figsizes.icml2024_half()["figure.figsize"][0],
            "full": figsizes.icml2024_full()["figure.figsize"][0],
        },
        fontsizes.icml2024(),
    ),
    "prl": Venue({"one": 3.375, "full": 7.0}, fontsizes.icml2024()),
    "jmlr": Venue({"full": figsizes.jmlr2001()["figure.figsize"][0]}, fontsizes.jmlr2001()),
}


@dataclass(frozen=True)
class Exported:
    """An exported figure: its files, its size in inches, and a problem with its layout ("" if there is none).

    A figure with a problem at the width of one column of two has no files.
    """

    figure: Saved
    files: list[Path]
    width: float
    height: float
    problem: str


def export(figure: Saved, to: Path, *, venue: str = "neurips", column: str = "full", format: str = "pdf") -> Exported:
    """Draw a figure from its table at the width of a venue's column, and write it into a folder, with a NAME.tex.

    The same table, versions and arguments give the same bytes. A .pgf comes with the images it contains.
    Raises ValueError for an unknown venue, column or format, and for .pgf if no TeX is installed to measure its text.
    """
    look = look_of(venue, column)
    check_format(format)
    if format == "pgf":
        look["pgf.texsystem"] = tex_system()
    drawn = draw(figure, look)
    width, height = drawn.get_size_inches()
    fault = _problem(drawn, look)
    if fault and column == "one":
        plt.close(drawn)
        return Exported(figure, [], width, height, f"it has no one-column form: {fault}")
    contents = _files(figure, drawn, look, format)
    wide = "*" if column == "full" and len(VENUES[venue].widths) > 1 else ""
    again = f"{figure.name} --profile {figure.profile} --venue {venue} --column {column} --format {format}"
    snippet = captions.snippet(
        figure.name, captions.caption(figure.draw), figure.sidecar, format=format, wide=wide, again=again
    )
    contents[f"{figure.name}.tex"] = snippet.encode()
    for name, content in contents.items():
        paths.write(to / name, content)
    return Exported(figure, [to / name for name in contents], width, height, fault)


def look_of(venue: str, column: str) -> dict[str, Any]:
    """rcParams of a venue's column: its width, and its font sizes, with room for exponents and indices."""
    fonts = {name: max(size, SMALLEST_TEXT / SCRIPTS) for name, size in VENUES[venue].fonts.items()}
    return {"figure.figsize": (width_of(venue, column), 3.0)} | FONTS | PGF | fonts


def width_of(venue: str, column: str) -> float:
    """The width of a venue's column in inches; ValueError for an unknown venue or column."""
    check_choice("venue", venue, VENUES)
    check_choice("column", column, ("one", "full"))
    if column not in VENUES[venue].widths:
        raise ValueError(f"column={column!r}: {venue} has a single column; leave out column, or choose 'full'.")
    return VENUES[venue].widths[column]


def check_format(format: str) -> None:
    """Raise ValueError for a format that is unknown or cannot be written on this machine."""
    check_choice("format", format, FORMATS)
    if format == "pgf":
        tex_system()


def draw(figure: Saved, look: dict[str, Any]) -> Figure:
    """`Saved.drawn` with rcParams over nin's style and no character below `fitting.SMALLEST_TEXT`."""
    with alone(look), large_scripts(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # _problem tells it
        drawn = figure.drawn(settled=False)
        if enlarge(drawn):
            make_legible(drawn)
        if isinstance(drawn, NarrowFigure):
            for taller in TALLER:
                if taller * drawn.get_figheight() > TOO_HIGH * HIGHEST:
                    break
                drawn.settle(taller=taller)
                make_legible(drawn)
                drawn.draw_without_rendering()
                if not problem(drawn):
                    break
        else:
            _give_height(drawn)
    return drawn


def _give_height(drawn: Figure) -> None:
    """Make a figure of the full width as high as it must be to have no problem, if any of HIGHER does that."""
    own = drawn.get_figheight()
    drawn.draw_without_rendering()
    for factor in HIGHER:
        if not problem(drawn):
            return
        drawn.set_figheight(factor * own)
        make_legible(drawn)
        drawn.draw_without_rendering()
    if problem(drawn):
        drawn.set_figheight(own)


def _files(figure: Saved, drawn: Figure, look: dict[str, Any], format: str) -> dict[str, bytes]:
    """The names and contents of a drawn figure's files; closes the figure."""
    options = {"metadata": WITHOUT_DATE[format]} if format in WITHOUT_DATE else {}
    with tempfile.TemporaryDirectory() as folder, alone(look), large_scripts(), escaped(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # _problem has told it
        try:
            drawn.savefig(Path(folder) / f"{figure.name}.{format}", format=format, dpi=DPI, **options)
        except LatexError as error:
            raise ValueError(f"{figure.name}: TeX cannot set its text: {error}") from error
        finally:
            plt.close(drawn)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _problem(drawn: Figure, look: dict[str, Any]) -> str:
    with alone(look), large_scripts(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drawn.set_dpi(DPI)
        drawn.draw_without_rendering()
        if any("constrained_layout not applied" in str(warning.message) for warning in told):
            return "its panels do not fit"
        return problem(drawn)

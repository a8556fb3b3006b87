"""Command line of the saved figures: `python -m nin figures list`, `... figures export` and `... figures sheet`."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path

from nin import exporting, paths, saved_figures
from nin.contact_sheet import contact_sheet
from nin.saved_figures import Saved

HELP = """Lists the saved figures and makes files for papers of them, drawn from their saved tables: nothing is trained.

  python -m nin figures list                                  what is there
  python -m nin figures export 02b_decay_times --venue prl    paper/02b_decay_times.pdf and .tex
  python -m nin figures export --all --venue icml --to paper/figures
  python -m nin figures sheet --to figures.pdf                all figures, several on a page

The figures are those of figures/ in the clone, or of the folder that the variable NIN_FIGURES names."""

EXPORT_HELP = """Draws figures again at the width and font sizes of a venue.
Beside each stands NAME.tex, a LaTeX figure with a label and a caption that tells what is shown and from which
notebook, parameters, seeds, data and commit.

  venue     --column full (default)   --column one
  neurips   5.5 in                    -
  icml      6.75 in                   3.25 in
  prl       7 in                      3.375 in
  jmlr      6 in                      -

Most figures have two to four panels beside each other; those that do not fit into one column are named.
pgf takes the fonts of the document and needs a TeX system (pdflatex, xelatex or lualatex).
Repeated, a command writes the same bytes. Exit code 2, and nothing written, for an unknown name, venue or format."""

LIST_HELP = """Lists the saved figures, a table a profile: name, notebook, what is shown, day and commit of saving.
The day is that of the saved table: in a fresh clone, the day of the clone."""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command `figures` to the parser of `python -m nin`."""
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    figures = commands.add_parser(
        "figures", help="list saved figures, export them for a paper", description=HELP, **raw
    )
    actions = figures.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="list saved figures", description=LIST_HELP, **raw)
    export = actions.add_parser("export", help="draw figures for a venue", description=EXPORT_HELP, **raw)
    export.add_argument("names", nargs="*", metavar="NAME", help="figures, as `figures list` shows them")
    export.add_argument("--all", action="store_true", help="every saved figure")
    export.add_argument("--venue", default="neurips", metavar="VENUE", help=_choices(exporting.VENUES))
    export.add_argument("--column", default="full", metavar="WIDTH", help="full (default), or one of two columns")
    export.add_argument("--format", default="pdf", metavar="FORMAT", help=_choices(exporting.FORMATS))
    export.add_argument("--to", type=Path, default=Path("paper"), metavar="DIR", help="folder (default: paper)")
    sheet = actions.add_parser("sheet", help="all figures in one PDF", description="Writes a PDF of all saved figures.")
    sheet.add_argument("--to", type=Path, required=True, metavar="FILE.pdf", help="file to write")
    listed.add_argument("--profile", help="only the figures of this profile (default: all profiles)")
    for parser in (export, sheet):
        parser.add_argument("--profile", help="figures of this profile (default: paper, or quick)")


def run(arguments: argparse.Namespace, rest: Sequence[str], print_table: Callable[..., None]) -> int:
    """Run `figures list`, `export` or `sheet`, tables by print_table(title, columns, rows); return the exit code.

    rest: names of figures that stand behind an option.
    """
    action = {"list": _list, "export": _export, "sheet": _sheet}[arguments.action]
    return action(arguments, [*getattr(arguments, "names", ()), *rest], print_table)


def _choices(names: Iterable[str]) -> str:
    return f"{', '.join(names)} (default: %(default)s)"


def _list(arguments: argparse.Namespace, names: Sequence[str], print_table: Callable[..., None]) -> int:
    found = [(profile, saved_figures.saved(profile)) for profile in _profiles(arguments.profile)]
    for profile, figures in found:
        rows = [(f.name, _notebook(f), f.caption, _day(f), _commit(f)) for f in figures]
        print_table(f"figures in {paths.figures(profile)}", ("figure", "notebook", "shows", "saved", "commit"), rows)
    return 0


def _export(arguments: argparse.Namespace, names: Sequence[str], print_table: Callable[..., None]) -> int:
    venue, column, width = arguments.venue, arguments.column, exporting.width_of(arguments.venue, arguments.column)
    exporting.check_format(arguments.format)
    rows, problems = [], []
    for figure in _chosen(arguments, names):
        done = exporting.export(figure, arguments.to, venue=venue, column=column, format=arguments.format)
        suffixes = " ".join(dict.fromkeys(path.suffix[1:] for path in done.files))
        rows.append((figure.name, figure.profile, f"{done.width:.4g} x {done.height:.3g}", suffixes))
        problems += [f"{figure.name}: {done.problem}"] if done.problem else []
    title = f"exported to {arguments.to} for {venue}, {width:g} in wide"
    print_table(title, ("figure", "profile", "inches", "files"), rows)
    for problem in problems:
        print(f"nin: {problem}{'; try --column full' if column == 'one' else ''}", file=sys.stderr)
    return 0


def _sheet(arguments: argparse.Namespace, names: Sequence[str], print_table: Callable[..., None]) -> int:
    figures = saved_figures.saved(arguments.profile)
    paths.write(arguments.to, contact_sheet(figures))
    print(f"{len(figures)} figures on {arguments.to}")
    return 0


def _chosen(arguments: argparse.Namespace, names: Sequence[str]) -> list[Saved]:
    if arguments.all == bool(names):
        raise ValueError("name the figures to export, or give --all (python -m nin figures list shows what there is).")
    if arguments.all:
        return saved_figures.saved(arguments.profile)
    return [saved_figures.find(name, arguments.profile) for name in dict.fromkeys(names)]


def _profiles(profile: str | None) -> list[str]:
    return saved_figures.profiles() if profile is None else [profile]


def _notebook(figure: Saved) -> str:
    """Its number, as `python -m nin run` takes it, or its name."""
    name = figure.sidecar.get("notebook") or ""
    number = name.partition("_")[0]
    return number if number.isdigit() else name


def _day(figure: Saved) -> str:
    return date.fromtimestamp(figure.path.with_name(f"{figure.name}.csv").stat().st_mtime).isoformat()


def _commit(figure: Saved) -> str:
    commit = figure.sidecar.get("commit") or ""
    return commit[:7] + "+" * commit.endswith("+")

"""The arguments of every command, and their parsers, whose errors are one line."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from nin.companion.help import (
    DRAW_HELP,
    EXPLORE_HELP,
    EXPORT_HELP,
    FIGURES_HELP,
    FIGURES_LIST_HELP,
    HELP,
    LIST_HELP,
    PREDICT_HELP,
    RUN_HELP,
    RUNS_HELP,
)

Handler = Callable[[argparse.Namespace], int]  # runs a command, and returns the exit code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the commands."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is; exit code 2."""
        self.exit(2, f"nin: error: {message} (see {self.prog} --help)\n")


def _path(text: str) -> Path:
    """A path that is not empty: an empty one would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("'' is no path; '.' is the working directory")
    return Path(text)


class _Version(argparse.Action):
    """Print the version of the installed package; looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from nin.support import provenance

        print(f"nin {provenance.versions(['nin']).get('nin', '(not installed as a package)')}")
        parser.exit()


def parsers(
    handlers: Mapping[str, Handler],
) -> tuple[argparse.ArgumentParser, dict[tuple[str, ...], argparse.ArgumentParser]]:
    """The main parser, used for its help and its errors, and the parser of each command by the words that name it.

    handlers   what runs each command, by the first of its words
    """
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = _Parser(prog="python -m nin", description=HELP, **raw)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run notebooks", description=RUN_HELP, **raw)
    run.set_defaults(run=handlers["run"])
    targets = "a notebook by number (02), name or path; a parameter and its value (lr=0.1)"
    run.add_argument("targets", nargs="*", metavar="NOTEBOOK | name=value", help=targets)
    run.add_argument("--profile", default="quick", help="parameter set in notebooks/profiles (default: quick)")
    run.add_argument("--out", type=_path, metavar="DIR", help="folder for executed notebooks; figures in DIR/figures")
    run.add_argument("--jobs", type=int, metavar="N", help="notebooks at once (default: what cores and memory allow)")
    run.add_argument("--force", action="store_true", help="run notebooks that are up to date as well")
    run.add_argument("--why", action="store_true", help="say what is up to date, and what decides; run nothing")
    run.add_argument("--prepare-only", action="store_true", help="write the notebooks with their values; run nothing")

    listed = commands.add_parser("list", help="list notebooks and their parameters", description=LIST_HELP, **raw)
    listed.set_defaults(run=handlers["list"])

    runs = commands.add_parser("runs", help="list the runs that nin.sweep has stored", description=RUNS_HELP, **raw)
    runs.set_defaults(run=handlers["runs"])
    store = "folder of stored runs (default: NIN_STORE, or runs/store in the clone)"
    runs.add_argument("--store", type=_path, metavar="DIR", help=store)
    runs.add_argument("--verify", action="store_true", help="compare every file with its checksum")
    runs.add_argument("--export", type=_path, metavar="TABLE.csv", help="write all runs as one tidy table")
    runs.add_argument("--prune", action="store_true", help="list what is damaged or outdated; with --yes, remove it")
    runs.add_argument("--yes", action="store_true", help="with --prune: remove what it lists")

    figures = commands.add_parser(
        "figures", help="list saved figures, draw them for a paper", description=FIGURES_HELP, **raw
    )
    actions = figures.add_subparsers(dest="action", required=True, metavar="{list,export,draw,sheet}")
    shown = actions.add_parser("list", help="list saved figures", description=FIGURES_LIST_HELP, **raw)
    shown.set_defaults(run=handlers["figures"], action="list")
    shown.add_argument("--profile", help="only the figures of this profile (default: all profiles)")
    export = actions.add_parser("export", help="draw figures for a venue", description=EXPORT_HELP, **raw)
    export.set_defaults(run=handlers["figures"], action="export")
    export.add_argument("names", nargs="*", metavar="NAME", help="figures, named as in `figures list`")
    export.add_argument("--all", action="store_true", help="every saved figure")
    export.add_argument("--venue", default="neurips", metavar="VENUE", help="see above (default: %(default)s)")
    export.add_argument(
        "--column", default="full", metavar="WIDTH", help="full (default), or one: a single column of two"
    )
    export.add_argument("--format", default="pdf", metavar="FORMAT", help="see above (default: %(default)s)")
    export.add_argument("--to", type=_path, default=Path("paper"), metavar="DIR", help="folder (default: paper)")
    export.add_argument("--profile", help="figures of this profile (default: paper, else quick)")
    draw = actions.add_parser("draw", help="draw a figure of your own table", description=DRAW_HELP, **raw)
    draw.set_defaults(run=handlers["figures"], action="draw")
    draw.add_argument("figure", metavar="FIGURE", help="trajectories, phases, decay_times or readings")
    draw.add_argument("table", type=_path, metavar="FILE.csv", help="the table")
    draw.add_argument("--name", help="name of the figure (default: FILE_FIGURE)")
    draw.add_argument("--to", type=_path, metavar="DIR", help="folder (default: figures/own)")
    sheet = actions.add_parser("sheet", help="all figures in one PDF", description="Writes a PDF of all saved figures.")
    sheet.set_defaults(run=handlers["figures"], action="sheet")
    sheet.add_argument("--to", type=_path, required=True, metavar="FILE.pdf", help="file to write")
    sheet.add_argument("--profile", help="figures of this profile (default: paper, else quick)")

    explore = commands.add_parser(
        "explore", help="train three small networks at one setting", description=EXPLORE_HELP, **raw
    )
    explore.set_defaults(run=handlers["explore"])
    explore.add_argument("values", nargs="*", metavar="name=value", help="values other than the defaults above")
    explore.add_argument("--to", type=_path, default=Path("explore"), metavar="DIR", help="folder (default: explore)")

    predict = commands.add_parser(
        "predict", help="predict the phase of a run before training", description=PREDICT_HELP, **raw
    )
    predict.set_defaults(run=handlers["predict"])
    predict.add_argument("values", nargs="*", metavar="name=value", help="values other than the defaults above")

    leaves = {("run",): run, ("list",): listed, ("runs",): runs, ("explore",): explore, ("predict",): predict}
    leaves |= {
        ("figures", "list"): shown,
        ("figures", "export"): export,
        ("figures", "sheet"): sheet,
        ("figures", "draw"): draw,
    }
    return parser, leaves

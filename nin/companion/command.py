"""Command line: `python -m nin run [NOTEBOOK ...] [name=value ...]`, `list`, `runs`, `figures`, `explore`.

Each command loads what it needs when it is called, so that `list` and `--help` answer at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nin.companion.tables import print_table

RUN_HELP = """Runs notebooks (none named: all) and prints what they took, the figures they wrote and all checks.

  python -m nin run                                   every notebook, profile quick
  python -m nin run 02 sigma_max=30 seeds=8           one notebook, other parameters; results in runs/custom
  python -m nin run --profile paper --out runs/mine   another profile, into a folder
  python -m nin run 03 sigma_shown=3 --prepare-only   the notebook with these values, to open and run yourself

Exit code 1 if a notebook fails, wrote no checks, or a check does not hold; 2 for bad arguments."""

RUNS_HELP = """Lists the stored runs: phase, key, the config fields that differ between runs, age and size.
Exit code 1 if a run is damaged or was written by a newer version of nin."""

FIGURES_HELP = """Lists the saved figures, and draws them for papers from their saved tables: nothing is trained.

  python -m nin figures list                                  what is there
  python -m nin figures export 02b_decay_times --venue prl    paper/02b_decay_times.pdf and .tex
  python -m nin figures export --all --venue icml --to paper/figures
  python -m nin figures sheet --to figures.pdf                all figures, several on a page

The figures are those of figures/ in the clone, or of the folder that the variable NIN_FIGURES names."""

EXPORT_HELP = """Draws figures again at the width and font sizes of a venue.
Beside each stands NAME.tex, a LaTeX figure with a label and a caption: what is shown, and from which notebook,
parameters, seeds, data and commit.

  venue     --column full (default)   --column one
  neurips   5.5 in                    -
  icml      6.75 in                   3.25 in
  prl       7 in                      3.375 in
  jmlr      6 in                      -

Most figures have two to four panels beside each other; those that do not fit into one column are named.
Formats are pdf, pgf, svg and png; pgf takes the fonts of the document and needs a TeX system (pdflatex, xelatex or
lualatex). Repeated, a command writes the same bytes.
Exit code 2, and nothing written, for an unknown name, venue or format."""

LIST_HELP = """Lists the saved figures, a table a profile: name, notebook, what is shown, day and commit of saving.
The day is that of the saved table: in a fresh clone, the day of the clone."""

EXPLORE_HELP = """Trains three small networks with a noise injection node, says which phase they are in, and writes
figure, diagram and table: what the explorer (make explore) shows for the same values.

  python -m nin explore                               digits, sigma=8, lr=0.05
  python -m nin explore network='linear net' sigma=8 lr=0.02 width=512 --to mine"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parse(sys.argv[1:] if argv is None else list(argv))
    try:
        return arguments.run(arguments)
    except BrokenPipeError:  # of `... | head`; nothing more is to be written, not at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        print(f"nin: error: {error.name} is not installed; python -m pip install 'nin[companion]'.", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"nin: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nnin: interrupted; the notebooks that had finished keep their results.", file=sys.stderr)
        return 130


def _parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of the command that argv begins with; its options and values may stand in any order."""
    parser, commands = _parsers()
    for words in (2, 1):
        if command := commands.get(tuple(argv[:words])):
            return command.parse_intermixed_args(argv[words:])
    return parser.parse_args(argv)  # the help, or an error that names the commands


def _parsers() -> tuple[argparse.ArgumentParser, dict[tuple[str, ...], argparse.ArgumentParser]]:
    """The parser of all, for its help and errors, and that of each command by its words."""
    parser = argparse.ArgumentParser(prog="python -m nin", description="Run the notebooks of the companion.")
    commands = parser.add_subparsers(dest="command", required=True)
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}

    run = commands.add_parser("run", help="run notebooks", description=RUN_HELP, **raw)
    run.set_defaults(run=_run)
    run.add_argument("targets", nargs="*", metavar="NOTEBOOK | name=value", help="02, 02_phase_sweep, a path; lr=0.1")
    run.add_argument("--profile", default="quick", help="parameter set in notebooks/profiles (default: quick)")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder for executed notebooks, figures in DIR/figures")
    run.add_argument("--prepare-only", action="store_true", help="write the notebooks with their values, run nothing")

    listed = commands.add_parser("list", help="list notebooks and their parameters")
    listed.set_defaults(run=_list)

    runs = commands.add_parser("runs", help="list the runs that nin.sweep has stored", description=RUNS_HELP)
    runs.set_defaults(run=_runs)
    store = "folder (default: NIN_STORE, or runs/store in the clone)"
    runs.add_argument("--store", type=Path, metavar="DIR", help=store)
    runs.add_argument("--verify", action="store_true", help="check every checksum")
    runs.add_argument("--export", type=Path, metavar="TABLE.csv", help="write the tidy table of all runs")

    figures = commands.add_parser(
        "figures", help="list saved figures, export them for a paper", description=FIGURES_HELP, **raw
    )
    actions = figures.add_subparsers(dest="action", required=True)
    shown = actions.add_parser("list", help="list saved figures", description=LIST_HELP, **raw)
    shown.set_defaults(run=_figures, action="list")
    shown.add_argument("--profile", help="only the figures of this profile (default: all profiles)")
    export = actions.add_parser("export", help="draw figures for a venue", description=EXPORT_HELP, **raw)
    export.set_defaults(run=_figures, action="export")
    export.add_argument("names", nargs="*", metavar="NAME", help="figures, as `figures list` shows them")
    export.add_argument("--all", action="store_true", help="every saved figure")
    export.add_argument("--venue", default="neurips", metavar="VENUE", help="as above (default: %(default)s)")
    export.add_argument("--column", default="full", metavar="WIDTH", help="full (default), or one of two columns")
    export.add_argument("--format", default="pdf", metavar="FORMAT", help="as above (default: %(default)s)")
    export.add_argument("--to", type=Path, default=Path("paper"), metavar="DIR", help="folder (default: paper)")
    export.add_argument("--profile", help="figures of this profile (default: paper, or quick)")
    sheet = actions.add_parser("sheet", help="all figures in one PDF", description="Writes a PDF of all saved figures.")
    sheet.set_defaults(run=_figures, action="sheet")
    sheet.add_argument("--to", type=Path, required=True, metavar="FILE.pdf", help="file to write")
    sheet.add_argument("--profile", help="figures of this profile (default: paper, or quick)")

    explore = commands.add_parser(
        "explore", help="three small networks at one setting", description=EXPLORE_HELP, **raw
    )
    explore.set_defaults(run=_explore)
    explore.add_argument("values", nargs="*", metavar="name=value", help="a wrong name is answered with all of them")
    explore.add_argument("--to", type=Path, default=Path("explore"), metavar="DIR", help="folder (default: explore)")

    leaves = {("run",): run, ("list",): listed, ("runs",): runs, ("explore",): explore}
    leaves |= {("figures", "list"): shown, ("figures", "export"): export, ("figures", "sheet"): sheet}
    return parser, leaves


def _run(arguments: argparse.Namespace) -> int:
    from nin.companion import runner
    from nin.companion.report import report

    targets = arguments.targets
    names = [text for text in targets if "=" not in text or text.endswith(".ipynb")]
    pairs = [text.partition("=") for text in targets if text not in names]
    overrides = {name.strip(): value.strip() for name, _, value in pairs}
    if len(overrides) < len(pairs):
        raise ValueError(f"{' '.join(n + s + v for n, s, v in pairs)}: a parameter is given twice; give it once.")
    options = {"profile": arguments.profile, "overrides": overrides, "out": arguments.out}
    if arguments.prepare_only:
        for path in runner.prepare(names, **options):
            print(path)
        return 0
    outcomes = runner.run(names, **options)
    return report(outcomes, budget=arguments.profile == "quick" and not names)


def _list(arguments: argparse.Namespace) -> int:
    from nin.companion import notebooks
    from nin.companion.parameters import parameters

    for notebook in notebooks.chosen():
        rows = [(p.name, p.type, repr(p.default), p.range, p.help) for p in parameters(notebook)]
        title = f"{notebook.stem}: {notebooks.heading(notebook)}"
        print_table(title, ("parameter", "type", "default", "range", "meaning"), rows)
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from nin.support import paths
    from nin.sweeps.listing import export, listing
    from nin.sweeps.store import Store

    store = Store(arguments.store or paths.store())
    found = listing(store, verify=arguments.verify)
    if arguments.export and not found.problems:
        print(f"{export(store, arguments.export)} runs exported to {arguments.export}")
        return 0
    print_table(f"runs in {store.folder}", ("phase", "key", "differs", "age", "size"), found.rows)
    if found.common:
        print(f"\nall: {found.common}")
    phases = ", ".join(f"{count} {phase}" for phase, count in found.phases.most_common())
    checked = ", every checksum holds" if arguments.verify and not found.problems else ""
    print(f"\n{len(found.rows)} runs{f' ({phases})' if phases else ''}, {found.bytes / 1e6:.1f} MB{checked}.")
    if found.readings:
        print(f"Readings of probes: {', '.join(f'{count} {name}' for name, count in found.readings.most_common())}.")
    for problem in found.problems:
        print(f"nin: {problem}", file=sys.stderr)
    return int(bool(found.problems))


def _figures(arguments: argparse.Namespace) -> int:
    from nin.companion.papers import command

    return command.run(arguments)


def _explore(arguments: argparse.Namespace) -> int:
    from nin.companion.explorer import command

    return command.run(arguments.values, arguments.to)

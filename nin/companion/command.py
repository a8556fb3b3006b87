"""The commands, their help and what they print: `python -m nin run`, `list`, `runs`, `figures`, `explore`, `predict`.

Each command imports what it needs only when it runs, so that `list` and `--help` respond at once.
"""

import argparse
import difflib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nin.companion.tables import print_table
from nin.support import cores

HELP = """Runs the notebooks of the companion, lists stored runs, and draws saved figures for papers.

  python -m nin list                  the notebooks and their parameters
  python -m nin run 01 width=2000     run one notebook with another value
  python -m nin COMMAND --help        what a command does, with examples"""

RUN_HELP = """Runs notebooks (all, if none is named) and prints their run times, the figures they wrote and all checks.

  python -m nin run                                   every notebook, profile quick
  python -m nin run 01 width=2000 seeds=8           one notebook with other parameters
  python -m nin run --profile paper --out runs/mine   another profile, results in a folder
  python -m nin run 03 sigma_shown=3 --prepare-only   the notebook with these values, to open and run yourself
  python -m nin run --why                             which notebooks are up to date, and what has changed

Notebooks run side by side, as many as cores and memory allow (--jobs N). One is skipped as up to date if nothing that
decides has changed since it finished: its cells, parameters, the code of nin and of the studies it names, the data, the
versions of packages, and the files it wrote; --force runs it all the same. Stopped, the command goes on where it was.

Executed notebooks go to runs/PROFILE and figures to figures/PROFILE. With other parameters, both go to runs/custom, so
that the results of the profile are kept.
Exit code 1 if a notebook fails or writes no checks, or if a check does not hold; 2 for bad arguments."""

LIST_HELP = """Lists the notebooks and their parameters: type, default, allowed range and meaning.
`python -m nin run NOTEBOOK name=value` sets them."""

RUNS_HELP = """Lists the runs that nin.sweep has stored: phase, key, the config fields that differ between runs, age and
size. Exit code 1 if a run is damaged or was written by a newer version of nin.

  python -m nin runs --verify              compare every file with its checksum
  python -m nin runs --export runs.csv     all runs as one tidy table
  python -m nin runs --prune               what is damaged, and readings of probes that this version would take anew
  python -m nin runs --prune --yes         the same, and remove it"""

FIGURES_HELP = """Lists the saved figures, and draws them for papers from their saved tables; nothing is trained.

  python -m nin figures list                                  all saved figures
  python -m nin figures export 02b_decay_times --venue prl    paper/02b_decay_times.pdf and .tex
  python -m nin figures export --all --venue icml --to paper/figures
  python -m nin figures sheet --to figures.pdf                all figures, several to a page
  python -m nin figures draw phases my.csv                    a figure of your own table

The figures are read from figures/ in the clone, or from the folder named by the variable NIN_FIGURES."""

FIGURES_LIST_HELP = """Lists the saved figures, one table per profile: name, notebook, what the figure shows, day and
commit of saving. The day is that of the saved table: in a fresh clone, the day of cloning."""

EXPORT_HELP = """Draws figures again at the width and font sizes of a venue.
With each comes NAME.tex, a LaTeX figure whose caption says what is shown and from which notebook, parameters, seeds,
data and commit.

  venue     --column full (default)   --column one
  neurips   5.5 in                    -
  icml      6.75 in                   3.25 in
  prl       7 in                      3.375 in
  jmlr      6 in                      -

In one column of two, panels stand below each other. A figure that cannot be read there is named and not written.
The formats are pdf, pgf, svg and png. A pgf file uses the fonts of the document and needs a TeX system (pdflatex,
xelatex or lualatex). The same command always writes the same bytes.
Exit code 1 if a figure has no form at this width; 2, with nothing written, for an unknown name, venue or format."""

DRAW_HELP = """Draws a figure of your own table, a csv file with these columns, and saves it in figures/own, where
`figures list` and `figures export` find it.

  python -m nin figures draw phases my.csv                     figures/own/my_phases.pdf, .svg, .png, .csv, .json
  python -m nin figures draw readings my.csv --name curvature --to results

  FIGURE         columns                          what it shows
  trajectories   step noisy_loss niw_norm         losses and |W_NI| of each run, in the colour of its phase
  phases         step noisy_loss niw_norm sigma   what decides the phase of each run, against sigma
  decay_times    step noisy_loss niw_norm sigma   decay times of |W_NI| and of the clean losses
  readings       step, and columns of numbers     the numbers of probes against step, a panel for each

A row is a step of a run. Used as well if they are there: run (a number for each run), expected_loss with ratio_stderr,
train_loss, test_loss, niw_decay; for readings quantity, value and error. Such a table is nin.Record.frame(),
nin.train(...).frame() or nin.sweep(...), saved by to_csv."""

EXPLORE_HELP = """Trains three small networks with a noise injection node, reports their phase, and writes a figure, a
phase diagram and a table: the same as the explorer (make explore) shows for these values.

  python -m nin explore                               digits, sigma=8, lr=0.05
  python -m nin explore network='linear net' sigma=8 lr=0.02 width=512 --to mine

  network=digits   digits or 'linear net'           width=64       units of each hidden layer
  sigma=8.0        noise scale                      batch=128      samples per step
  lr=0.05          learning rate                    layer=0        the linear layer that the node feeds
  law=gaussian     law of the noise: gaussian, rademacher or uniform"""

PREDICT_HELP = """Predicts the phase of a run from its network before training, and the noise scales at which decay,
catapult and divergence begin. Says whether plain SGD is unstable at this learning rate by itself.

  python -m nin predict                               digits, widths=128,128,128, sigma=1.0, lr=0.05
  python -m nin predict sigma=30 loss=mse widths=64,64 activation=tanh

Names and defaults are those of nin.RunConfig:

  dataset=digits      digits, mnist, fashion_mnist or linear_teacher       n_train=None   None: all
  network=mlp         mlp or linear         widths=128,128,128             init=he        he or ntk
  activation=relu     relu, tanh, softplus or linear                       loss=cross_entropy, or mse
  layer=0             the linear layer that the node feeds                 sigma=1.0      noise scale
  nodes=1             number of nodes       niw_std=None   None: |W_NI| is about 1
  law=gaussian        gaussian, uniform or rademacher                      lr=0.05        learning rate
  batch_size=128      samples per step      steps=1500     length of the run
  seed=0              of weights and draws  dtype=float32  float32 or float64"""


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parse(sys.argv[1:] if argv is None else list(argv))
    try:
        return arguments.run(arguments)
    except BrokenPipeError:  # from `... | head`; nothing more may be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        print(
            f"nin: error: {error.name} is not installed; run python -m pip install 'nin[companion]'.", file=sys.stderr
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"nin: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nnin: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def _parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of the command that argv begins with; its options and values may come in any order."""
    parser, commands = _parsers()
    for words in (2, 1):
        if command := commands.get(tuple(argv[:words])):
            return command.parse_intermixed_args(argv[words:])
    if argv and argv[0] not in ("-h", "--help", "--version", "figures"):
        known = list(dict.fromkeys(words[0] for words in commands))
        near = difflib.get_close_matches(argv[0], [*known, "--help", "--version"], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        parser.error(f"COMMAND={argv[0]!r} is unknown; choose one of {', '.join(known)}.{hint}")
    return parser.parse_args(argv)  # the help, or an error that names the commands


def _parsers() -> tuple[argparse.ArgumentParser, dict[tuple[str, ...], argparse.ArgumentParser]]:
    """The main parser, used for its help and its errors, and the parser of each command by the words that name it."""
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = _Parser(prog="python -m nin", description=HELP, **raw)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run notebooks", description=RUN_HELP, **raw)
    run.set_defaults(run=_run)
    targets = "a notebook by number (02), name or path; a parameter and its value (lr=0.1)"
    run.add_argument("targets", nargs="*", metavar="NOTEBOOK | name=value", help=targets)
    run.add_argument("--profile", default="quick", help="parameter set in notebooks/profiles (default: quick)")
    run.add_argument("--out", type=_path, metavar="DIR", help="folder for executed notebooks; figures in DIR/figures")
    run.add_argument("--jobs", type=int, metavar="N", help="notebooks at once (default: what cores and memory allow)")
    run.add_argument("--force", action="store_true", help="run notebooks that are up to date as well")
    run.add_argument("--why", action="store_true", help="say what is up to date, and what decides; run nothing")
    run.add_argument("--prepare-only", action="store_true", help="write the notebooks with their values; run nothing")

    listed = commands.add_parser("list", help="list notebooks and their parameters", description=LIST_HELP, **raw)
    listed.set_defaults(run=_list)

    runs = commands.add_parser("runs", help="list the runs that nin.sweep has stored", description=RUNS_HELP, **raw)
    runs.set_defaults(run=_runs)
    store = "folder of stored runs (default: NIN_STORE, or runs/store in the clone)"
    runs.add_argument("--store", type=_path, metavar="DIR", help=store)
    runs.add_argument("--verify", action="store_true", help="compare every file with its checksum")
    runs.add_argument("--export", type=_path, metavar="TABLE.csv", help="write all runs as one tidy table")
    runs.add_argument("--prune", action="store_true", help="list what is damaged or outdated; with --yes, remove it")
    runs.add_argument("--yes", action="store_true", help="with --prune: remove what it lists")

    figures = commands.add_parser(
        "figures", help="list saved figures, draw them for a paper", description=FIGURES_HELP, **raw
    )
    actions = figures.add_subparsers(dest="action", required=True, metavar="{list,export,sheet}")
    shown = actions.add_parser("list", help="list saved figures", description=FIGURES_LIST_HELP, **raw)
    shown.set_defaults(run=_figures, action="list")
    shown.add_argument("--profile", help="only the figures of this profile (default: all profiles)")
    export = actions.add_parser("export", help="draw figures for a venue", description=EXPORT_HELP, **raw)
    export.set_defaults(run=_figures, action="export")
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
    draw.set_defaults(run=_figures, action="draw")
    draw.add_argument("figure", metavar="FIGURE", help="trajectories, phases, decay_times or readings")
    draw.add_argument("table", type=_path, metavar="FILE.csv", help="the table")
    draw.add_argument("--name", help="name of the figure (default: FILE_FIGURE)")
    draw.add_argument("--to", type=_path, metavar="DIR", help="folder (default: figures/own)")
    sheet = actions.add_parser("sheet", help="all figures in one PDF", description="Writes a PDF of all saved figures.")
    sheet.set_defaults(run=_figures, action="sheet")
    sheet.add_argument("--to", type=_path, required=True, metavar="FILE.pdf", help="file to write")
    sheet.add_argument("--profile", help="figures of this profile (default: paper, else quick)")

    explore = commands.add_parser(
        "explore", help="train three small networks at one setting", description=EXPLORE_HELP, **raw
    )
    explore.set_defaults(run=_explore)
    explore.add_argument("values", nargs="*", metavar="name=value", help="values other than the defaults above")
    explore.add_argument("--to", type=_path, default=Path("explore"), metavar="DIR", help="folder (default: explore)")

    predict = commands.add_parser(
        "predict", help="predict the phase of a run before training", description=PREDICT_HELP, **raw
    )
    predict.set_defaults(run=_predict)
    predict.add_argument("values", nargs="*", metavar="name=value", help="values other than the defaults above")

    leaves = {("run",): run, ("list",): listed, ("runs",): runs, ("explore",): explore, ("predict",): predict}
    leaves |= {
        ("figures", "list"): shown,
        ("figures", "export"): export,
        ("figures", "sheet"): sheet,
        ("figures", "draw"): draw,
    }
    return parser, leaves


def _run(arguments: argparse.Namespace) -> int:
    from nin.companion import runner

    targets = arguments.targets
    names = [text for text in targets if "=" not in text or text.endswith(".ipynb")]
    pairs = [text.partition("=") for text in targets if text not in names]
    if unnamed := [sign + value for name, sign, value in pairs if not name.strip()]:
        raise ValueError(f"{unnamed[0]!r} must have the form name=value.")
    overrides = {name.strip(): value.strip() for name, _, value in pairs}
    if len(overrides) < len(pairs):
        raise ValueError(f"{' '.join(n + s + v for n, s, v in pairs)}: a parameter is given twice; give it once.")
    options = {"profile": arguments.profile, "overrides": overrides, "out": arguments.out}
    if arguments.prepare_only:
        for path in runner.prepare(names, **options):
            print(path)
        return 0
    if arguments.why:
        rows = [(name, "up to date" if fresh else "to run", why) for name, fresh, why in runner.why(names, **options)]
        print_table("notebooks", ("notebook", "state", "what decides, or what changed"), rows)
        return 0
    started = time.monotonic()
    outcomes = runner.run(names, **options, jobs=arguments.jobs, force=arguments.force)
    from nin.companion.report import report

    return report(outcomes, seconds=time.monotonic() - started, budget=arguments.profile == "quick" and not names)


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

    if arguments.store is not None and not arguments.store.is_dir():
        raise ValueError(f"--store {arguments.store}: there is no such folder; name the folder of stored runs.")
    store = Store(arguments.store or paths.store())
    if arguments.prune:
        return _prune(store.folder, arguments.yes)
    if arguments.yes:
        raise ValueError("--yes goes with --prune only.")
    found = listing(store, verify=arguments.verify) if arguments.verify or not arguments.export else None
    if arguments.export and not (found and found.problems):
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
    if found.records:
        columns = ("phase", "key", "name", "settings", "age", "size")
        print_table("records of loops of one's own (nin.sweeps.records.read)", columns, found.records)
    for problem in found.problems:
        print(f"nin: {problem}", file=sys.stderr)
    if arguments.export:
        print(f"nin: nothing was exported to {arguments.export}.", file=sys.stderr)
    return int(bool(found.problems))


def _prune(folder: Path, yes: bool) -> int:
    from nin.sweeps.pruning import prunable, remove
    from nin.sweeps.store import Store

    store = Store(folder)
    found = list(prunable(store))
    size = sum(entry.bytes for entry in found)
    rows = [(str(entry.path.relative_to(store.folder)), entry.why) for entry in found]
    print_table(f"damaged or outdated in {store.folder}", ("entry", "why"), rows)
    if yes:
        print(f"\n{sum(remove(store, entry) for entry in found)} of {len(found)} entries removed, {size / 1e6:.1f} MB.")
    elif found:
        print(f"\n{len(found)} entries, {size / 1e6:.1f} MB. Nothing was removed; --prune --yes removes them.")
    return 0


def _figures(arguments: argparse.Namespace) -> int:
    from nin.companion.papers import command

    return command.run(arguments)


def _explore(arguments: argparse.Namespace) -> int:
    os.environ.update(cores.variables())  # before torch is loaded
    from nin.companion.explorer import command

    return command.run(arguments.values, arguments.to)


def _predict(arguments: argparse.Namespace) -> int:
    os.environ.update(cores.variables())
    from nin.companion import prediction

    return prediction.run(arguments.values)

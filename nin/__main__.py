"""Command line: `python -m nin run [NOTEBOOK ...] [name=value ...]`, `list`, `runs`, `figures`, `explore`."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nin import checks, explore_command, figures_command, notebooks, paths
from nin.listing import export, listing
from nin.notebooks import Outcome
from nin.parameters import parameters
from nin.store import Store

WIDTH = 120
MINUTES, MEGABYTES = 12, 1200  # of all notebooks with profile quick on two cores; of a kernel, for Binder's 2 GB
RUN_HELP = """Runs notebooks (none named: all) and prints what they took, the figures they wrote and all checks.

  python -m nin run                                   every notebook, profile quick
  python -m nin run 02 sigma_max=30 seeds=8           one notebook, other parameters; results in runs/custom
  python -m nin run --profile paper --out runs/mine   another profile, into a folder
  python -m nin run 03 sigma_shown=3 --prepare-only   the notebook with these values, to open and run yourself

Exit code 1 if a notebook fails, wrote no checks, or a check does not hold; 2 for bad arguments."""

RUNS_HELP = """Lists the stored runs: phase, key, what of the config differs from run to run, age and size.
Exit code 1 if a run is damaged or was written by a newer version of nin."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)  # the rest: notebooks, values, figures behind an option
    takes_rest = arguments.command in ("run", "explore") or getattr(arguments, "action", None) == "export"
    if any(text.startswith("-") for text in rest) or (rest and not takes_rest):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if arguments.command == "run":
            return _run([*arguments.targets, *rest], arguments)
        if arguments.command == "explore":
            return explore_command.command([*arguments.values, *rest], arguments.to)
        if arguments.command == "figures":
            return figures_command.run(arguments, rest, _print_table)
        return _list() if arguments.command == "list" else _runs(arguments)
    except BrokenPipeError:  # of `... | head`; nothing more is to be written, not at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"nin: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nnin: interrupted; the notebooks that had finished keep their results.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nin", description="Run the notebooks of the companion.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="run notebooks", description=RUN_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run.add_argument("targets", nargs="*", metavar="NOTEBOOK | name=value", help="02, 02_phase_sweep, a path; lr=0.1")
    run.add_argument("--profile", default="quick", help="parameter set in notebooks/profiles (default: quick)")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder for executed notebooks, figures in DIR/figures")
    run.add_argument("--prepare-only", action="store_true", help="write the notebooks with their values, run nothing")
    commands.add_parser("list", help="list notebooks and their parameters")
    runs = commands.add_parser("runs", help="list the runs that nin.sweep has stored", description=RUNS_HELP)
    runs.add_argument(
        "--store", type=Path, metavar="DIR", help="folder (default: NIN_STORE, or runs/store in the clone)"
    )
    runs.add_argument("--verify", action="store_true", help="check every checksum")
    runs.add_argument("--export", type=Path, metavar="TABLE.csv", help="write the tidy table of all runs")
    figures_command.add(commands)
    explore = commands.add_parser(
        "explore",
        help="three small networks at one setting",
        description=explore_command.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explore.add_argument("values", nargs="*", metavar="name=value", help=", ".join(explore_command.NAMES))
    explore.add_argument("--to", type=Path, default=Path("explore"), metavar="DIR", help="folder (default: explore)")
    return parser


def _run(targets: Sequence[str], arguments: argparse.Namespace) -> int:
    names = [text for text in targets if "=" not in text or text.endswith(".ipynb")]
    pairs = [text.partition("=") for text in targets if text not in names]
    overrides = {name.strip(): value.strip() for name, _, value in pairs}
    if len(overrides) < len(pairs):
        raise ValueError(f"{' '.join(n + s + v for n, s, v in pairs)}: a parameter is given twice; give it once.")
    if arguments.prepare_only:
        for path in notebooks.prepare(names, profile=arguments.profile, overrides=overrides, out=arguments.out):
            print(path)
        return 0
    outcomes = notebooks.run(names, profile=arguments.profile, overrides=overrides, out=arguments.out)
    claims = _checks(outcomes)
    _print_notebooks(outcomes)
    minutes, peak = sum(o.seconds for o in outcomes) / 60, max(o.peak_bytes for o in outcomes) / 1e6
    budget = f" (budget: {MINUTES} minutes, {MEGABYTES} MB)" if arguments.profile == "quick" and not names else ""
    print(f"{minutes:.1f} minutes in all, at most {peak:.0f} MB in a kernel{budget}")
    _print_figures(outcomes)
    _print_checks(claims)
    failed = [o.notebook for o in outcomes if o.error]
    without = [o.notebook for o in outcomes if not o.error and o.notebook not in set(claims["notebook"])]
    broken = int((~claims["holds"].astype(bool)).sum())
    if without:
        print(f"\nno checks were written by {', '.join(without)}")
    print(f"\n{len(claims)} checks, {broken} do not hold; {len(outcomes)} notebooks, {len(failed)} failed.")
    return int(bool(failed or without or broken))


def _checks(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Rows of checks.csv of the notebooks that ran to their end and wrote it."""
    fresh = [o.notebook for o in outcomes if not o.error and o.figures / "checks.csv" in o.written]
    table = checks.table(outcomes[0].figures)
    return table[table["notebook"].isin(fresh)]


def _print_notebooks(outcomes: Sequence[Outcome]) -> None:
    rows = [(o.notebook, _show(o.seconds), _show(o.peak_bytes / 1e6), "failed" if o.error else "ok") for o in outcomes]
    _print_table("notebooks", ("notebook", "seconds", "peak memory (MB)", "result"), rows)
    for outcome in outcomes:
        if outcome.error:
            print(f"{outcome.notebook}: {outcome.error}\n    see {outcome.executed}")


def _print_figures(outcomes: Sequence[Outcome]) -> None:
    rows = []
    for outcome in outcomes:
        suffixes: dict[str, list[str]] = {}
        for path in outcome.written:
            if path.name != "checks.csv":
                suffixes.setdefault(path.stem, []).append(path.suffix[1:])
        rows += [(outcome.notebook, name, " ".join(found)) for name, found in suffixes.items()]
    _print_table(f"figures in {outcomes[0].figures}", ("notebook", "figure", "files"), rows)


def _print_checks(table: pd.DataFrame) -> None:
    columns = ("notebook", "name", "source", "measured", "relation", "predicted", "tolerance", "holds")
    shown = table.assign(holds=["yes" if holds else "NO" for holds in table["holds"]])
    _print_table("checks", columns, [[_show(row[c]) for c in columns] for row in shown.to_dict("records")])


def _list() -> int:
    found = notebooks.every()
    if not found:
        raise ValueError(f"there are no notebooks in {notebooks.paths.notebooks()}; run it in a clone.")
    for notebook in found:
        rows = [(p.name, p.type, repr(p.default), p.range, p.help) for p in parameters(notebook)]
        title = f"{notebook.stem}: {notebooks.heading(notebook)}"
        _print_table(title, ("parameter", "type", "default", "range", "meaning"), rows)
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    store = Store(arguments.store or paths.store())
    found = listing(store, verify=arguments.verify)
    if arguments.export and not found.problems:
        print(f"{export(store, arguments.export)} runs exported to {arguments.export}")
        return 0
    _print_table(f"runs in {store.folder}", ("phase", "key", "differs", "age", "size"), found.rows)
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


def _show(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1e4 or not math.isfinite(value) else f"{value:.3e}"


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns within WIDTH, the longest texts cut with an ellipsis."""
    print(f"\n{title}")
    if not rows:
        print("  none")
        return
    rows = [[" ".join(str(cell).split()) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * len(widths) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    numeric = [all(_is_number(cell) for cell in column[1:]) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(row, widths, strict=True)
        ]
        aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)]
        print(("  " + "  ".join(aligned)).rstrip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

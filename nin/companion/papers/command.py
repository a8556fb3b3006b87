"""The command line for figures: `python -m nin figures list`, `... export`, `... sheet`, `... draw`."""

import argparse
import sys
from datetime import date

from nin.companion.papers.captions import caption
from nin.companion.papers.export import check_format, export, width_of
from nin.companion.papers.own import draw
from nin.companion.papers.sheet import contact_sheet
from nin.companion.tables import print_table
from nin.figures import FORMATS, Saved, find, profiles, saved
from nin.support import paths


def run(arguments: argparse.Namespace) -> int:
    """Run `figures list`, `export`, `sheet` or `draw`, and return the exit code."""
    return {"list": _list, "export": _export, "sheet": _sheet, "draw": _draw}[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    found = [(profile, saved(profile)) for profile in _profiles(arguments.profile)]
    problems = []
    for profile, figures in found:
        rows = []
        for figure in figures:
            try:
                rows.append((figure.name, _notebook(figure), caption(figure.draw), _day(figure), _commit(figure)))
                problems += filter(None, [figure.fault()])
            except (ValueError, OSError) as error:  # one that is damaged does not hide the others
                problems.append(str(error))
        print_table(f"figures in {paths.figures(profile)}", ("figure", "notebook", "shows", "saved", "commit"), rows)
    for problem in problems:
        print(f"nin: {problem}", file=sys.stderr)
    return int(bool(problems))


def _export(arguments: argparse.Namespace) -> int:
    venue, column, width = arguments.venue, arguments.column, width_of(arguments.venue, arguments.column)
    check_format(arguments.format)
    rows, problems, faults, without = [], [], [], 0
    for figure in _chosen(arguments):
        done = export(figure, arguments.to, venue=venue, column=column, format=arguments.format)
        if done.files:
            suffixes = " ".join(dict.fromkeys(path.suffix[1:] for path in done.files))
            rows.append((figure.name, figure.profile, f"{done.width:.4g} x {done.height:.3g}", suffixes))
        without += not done.files
        problems += [f"{figure.name}: {done.problem}"] if done.problem else []
        faults += filter(None, [figure.fault()])
    title = f"exported to {arguments.to} for {venue}, {width:g} in wide"
    print_table(title, ("figure", "profile", "inches", "files"), rows)
    for problem in problems:
        print(f"nin: {problem}{'; take --column full' if column == 'one' else ''}", file=sys.stderr)
    for fault in faults:
        print(f"nin: {fault}", file=sys.stderr)
    return int(without > 0)


def _sheet(arguments: argparse.Namespace) -> int:
    if arguments.to.is_dir():
        raise ValueError(f"--to {arguments.to} is a folder; name the PDF file to write.")
    figures = saved(arguments.profile)
    paths.write(arguments.to, contact_sheet(figures))
    print(f"{len(figures)} figures on {arguments.to}")
    return 0


def _draw(arguments: argparse.Namespace) -> int:
    figure = draw(arguments.figure, arguments.table, name=arguments.name, to=arguments.to)
    print(
        f"{figure.name}: {', '.join(figure.file(suffix).name for suffix in (*FORMATS, 'csv', 'json'))} in {figure.home}"
    )
    return 0


def _chosen(arguments: argparse.Namespace) -> list[Saved]:
    if arguments.all == bool(arguments.names):
        raise ValueError("name the figures to export, or give --all (python -m nin figures list shows their names).")
    if arguments.all:
        return saved(arguments.profile)
    return [find(name, arguments.profile) for name in dict.fromkeys(arguments.names)]


def _profiles(profile: str | None) -> list[str]:
    return profiles() if profile is None else [profile]


def _notebook(figure: Saved) -> str:
    """The notebook's number, as `python -m nin run` accepts it, or its name."""
    name = figure.sidecar.get("notebook") or ""
    number = name.partition("_")[0]
    return number if number.isdigit() else name


def _day(figure: Saved) -> str:
    return date.fromtimestamp(figure.file("csv").stat().st_mtime).isoformat()


def _commit(figure: Saved) -> str:
    commit = figure.sidecar.get("commit") or ""
    return commit[:7] + "+" * commit.endswith("+")

"""A figure of one's own table, from the command line: read, checked, drawn by `nin.figures.own_logs`, saved."""

from pathlib import Path

import pandas as pd

from nin import figures
from nin.figures import Saved, own_logs
from nin.support.arguments import check_choice

KINDS = {
    "trajectories": own_logs.trajectories,
    "phases": own_logs.phases,
    "decay_times": own_logs.decay_times,
    "readings": own_logs.readings,
}
PROFILE = "own"  # the folder beside those of the notebooks, where `figures list` and `export` find them


def draw(kind: str, path: Path, *, name: str | None = None, to: Path | None = None) -> Saved:
    """Draw a table in a csv file and save the figure as figures/own/NAME, or into a folder; NAME: FILE_KIND.

    Raises ValueError for an unknown kind, a file that is no table, one without the columns of its kind, and one that
    the figure would overwrite.
    """
    check_choice("figure", kind, KINDS)
    table = read(path)
    figure = Saved(name or f"{path.stem}_{kind}", PROFILE, to)
    if figure.file("csv").resolve() == path.resolve():
        raise ValueError(f"name={figure.name!r} would overwrite {path}; choose another with --name or --to.")
    figures.begin(f"figures draw {kind} {path.name}", profile=PROFILE, parameters={"table": str(path)})
    try:
        figures.save(KINDS[kind], figure.name, data=table, folder=to)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return figure


def read(path: Path) -> pd.DataFrame:
    """The table in a csv file, without the row numbers that pandas writes; ValueError if it is none."""
    if not path.is_file():
        raise ValueError(f"table={str(path)!r} is not a file; give a csv file.")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # also pandas' own
        raise ValueError(f"{path} is not a csv table: {' '.join(str(error).split())}") from None
    return table.drop(columns=[name for name in table.columns if name.startswith("Unnamed:")])

"""The report that `python -m nin run` prints at the end: times, figures, checks."""

from collections.abc import Sequence

import pandas as pd

from nin import checks
from nin.companion.runner import Outcome
from nin.companion.tables import print_table, show
from nin.support import former

MINUTES, MEGABYTES = 12, 1200  # budget: all notebooks, profile quick, two cores; one kernel, for Binder's 2 GB


def report(outcomes: Sequence[Outcome], *, seconds: float, budget: bool) -> int:
    """Print run times, figures and checks of the notebooks; return 0 if all ran and every check holds, else 1.

    seconds  that all of them took, side by side
    budget   whether to print the budget of the quick profile, which is for all notebooks together
    """
    claims = _checks(outcomes)
    _print_notebooks(outcomes, seconds, budget)
    _print_figures(outcomes)
    _print_checks(claims)
    failed = [o.notebook for o in outcomes if o.error]
    without = [o.notebook for o in outcomes if not o.error and o.notebook not in set(claims["notebook"])]
    broken = int((~claims["holds"].astype(bool)).sum())
    _print_former(outcomes)
    if without:
        print(f"\nno checks were written by {', '.join(without)}")
    print(f"\n{len(claims)} checks, {broken} do not hold; {len(outcomes)} notebooks, {len(failed)} failed.")
    return int(bool(failed or without or broken))


def _checks(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Rows of checks.csv from the notebooks that finished and wrote theirs in this run."""
    fresh = [o.notebook for o in outcomes if not o.error and o.figures / "checks.csv" in o.written]
    table = checks.table(outcomes[0].figures)
    return table[table["notebook"].isin(fresh) & ~table["former"].astype(bool)]


def _print_notebooks(outcomes: Sequence[Outcome], seconds: float, budget: bool) -> None:
    rows = [(o.notebook, show(o.seconds), show(o.peak_bytes / 1e6), _result(o)) for o in outcomes]
    print_table("notebooks", ("notebook", "seconds", "peak memory (MB)", "result"), rows)
    for outcome in outcomes:
        if outcome.error:
            print(f"{outcome.notebook}: {outcome.error}\n    see {outcome.executed}")
    peak = max(o.peak_bytes for o in outcomes) / 1e6
    allowed = f" (budget: {MINUTES} minutes, {MEGABYTES} MB)" if budget else ""
    print(f"{seconds / 60:.1f} minutes in all, at most {peak:.0f} MB in a kernel{allowed}")


def _result(outcome: Outcome) -> str:
    return "failed" if outcome.error else "up to date" if outcome.up_to_date else "ok"


def _print_figures(outcomes: Sequence[Outcome]) -> None:
    rows = []
    for outcome in outcomes:
        suffixes: dict[str, list[str]] = {}
        for path in outcome.written:
            if path.name != "checks.csv":
                suffixes.setdefault(path.stem, []).append(path.suffix[1:])
        rows += [(outcome.notebook, name, " ".join(found)) for name, found in suffixes.items()]
    print_table(f"figures in {outcomes[0].figures}", ("notebook", "figure", "files"), rows)


def _print_former(outcomes: Sequence[Outcome]) -> None:
    """What the notebooks left of former runs: the figures and checks that they have not made again."""
    folder = outcomes[0].figures
    left, checked = former.figures(folder), former.checks(folder)
    for notebook in [o.notebook for o in outcomes]:
        names = [name for name, of in sorted(left.items()) if of == notebook]
        names += ["its checks"] if notebook in checked else []
        if names:
            print(f"\nof a former run of {notebook}, and not made again: {', '.join(names)}")


def _print_checks(table: pd.DataFrame) -> None:
    columns = ["notebook", "name", "source", "measured", "relation", "predicted", "tolerance", "rival", "holds"]
    shown = table.assign(
        holds=["yes" if holds else "NO" for holds in table["holds"]],
        rival=["" if pd.isna(rival) else rival for rival in table["rival"]],
    )
    if table["rival"].isna().all():
        columns.remove("rival")
    print_table("checks", columns, [[show(row[c]) for c in columns] for row in shown.to_dict("records")])

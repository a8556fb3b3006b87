"""The typed runner: all parameters are checked before anything starts; what is up to date is not run again."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nin.companion.ending import ending_on_signals
from nin.companion.notebooks import chosen, profile_values
from nin.companion.parameters import cells, complete, parameters, parse_all
from nin.companion.side_by_side import Outcome, execute
from nin.companion.up_to_date import Deciding, Stamp, deciding, listed, recorded_seconds, summary
from nin.model.image_files import located
from nin.support import cores, paths
from nin.support.arguments import check_count

__all__ = ["Outcome", "prepare", "run", "why"]

LOADED = re.compile(r"\bload_data\((\w+)")
KERNEL = 1.2e9  # bytes that a kernel may take


def run(
    notebooks: Sequence[str | Path] = (),
    *,
    profile: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> list[Outcome]:
    """Run the notebooks (all, if none is named) that are not up to date; if one fails, the others still run.

    overrides  parameter -> text or value, in place of the profile's; every notebook run must have the parameter
    out        folder for the executed notebooks, with their figures in out/figures/PROFILE; None: runs/PROFILE and
               figures/PROFILE, or with overrides runs/custom, so that the profile's own results are kept
    jobs       notebooks at once, the longest first; None: as many as there are cores, and memory for their kernels
    force      run those that are up to date as well
    progress   show a line for each notebook on stderr

    Each kernel runs this interpreter and starts in the notebook's folder. Values are checked before the first starts:
    ValueError for an unknown notebook, profile or parameter or a bad value, OSError if a folder cannot be created, or
    for a data set that is not there and cannot be downloaded.
    Ctrl-C, SIGTERM and SIGHUP end the kernels and say what is left (KeyboardInterrupt, SystemExit); what is done, and
    the notebooks up to their present cells, are kept. If this process is killed, the kernels end too.
    """
    plans, executed, figures = _asked(notebooks, profile, overrides, out)
    if jobs is not None:
        check_count("jobs", jobs)
    outcomes: dict[Path, Outcome] = {}
    stamps = {notebook: Stamp(notebook, executed, figures) for notebook in plans}
    before = {notebook: deciding(notebook, plan) for notebook, plan in plans.items()}
    for notebook, stamp in stamps.items():
        if not force and not stamp.reasons(before[notebook]):
            outcomes[notebook] = stamp.outcome()
            if progress:
                print(f"{notebook.stem}: up to date", file=sys.stderr, flush=True)

    def finished(notebook: Path, outcome: Outcome) -> None:
        outcomes[notebook] = outcome
        if outcome.error is None and _still(notebook, plans[notebook]) == before[notebook]:
            stamps[notebook].write(outcome, before[notebook])

    left = _longest_first([notebook for notebook in plans if notebook not in outcomes], figures)
    for name in sorted({name for notebook in left for name in _data_sets(notebook, plans[notebook])}):
        located(name)
    for notebook in left:
        stamps[notebook].remove()
    jobs = min(jobs or cores.processes(KERNEL), max(1, len(left)))
    where = {"executed": executed, "figures": figures, "progress": progress}
    with ending_on_signals():
        try:
            execute([(notebook, _plain(plans[notebook])) for notebook in left], finished, jobs=jobs, **where)
        except (KeyboardInterrupt, SystemExit):
            unfinished = ", ".join(notebook.stem for notebook in plans if notebook not in outcomes)
            print(
                f"\nnin: stopped; {len(outcomes)} of {len(plans)} notebooks are finished, left: {unfinished}.",
                file=sys.stderr,
            )
            raise
    return [outcomes[notebook] for notebook in plans]


def why(
    notebooks: Sequence[str | Path] = (),
    *,
    profile: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> list[tuple[str, bool, str]]:
    """Name, whether it is up to date, and why, of each notebook that `run` would be about; nothing runs."""
    plans, executed, figures = _asked(notebooks, profile, overrides, out)
    found = []
    for notebook, plan in plans.items():
        now = deciding(notebook, plan)
        reasons = Stamp(notebook, executed, figures).reasons(now)
        found.append((notebook.stem, not reasons, listed(reasons) or summary(now)))
    return found


def _still(notebook: Path, plan: Mapping[str, Any]) -> Deciding | None:
    """What decides after a run; None if it is not all there any more."""
    try:
        return deciding(notebook, plan)
    except (OSError, ValueError):
        return None


def _asked(
    notebooks: Sequence[str | Path], profile: str, overrides: Mapping[str, Any] | None, out: Path | None
) -> tuple[dict[Path, dict[str, Any]], Path, Path]:
    """The notebooks with the parameters of each, the folder for the executed notebooks, and that for their figures."""
    plans, executed = dict(_plans(notebooks, profile, overrides or {})), _folder(profile, overrides, out)
    custom = out is not None or bool(overrides)
    return plans, executed, executed / "figures" / profile if custom else paths.figures(profile).absolute()


def _longest_first(notebooks: Sequence[Path], figures: Path) -> list[Path]:
    """By the times that their figures record, those of this folder or else of the paper; what has none comes first."""
    seconds = recorded_seconds([notebook.stem for notebook in notebooks], figures, paths.figures("paper"))
    return sorted(notebooks, key=lambda notebook: -seconds.get(notebook.stem, float("inf")))


def prepare(
    notebooks: Sequence[str | Path] = (),
    *,
    profile: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> list[Path]:
    """Write notebooks with the parameters that `run` would use, without executing them; return their paths.

    Existing outputs are kept. Arguments, folders and errors are those of `run`.
    """
    import nbformat
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    plans, folder = _plans(notebooks, profile, overrides or {}), _folder(profile, overrides, out)
    written = []
    for notebook, plan in plans:
        content = parameterize_notebook(load_notebook_node(str(notebook)), _plain(plan))
        del content.metadata["papermill"]  # it describes an execution
        paths.write(folder / notebook.name, nbformat.writes(content).encode())
        written.append(folder / notebook.name)
    return written


def _data_sets(notebook: Path, plan: Mapping[str, Any]) -> list[str]:
    """The data sets that a notebook loads by the name that one of its parameters has: load_data(dataset, ...)."""
    loaded = {name for cell in cells(notebook) if cell.kind == "code" for name in LOADED.findall(cell.source)}
    return [value for name in loaded if isinstance(value := plan.get(name), str)]


def _plans(
    notebooks: Sequence[str | Path], profile: str, overrides: Mapping[str, Any]
) -> list[tuple[Path, dict[str, Any]]]:
    """The notebooks (all, if none is named) and the parameters of each."""
    return [(notebook, _plan(notebook, profile, overrides)) for notebook in chosen(notebooks)]


def _folder(profile: str, overrides: Mapping[str, Any] | None, out: Path | None) -> Path:
    """The folder for the executed notebooks, created if it is missing."""
    runs = paths.root() / "runs"
    folder = paths.given("out", out) if out is not None else runs / "custom" if overrides else runs / profile
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _plain(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Values of types that papermill can write."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plan.items()}


def _plan(notebook: Path, profile: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a notebook, given a profile and overrides."""
    known = parameters(notebook)
    if not any(p.name == "profile" and p.type == "str" for p in known):
        raise ValueError(
            f'{notebook.name} lacks the parameter `profile: str = "quick"`; add it to its parameters cell.'
        )
    if "profile" in overrides:
        raise ValueError(f"profile={overrides['profile']!r}: the runner sets it; choose it with --profile.")
    of_profile = profile_values(profile, also=[notebook]).get(notebook.stem, {})
    given = parse_all(known, of_profile, name=f"{profile}.yaml: {notebook.stem}")
    given |= parse_all(known, overrides, name=notebook.stem)
    return complete(known, given) | {"profile": profile}

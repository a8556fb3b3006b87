"""What the attempts at sweeps share: the small sweep, whether all is right after a fault, broken stores."""

import contextlib
import os
import time
from pathlib import Path

import neighbours  # noqa: F401
import pandas as pd
from attempts import Child, Scene
from forked import intact
from sweeping import OVER, logged_sweep, same, stored, sweep

from nin.support import paths
from nin.sweeps.claims import Claims
from nin.sweeps.results import Results
from nin.sweeps.store import MANIFEST, TABLE, Store

SMALL = {"over": OVER | {"seed": [0]}, "at_once": 1}  # three runs in three groups


def whole(scene: Scene, **changes) -> pd.DataFrame:
    """The table of a sweep that was never disturbed."""
    return scene.call(changed_sweep, scene.folder / "whole", changes)


def changed_sweep(folder: Path, changes: dict) -> pd.DataFrame:
    return sweep(folder, **changes)


def logged(folder: Path, log: Path, changes: dict) -> pd.DataFrame:
    return logged_sweep(folder, log, **changes)


def computed(log: Path) -> list[tuple[float, int]]:
    """The runs that a log names, in its whole lines."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [(float(sigma), int(seed)) for sigma, seed in map(str.split, lines)]


def right(scene: Scene, frame: pd.DataFrame, table: pd.DataFrame) -> None:
    """Whether a table is the right one."""
    try:
        same(frame, table)
    except AssertionError as error:
        scene.found("wrong", f"another table: {error}")


def again(scene: Scene, folder: Path, table: pd.DataFrame, **changes) -> None:
    """The same call once more: all that was stored is there and kept, the rest is computed, and the table is right."""
    survived, log = stored(folder), scene.folder / "again"
    intact(folder)
    right(scene, scene.call(logged, folder, log, changes), table)
    kept(scene, folder, survived, computed(log), table["run"].nunique())
    scene.call(changed_sweep, folder, {"over": {"sigma": [1.0], "seed": [99]}})  # which also tidies up
    if left := [path for name in ("writing", "claims", "claims/writers") for path in (folder / name).glob("*[.-]*")]:
        scene.found("left behind", f"{len(left)} files of dead writers, such as {left[0].name}")


def kept(scene: Scene, folder: Path, survived: set, done: list, runs: int) -> None:
    """Whether what had survived is still there and was not computed again."""
    for run in survived - (there := stored(folder)):
        scene.found("lost", f"the stored run {run}")
    if len(there) < runs:
        scene.found("lost", f"{runs - len(there)} of {runs} runs are not stored after the sweep")
    for run in sorted(set(done) & survived):
        scene.found("doubled", f"{run} was stored and computed again")
    for run in {run for run in done if done.count(run) > 1}:
        scene.found("doubled", f"{run} was computed twice by one sweep")


def survived_or_said(scene: Scene, child: Child, folder: Path, table: pd.DataFrame) -> None:
    """Whether a sweep under a fault gave the right table, and stored it, or ended in one clear OSError."""
    result, warned = child.answer()
    if isinstance(result, OSError):
        clear = "\n" not in str(result) and str(folder) in str(result)
        if not clear:
            scene.found("wrong", f"not a clear error: {result!r}")
    elif isinstance(result, BaseException):
        scene.found("wrong", f"not an OSError: {result!r}")
    else:
        right(scene, result, table)
        if len(stored(folder)) < table["run"].nunique():
            scene.found("lost", "the sweep has finished, but its runs are not stored")
        if warned:
            scene.found("wrong", f"warned: {warned[0]}")


def write_in_place() -> None:
    """Runs are written under their names, piece by piece, the manifest first."""

    def commit(self, key, files) -> None:
        with self.writing():
            self.path(key).mkdir(parents=True, exist_ok=True)
            for name in (MANIFEST, TABLE):
                handle = os.open(self.path(key) / name, os.O_CREAT | os.O_WRONLY)
                for start in range(0, len(files[name]), 2000):
                    os.write(handle, files[name][start : start + 2000])
                    time.sleep(0.02)
                os.close(handle)

    Store._commit = commit


def forget_what_is_stored() -> None:
    """Runs are not looked up before they are computed."""
    Results.load = lambda self, configs: None


def swallow_errors() -> None:
    """A run or a claim that cannot be written is passed over in silence."""
    commit, take = Store._commit, Claims.take

    def taken(self, keys) -> list[str]:
        try:
            return take(self, keys := list(keys))
        except OSError:
            return keys

    def silent(self, key, files) -> None:
        with contextlib.suppress(OSError):
            commit(self, key, files)

    Store._commit, Claims.take = silent, taken


def never_flush() -> None:
    """Files are not flushed to the disk before they get their names."""
    paths.os = Unflushed()


class Unflushed:
    """The module os without fsync."""

    def __getattr__(self, name: str) -> object:
        return (lambda *_: None) if name == "fsync" else getattr(os, name)

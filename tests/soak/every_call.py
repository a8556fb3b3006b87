"""A small sweep whose process ends, or whose call fails, at each call that it makes of the file system."""

import errno
import io
import os
import random
from collections.abc import Callable
from pathlib import Path

from attempts import Kind, Scene
from store_faults import SMALL, again, never_flush, survived_or_said, swallow_errors, whole, write_in_place
from sweeping import OVER, sweep

CALLS = "open write replace rename mkdir unlink rmdir fsync link utime stat scandir".split()
ERRORS = [errno.EIO, errno.ENOSPC, errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EACCES, errno.EROFS]
FIRST = {"over": OVER | {"sigma": [1.0], "seed": [0]}, "at_once": 1}  # what is stored before


def counting(folder: Path, at: int, act: Callable, log: Path | None = None) -> object:
    """The small sweep; before its call number `at` within the folder, act(name, path) is called."""
    sweep(folder, **FIRST)
    synced, count = set(), [0]

    def wrapped(name: str, function: Callable) -> Callable:
        def call(path, *arguments, **keywords):
            place = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
            if str(place).startswith(str(folder)):
                count[0] += 1
                act(name, str(place), count[0] - at, synced)
                if name == "fsync":
                    synced.add(os.fstat(path).st_ino)
            return function(path, *arguments, **keywords)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))
    io.open = wrapped("io.open", io.open)
    frame = sweep(folder, **SMALL)
    if log:
        log.write_text(str(count[0]))
    return frame


def crash(name: str, place: str, late: int, synced: set, *, folder: Path, torn: int | None) -> None:
    """End this process; of what it has not flushed to the disk, only a part is there, as after a power cut."""
    if late != 0:
        return
    chance = random.Random(torn)
    for path in folder.rglob("*") if torn is not None else ():
        if path.is_file() and "claims" not in path.parts and path.stat().st_ino not in synced | FORMER:
            os.truncate(path, chance.randrange(path.stat().st_size + 1))
    os._exit(77)


FORMER: set[int] = set()  # files of before


def crashing(folder: Path, at: int, torn: int | None) -> object:
    sweep(folder, **FIRST)
    FORMER.update(path.stat().st_ino for path in folder.rglob("*"))
    return counting(folder, at, lambda *given: crash(*given, folder=folder, torn=torn))


def failing(folder: Path, at: int, number: int, often: int) -> object:
    """Some calls from number `at` on fail; that of looking is spared, which the system never refuses on its own."""

    def fail(name: str, place: str, late: int, synced: set) -> None:
        if 0 <= late < often and name not in ("stat", "scandir"):
            raise OSError(number, os.strerror(number), place)

    return counting(folder, at, fail)


def number_of_calls(folder: Path, log: Path) -> None:
    counting(folder, 0, lambda *_: None, log)


def prepared(scene: Scene) -> tuple:
    """The right table, and how many calls there are."""
    scene.call(number_of_calls, scene.folder / "counted", scene.folder / "log")
    return whole(scene, **SMALL), int((scene.folder / "log").read_text())


def place(scene: Scene, calls: int) -> int:
    """Numbers of calls at equal distances, from a random start, so that many attempts cover all of them."""
    start = random.Random(f"{scene.of} {calls}").randrange(calls)
    return 1 + (start + round(scene.number * max(1.0, calls / scene.of))) % calls


def ended(scene: Scene) -> None:
    table, calls = scene.ready
    folder = scene.folder / "store"
    torn = scene.random.choice([None, scene.random.randrange(1000)])
    at = place(scene, calls) if scene.without is None else scene.random.randrange(calls // 3, calls)
    scene.start(crashing, folder, at, torn).process.join(60)
    again(scene, folder, table, **SMALL)


def refused(scene: Scene) -> None:
    table, calls = scene.ready
    folder = scene.folder / "store"
    at = place(scene, calls) if scene.without is None else scene.random.randrange(calls // 3, calls)
    often = scene.random.choice([1, 1, 3, 10**6]) if scene.without is None else 1
    child = scene.start(failing, folder, at, scene.random.choice(ERRORS), often)
    survived_or_said(scene, child, folder, table)
    again(scene, folder, table, **SMALL)


KINDS = [
    Kind(
        "crashes",
        "the end of the process, or of power, at every call",
        ended,
        70,
        {"whole files": write_in_place, "flushing": never_flush},
        4,
        prepare=prepared,
    ),
    Kind("errors", "an error of the system at every call", refused, 70, {"errors": swallow_errors}, 4, prepared),
]

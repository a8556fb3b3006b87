"""Several sweeps of one store at once, of which one is killed or stopped, or lives on a machine with a wrong clock."""

import os
import signal
import time
from pathlib import Path

from attempts import Kind, Scene
from forked import until
from store_faults import computed, forget_what_is_stored, kept, logged, right, whole
from sweeping import stored

from nin.sweeps import claims, writers
from nin.sweeps.claims import Claims

BEAT, LEASE = 0.25, 6.0


def together(scene: Scene, start: list, disturb) -> None:
    """Sweeps at once, one of which is disturbed: no run is computed by two, unless the first one of them died."""
    folder = scene.folder / "store"
    logs = [scene.folder / str(place) for place in range(len(start))]
    sweeps = [scene.start(*begin, folder, log) for begin, log in zip(start, logs, strict=True)]
    until(lambda: any(log.exists() for log in logs))
    time.sleep(scene.random.uniform(0, 0.4))
    place = scene.random.randrange(len(sweeps))
    killed = disturb(scene, sweeps[place])
    in_flight = set(computed(logs[place])) - stored(folder) if killed else set()
    for number, child in enumerate(sweeps):
        if not (killed and number == place):
            result, warned = child.answer()
            if isinstance(result, BaseException) or warned:
                scene.found("wrong", f"{result!r} {warned}"[:300])
            else:
                right(scene, result, scene.ready)
    done = [run for log in logs for run in computed(log)]
    for run in in_flight:  # of the one that was killed, computed anew by another
        done.remove(run)
    kept(scene, folder, set(), [], scene.ready["run"].nunique())
    for run in {run for run in done if done.count(run) > 1}:
        scene.found("doubled", f"{run} was computed by two")


def kill(scene: Scene, child) -> bool:
    if scene.random.random() < 0.3:
        return False
    child.kill()
    return True


def stop(scene: Scene, child) -> bool:
    os.kill(child.process.pid, signal.SIGSTOP)
    time.sleep(scene.random.uniform(0.3, 2.5))
    os.kill(child.process.pid, signal.SIGCONT)
    return False


def here(folder: Path, log: Path):
    return logged(folder, log, {})


def elsewhere(machine: str, days: float, folder: Path, log: Path):
    """A sweep on another machine, whose clock is off by days."""
    now = time.time
    time.time = lambda: now() + days * 86400
    writers._machine = lambda: machine
    claims.BEAT, claims.LEASE = BEAT, LEASE
    return logged(folder, log, {})


def at_once(scene: Scene) -> None:
    together(scene, [(here,)] * scene.random.choice([2, 4]), kill)


def stopped(scene: Scene) -> None:
    together(scene, [(here,)] * scene.random.choice([2, 3]), stop)


def far(scene: Scene) -> None:
    days = [scene.random.uniform(-9, 9), 0.0]
    scene.random.shuffle(days)
    together(scene, [(elsewhere, f"machine{place}", offset) for place, offset in enumerate(days)], kill)


def grant_always() -> None:
    Claims.take = lambda self, keys: list(keys)


def take_the_stopped_for_dead() -> None:
    start = writers._start

    def running(pid: int) -> str | None:
        stat = Path(f"/proc/{pid}/stat")
        return None if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "T" else start(pid)

    writers._start = running


def ask_the_clock() -> None:
    def touched(self, file: Path) -> bool:
        return file.exists() and abs(time.time() - file.stat().st_mtime) < claims.LEASE

    Claims._touched = touched


KINDS = [
    Kind(
        "writers",
        "one of two or four writers is killed",
        at_once,
        25,
        {"claims": grant_always, "looking up": forget_what_is_stored},
        prepare=whole,
    ),
    Kind(
        "stopped",
        "one of several writers is stopped and goes on",
        stopped,
        15,
        {"telling stopped from dead": take_the_stopped_for_dead},
        prepare=whole,
    ),
    Kind(
        "clocks",
        "one of two machines is days off, or dies",
        far,
        10,
        {"signs of life": ask_the_clock},
        4,
        prepare=whole,
    ),
]

"""Two hundred trainings in one process: its memory, open files, threads and temporary files stay as they are."""

import gc
import os
import tempfile
import threading
from pathlib import Path

import psutil
from attempts import Kind, Scene
from sweeping import BASE

import nin
from nin.training import loop

WARM, TRAININGS = 40, 200
MOST = 12e6  # bytes of memory that an allocator may keep


def state() -> dict[str, float]:
    gc.collect()
    process = psutil.Process()
    return {
        "bytes of memory": process.memory_info().rss,
        "open files": process.num_fds() if hasattr(process, "num_fds") else 0,
        "threads": threading.active_count(),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
    }


def many(folder: Path, kinds: list[str], trainings: int) -> dict[str, float]:
    """What has grown between a training that is no longer one of the first, and the last one."""
    tempfile.tempdir = str(folder)
    before = {}
    for number in range(trainings):
        if number == min(WARM, trainings // 2):
            before = state()
        config = BASE.replace(seed=number % 7, steps=20, optimizer=kinds[number % len(kinds)])
        nin.train([config, config.replace(sigma=1.0)] if number % 3 else config)
        if number % 20 == 0:
            nin.sweep(config, over={"seed": [number, number + 1000]}, store=folder / "store")
    after = state()
    folded = {name: after[name] - before[name] for name in after}
    return {name: more for name, more in folded.items() if more > (MOST if name == "bytes of memory" else 0)}


def attempt(scene: Scene) -> None:
    temporary = scene.folder / "temporary"
    temporary.mkdir()
    (temporary / "store").mkdir()
    scene.times = trainings = TRAININGS if scene.without is None else 60
    for name, more in scene.call(many, temporary, scene.random.sample(["sgd", "adam"], 2), trainings).items():
        scene.found("left behind", f"{more:.0f} more {name} after {trainings} trainings")


def leaking(leak) -> None:
    check = loop.check_run

    def checked(*arguments, **keywords):
        leak()
        return check(*arguments, **keywords)

    loop.check_run = checked


HELD: list[object] = []


def leak_memory() -> None:
    leaking(lambda: HELD.append(bytearray(os.urandom(2**20))))


def leak_files() -> None:
    leaking(lambda: HELD.append(open(os.devnull)))


def leak_threads() -> None:
    leaking(lambda: threading.Thread(target=threading.Event().wait, daemon=True).start())


def leak_temporaries() -> None:
    leaking(lambda: tempfile.mkstemp())


KINDS = [
    Kind(
        "growth",
        "trainings in one process",
        attempt,
        2,
        {"memory": leak_memory, "files": leak_files, "threads": leak_threads, "temporaries": leak_temporaries},
        1,
    )
]

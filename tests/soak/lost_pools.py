"""Sweeps on a pool of processes that are ended by a signal: nothing of the pool outlives them."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from attempts import Kind, Scene
from forked import until
from store_faults import again, whole
from sweeping import BASE, stored, sweep

from nin.sweeps import jobs

LONG = {"base": BASE.replace(steps=150)}
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]


def on_a_pool(folder: Path, method: str) -> None:
    """A sweep on two workers that takes Ctrl-C as a terminal's does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            sweep(folder, executor=pool, **LONG)
    except KeyboardInterrupt:
        raise RuntimeError("interrupted") from None


def attempt(scene: Scene) -> None:
    folder = scene.folder / "store"
    method, number = scene.random.choice([*["fork"] * 5, "spawn"]), scene.random.choice(SIGNALS)
    if scene.without:  # one that is spawned imports the guard anew
        method, number = "fork", scene.random.choice([signal.SIGKILL, signal.SIGTERM])
    child = scene.start(on_a_pool, folder, method)
    least = scene.random.choice([1, 3, 5])
    until(lambda: len(stored(folder)) >= least or not child.running)
    time.sleep(scene.random.uniform(0, 0.3))
    os.kill(child.process.pid, number)
    child.process.join(30)
    if child.process.is_alive():
        scene.found("wrong", f"it goes on 30 seconds after {number.name}")
    scene.end()
    again(scene, folder, scene.ready, **LONG)


def prepared(scene: Scene):
    return whole(scene, **LONG)


def outlive() -> None:
    """Workers do not look whether their sweep is still there."""
    jobs.end_with_the_sweep = lambda sweep: None


KINDS = [
    Kind(
        "pools",
        "a sweep on a pool is ended by a signal",
        attempt,
        10,
        {"ending with the sweep": outlive},
        prepare=prepared,
    )
]

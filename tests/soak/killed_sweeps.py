"""Sweeps that are killed at random moments, and begun again."""

import time

from attempts import Kind, Scene
from store_faults import again, changed_sweep, forget_what_is_stored, whole, write_in_place
from sweeping import RUNS, stored


def attempt(scene: Scene) -> None:
    """SIGKILL once, or several times, each at a random moment after a random number of further runs is stored."""
    folder = scene.folder / "store"
    for _ in range(scene.random.choice([1, 1, 3])):
        child = scene.start(changed_sweep, folder, {})
        least = len(stored(folder)) + scene.random.randrange(0, 6)
        while len(stored(folder)) < min(least, RUNS) and child.running:
            time.sleep(0.002)
        time.sleep(scene.random.uniform(0, 0.2))
        child.kill()
    again(scene, folder, scene.ready)


KINDS = [
    Kind(
        "killed",
        "a sweep is killed and begun again",
        attempt,
        30,
        {"whole files": write_in_place, "looking up": forget_what_is_stored},
        prepare=whole,
    )
]

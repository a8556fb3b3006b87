"""A store that is moved to a folder with blanks and letters of other alphabets: all of it is found there."""

import shutil

from attempts import Kind, Scene
from store_faults import again, changed_sweep
from sweeping import sweep

from nin.sweeps.keys import Keys

LETTERS = "aZ09  .,'\"-_+=%#&()[]{}~!$;äßéøñ中文字データσκ—‘’𝛔🙂"


def prepared(scene: Scene) -> tuple:
    kept = scene.folder.parent / "unmoved"
    return kept, scene.call(changed_sweep, kept, {})


def attempt(scene: Scene) -> None:
    """Half of the runs, moved; nothing is computed again, the others are added."""
    kept, table = scene.ready
    name = "".join(scene.random.choices(LETTERS, k=scene.random.randrange(1, 40))).strip(". ~") or "σ"
    folder = scene.folder / name / "store"
    shutil.copytree(kept, folder)
    for run in scene.random.sample(sorted(folder.glob("runs/*/*")), scene.random.randrange(6)):
        shutil.rmtree(run)
    again(scene, folder, table)


def key_the_folder() -> None:
    """A run's key depends on where it is stored."""
    import sweeping

    of_run = Keys.of_run

    def here(folder, **changes):
        Keys.of_run = lambda self, config: of_run(self, config)[:-1] + f"{len(str(folder)) % 16:x}"
        return sweep(folder, **changes)

    sweeping.sweep = here


KINDS = [Kind("moved", "a store is moved to a strange path", attempt, 10, {"keys": key_the_folder}, prepare=prepared)]

"""One run under the settings of callers, beside others, in threads and pools: always the same bits."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import test_same_bits
from attempts import Kind, Scene
from test_same_bits import BASE, CONTEXTS, OTHERS, bits

from nin import sweep, train
from nin.support import numerics

QUIET = [name for name in CONTEXTS if name != "warnings are errors"]


def one(config=BASE) -> str:
    return bits(train(config, data=test_same_bits.data(), device="cpu"))


def among(config, place: int) -> str:
    others = [config.replace(sigma=other.sigma, seed=other.seed + 1000) for other in OTHERS]
    configs = [*others[:place], config, *others[place:]]
    return bits(train(configs, data=test_same_bits.data(), device="cpu"), place)


def in_a_thread(config) -> str:
    found = []
    thread = threading.Thread(target=lambda: found.append(one(config)))
    thread.start()
    other = one(OTHERS[0])
    thread.join()
    assert other
    return found[0]


def tabled(config, folder: Path, pool: bool) -> str:
    """The table of a run that a sweep stores, in this process or on a pool."""
    options = {"over": {"seed": [config.seed, config.seed + 1]}, "data": test_same_bits.data(), "device": "cpu"}
    with ThreadPoolExecutor(1) as executor:
        frame = sweep(config, store=folder, executor=executor if pool else None, **options)
    numbers = frame[frame["seed"] == config.seed].select_dtypes("number").drop(columns="run")
    return hashlib.sha256(np.ascontiguousarray(numbers.to_numpy(float)).tobytes()).hexdigest()


def under(settings: list[str], how: str, config, folder: Path, place: int) -> str:
    test_same_bits.one()  # a process that has computed before
    with ExitStack() as stack:
        for name in settings:
            stack.enter_context(CONTEXTS[name]())
        if how in ("sweep", "pool"):
            return tabled(config, folder, how == "pool")
        return {"alone": lambda: one(config), "thread": lambda: in_a_thread(config)}.get(
            how, lambda: among(config, place)
        )()


def attempt(scene: Scene) -> None:
    """A random run, plain and under up to three settings at once."""
    config = BASE.replace(
        seed=scene.random.randrange(100),
        sigma=scene.random.choice([0.1, 1.0, 2.0, 5.0]),
        dtype=scene.random.choice(["float32", "float64"]),
        optimizer=scene.random.choice(["sgd", "adam"]),
        widths=scene.random.choice([(20, 12), (33,), (8, 8, 8)]),
    )
    how = scene.random.choice(["alone", "thread", "among", "sweep", "pool"])
    settings = scene.random.sample(QUIET, scene.random.randrange(1, 4))
    if scene.without:
        how, settings = "alone", ["autocast", scene.random.choice(["one thread", "deterministic"])]
    plain = "alone" if how in ("alone", "thread", "among") else "sweep"
    place = scene.random.randrange(len(OTHERS))
    wanted = scene.call(under, [], plain, config, scene.folder / "plain", place)
    found = scene.call(under, settings, how, config, scene.folder / "found", place)
    if found != wanted:
        scene.found("wrong", f"other bits: {how} under {settings}, {config}")


def take_the_callers() -> None:
    """Runs are computed under the settings of whoever asks for them."""
    numerics.ExitStack = Unset
    numerics._set = lambda *_: None


class Unset(ExitStack):
    """No setting is entered."""

    def enter_context(self, context: object) -> None:
        return None


KINDS = [Kind("bits", "settings of callers", attempt, 40, {"own settings": take_the_callers})]

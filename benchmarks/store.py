"""What does a store of ten thousand runs cost: to write, list, verify, export, and to be read back by its sweep?"""

import contextlib
import io
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nin
from benchmarks.report import table
from benchmarks.sweeps import memory_now
from nin.companion.command import main
from nin.sweeps.grid import expand
from nin.sweeps.keys import Keys
from nin.sweeps.store import Store

RUNS = 10_000
TINY = nin.RunConfig(
    n_train=96, widths=(8,), steps=20, batch_size=16, eval_points=6, eval_samples=64, curvature_pairs=1
)
GOALS = {"list": "5, 200", "resume": "5, 200", "verify": "30"}


def run() -> str:
    """One table; each line is measured in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, action in ACTIONS.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                measured = pool.apply(_measured, (action, f"{folder}/store"))
            rows.append((name, *measured, GOALS.get(name, "")))
    columns = ("what", "seconds", "extra memory at the peak (MB)", "MB on disk or in the result", "goal (s, MB)")
    return (
        f"{RUNS} runs of {TINY.steps} steps. A sweep leaves a pack of its tables; before there is one, the runs are\n"
        "read one by one.\n\n" + table(columns, rows)
    )


def _grid() -> dict:
    return {"sigma": np.geomspace(0.1, 30, RUNS // 10).tolist(), "seed": range(10)}


def _measured(action: Callable[[str], float], folder: str) -> tuple[str, str, str]:
    nin.sweep(TINY.replace(steps=1), over={}, store=f"{folder}-warm")  # imports, data
    before, start = memory_now("VmRSS"), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        size = action(folder)
    seconds, extra = time.perf_counter() - start, memory_now("VmHWM") - before
    return f"{seconds:.1f}", f"{extra:.0f}", f"{size / 2**20:.0f}" if size else ""


def write(folder: str) -> float:
    """Store the runs as a sweep does: the table is that of one of them, with the noise scale as its first loss."""
    store, keys = Store(Path(folder)), Keys(None, None, "cpu")
    frame = nin.train(TINY).table(0)
    for config in expand(TINY, _grid()):
        frame.loc[0, "noisy_loss"] = config.sigma + config.seed
        manifest = keys.run_manifest(config, frame, {"seconds": 1.0, "trained_together": 1, "threads": 1})
        store.save(keys.of_run(config), frame, manifest)
    return sum(path.stat().st_size for path in Path(folder).rglob("*.*"))


def listed(folder: str) -> float:
    """`python -m nin runs`."""
    if main(["runs", "--store", folder]):
        raise AssertionError("the store has problems")
    return 0


def resume(folder: str) -> float:
    """The same sweep again."""
    frame = nin.sweep(TINY, over=_grid(), store=folder)
    first = frame[frame["step"] == 0]
    if len(first) != RUNS or not np.allclose(first["noisy_loss"], first["sigma"] + first["seed"]):
        raise AssertionError("the sweep does not give what was stored")
    return frame.memory_usage(deep=True).sum()


def verify(folder: str) -> float:
    """`python -m nin runs --verify`."""
    if main(["runs", "--store", folder, "--verify"]):
        raise AssertionError("the store has problems")
    return 0


def export(folder: str) -> float:
    """`python -m nin runs --export`."""
    if main(["runs", "--store", folder, "--export", f"{folder}.csv"]):
        raise AssertionError("the store has problems")
    return Path(f"{folder}.csv").stat().st_size


ACTIONS = {
    "write": write,
    "list": listed,
    "resume without a pack": resume,
    "resume": resume,
    "verify": verify,
    "export": export,
}

"""What does a run cost in a sweep: memory, disk, seconds, in one process and in several?"""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import nin
from benchmarks.report import table
from benchmarks.timing import seconds
from nin.sweeps.store import Store

SMALL = nin.RunConfig(widths=(32, 32, 32), batch_size=32, steps=2000)
RUNS = 1000


def run() -> str:
    """Two tables."""
    return f"{memory()}\n\n{processes()}"


def memory() -> str:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor, tempfile.TemporaryDirectory() as folder:
        numbers = executor.submit(thousand_runs, folder).result()
    rows = [(name, value, goal) for name, (value, goal) in numbers.items()]
    return (
        f"A sweep of {RUNS} runs x {SMALL.steps} steps, recorded every {SMALL.record_every}, width 32, batch 32, in a "
        "process of its own.\n\n" + table(("quantity", "measured", "goal"), rows)
    )


def thousand_runs(folder: str) -> dict[str, tuple[str, str]]:
    """Measure one sweep: computed, then read back from the store."""
    nin.sweep(SMALL.replace(steps=1), over={"sigma": [1.0, 2.0]}, store=f"{folder}/warm")  # imports, data
    before = memory_now("VmRSS")
    over = {"sigma": np.geomspace(0.1, 30, RUNS // 4), "seed": range(4)}
    start = time.perf_counter()
    frame = nin.sweep(SMALL, over=over, store=folder)
    computed = time.perf_counter() - start
    extra = memory_now("VmHWM") - before
    start = time.perf_counter()
    again = nin.sweep(SMALL, over=over, store=folder)
    read = time.perf_counter() - start
    if not again.equals(frame):
        raise AssertionError("the table read back differs from the one computed")
    store = Store(Path(folder))
    copy, runs = Store(Path(folder) / "copy"), [(key, store.load(key)) for key in list(store)[:200]]
    storing = seconds(lambda: [copy.save(key, *run) for key, run in runs]) / len(runs)
    sizes = [sum(file.stat().st_size for file in store.path(key).iterdir()) for key in store]
    return {
        "extra memory at the peak (MB)": (f"{extra:.0f}", "<= 400"),
        "of it the table that is returned (MB)": (f"{frame.memory_usage(deep=True).sum() / 2**20:.0f}", ""),
        "seconds to compute and store": (f"{computed:.1f}", ""),
        "member-steps a second": (f"{RUNS * SMALL.steps / computed:.0f}", ""),
        "seconds to read back": (f"{read:.1f}", ""),
        "milliseconds to store a run": (f"{1e3 * storing:.1f}", ""),
        "bytes a run on disk, table and manifest": (f"{np.mean(sizes):.0f}", ""),
    }


def memory_now(quantity: str) -> float:
    """Resident memory of this process on Linux, VmRSS now or VmHWM at its peak, in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[quantity].split()[0]) / 1024


def processes() -> str:
    rows = []
    for width, batch, runs, steps in ((32, 32, 1024, 1000), (128, 128, 48, 1500)):
        base = nin.RunConfig(widths=(width,) * 3, batch_size=batch, steps=steps)
        over = {"sigma": np.geomspace(0.1, 30, runs)}
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context) as executor, tempfile.TemporaryDirectory() as folder:
            nin.sweep(base.replace(steps=5), over=over, store=folder, executor=executor)  # both have imported torch
            taken, frames = {}, {}
            for name, workers in (("in place", None), ("two processes", executor)):
                start = time.perf_counter()
                frames[name] = nin.sweep(base, over=over, store=f"{folder}/{name}", executor=workers)
                taken[name] = time.perf_counter() - start
        same = frames["in place"].equals(frames["two processes"])
        rate = {name: f"{runs * steps / value:.0f}" for name, value in taken.items()}
        rows.append(
            (f"{width}, {batch}", runs, rate["in place"], rate["two processes"],
             f"{taken['in place'] / taken['two processes']:.2f}", "bit for bit" if same else "NO")
        )  # fmt: skip
    columns = ("width, batch", "runs", "in place", "two processes", "in place / processes", "tables equal")
    return (
        "Member-steps a second of a whole sweep with recording and storing: in this process on two threads, and in\n"
        "two processes of one thread each.\n\n" + table(columns, rows)
    )

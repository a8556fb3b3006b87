"""How slow is the work of notebook 03 beside other work, and under a quota of one core?"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from benchmarks.report import table
from benchmarks.timing import in_turn, spread
from nin.support.cores import variables

BUSY, MANY, ROUNDS = (0, 1, 4), 8, 3
CORES = 2  # to which the work and the busy processes are bound
STEPS, SEEDS, HESSIANS = 300, 3, 10
SIGMAS = (1.0, 3.0, 8.0, 16.0)
OWN = ("OMP_", "GOMP_", "KMP_", "MKL_NUM", "OPENBLAS_NUM")

HEAD = f"""{STEPS} steps of {SEEDS} seeds at {len(SIGMAS)} noise scales, {HESSIANS} local Hessians; on {{cores}} cores.
Before: torch's own number of threads, which spin while they wait; now: those of `nin.support.cores`, asleep while
they wait. Fair: one thread's time, divided by its share of the cores, cores / (busy processes + 1) and at most one.
Median of {ROUNDS} rounds (smallest-largest).

"""


def run() -> str:
    """One table: seconds and CPU seconds of the setting before and of the one now, and the fair share."""
    if not hasattr(os, "sched_setaffinity"):
        return "This system does not bind processes to cores: not measured."
    both = sorted(os.sched_getaffinity(0))[:CORES]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    one, now = {"OMP_NUM_THREADS": "1"}, variables(len(both), environ=plain)
    cases: dict[str, tuple[list[int], dict[str, str], int]] = {"one, alone": (both, one, 0)}
    for busy in BUSY:
        cases |= {f"before, {busy}": (both, {}, busy), f"now, {busy}": (both, now, busy)}
    quota = {"before": {"OMP_NUM_THREADS": f"{MANY}"}, "now": variables(1, environ=plain), "one": one}
    cases |= {f"{name}, quota": (both[:1], environ, 0) for name, environ in quota.items()}
    used: dict[str, list[float]] = {name: [] for name in cases}

    def measured(name: str) -> float:
        cores, environ, busy = cases[name]
        with beside(busy, cores):
            wall, cpu = worked(cores, plain | environ)
        used[name].append(cpu)
        return wall

    taken = in_turn({name: partial(measured, name) for name in cases}, ROUNDS)
    cpu = {name: np.median(values[-ROUNDS:]) for name, values in used.items()}
    rows = []
    for case in (*BUSY, "quota"):
        busy = case if isinstance(case, int) else 0
        fair = taken["one, quota" if case == "quota" else "one, alone"] / min(1, len(both) / (busy + 1))
        was, new = taken[f"before, {case}"], taken[f"now, {case}"]
        title = f"{MANY} threads on one core" if case == "quota" else f"beside {busy} busy" if busy else "alone"
        seconds = f"{cpu[f'before, {case}']:.1f}, {cpu[f'now, {case}']:.1f}"
        rows.append((title, spread(was), spread(new), seconds, spread(was / new), spread(new / fair), goal(case)))
    columns = ("work", "before (s)", "now (s)", "CPU (s)", "before / now", "now / fair", "goal")
    return HEAD.format(cores=len(both)) + table(columns, rows)


def goal(case: int | str) -> str:
    return "<= 1.0" if case == "quota" else "<= 1.3"


@contextlib.contextmanager
def beside(count: int, cores: list[int]) -> Iterator[None]:
    """Processes that compute without end on these cores, while the block lasts."""
    spin = f"import os; os.sched_setaffinity(0, {cores})\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def worked(cores: list[int], environ: Mapping[str, str]) -> tuple[float, float]:
    """Seconds and CPU seconds of the work, without the imports, in a process bound to these cores."""
    code = f"import os; os.sched_setaffinity(0, {cores}); from benchmarks.contention import work; work()"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def work() -> None:
    """Train as notebook 03 does, measure curvatures, and print the seconds and CPU seconds that it took."""
    from torch.nn import functional as F

    import nin
    from nin.probes.curvature import local_hessian

    def once(steps: int, hessians: int) -> None:
        base = nin.RunConfig(n_train=512, widths=(64,) * 3, batch_size=64, steps=steps, eval_points=20)
        configs = [base.replace(sigma=sigma, seed=seed) for sigma in SIGMAS for seed in range(SEEDS)]
        runs = nin.train(configs, data=data)
        for run in range(hessians):
            network = runs.model(run).network
            local_hessian(network, "layers.1", data.x_train, data.y_train, loss=F.cross_entropy)

    data = nin.load_data("digits", n_train=512)
    once(2, 1)  # what is imported at first use
    wall, cpu = time.perf_counter(), time.process_time()
    once(STEPS, HESSIANS)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))

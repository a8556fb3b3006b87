"""Catches: anything lost, torn or computed twice when a sweep is killed, interrupted, doubled or runs out of disk.

Every fault is real and happens in a separate process, forked from a server that has already imported nin.
"""

import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil
import pytest
from forked import in_a_process, intact, start_server, until
from sweeping import BASE, OVER, RUNS, computed, logged_sweep, same, stored, sweep

pytestmark = pytest.mark.slow
KILLS = 8  # `make soak` has many more, of one, two and four writers
LONG = BASE.replace(steps=500)  # time enough for a key to be pressed in the middle


@pytest.fixture(scope="module", autouse=True)
def server():
    start_server()


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    """The sweep, never disturbed."""
    return sweep(tmp_path_factory.mktemp("whole"))


def test_killed_at_random_moments(tmp_path, table):
    """Eight stores: SIGKILL at a random moment, then the same call: the same table, and no stored run again.

    The moment is counted in stored runs, so that it falls within the sweep on a busy machine too.
    """
    process, answer = in_a_process(sweep, tmp_path / "timed")
    start = time.monotonic()
    until(lambda: len(stored(tmp_path / "timed")) > 0)
    begin = time.monotonic() - start
    answer.recv()
    end = time.monotonic() - start
    process.join()
    moments = random.Random(0)
    halfway = 0
    for trial in range(KILLS):
        folder = tmp_path / str(trial)
        process, _ = in_a_process(sweep, folder)
        if least := moments.randrange(0, RUNS - 2, 2):
            until(lambda folder=folder, least=least: len(stored(folder)) >= least)
            time.sleep(moments.uniform(0, (end - begin) / 5))  # five of the six groups were stored in this time
        else:
            time.sleep(moments.uniform(0, begin))
        process.kill()
        process.join()
        survived = stored(folder)
        intact(folder)
        halfway += 0 < len(survived) < RUNS
        again, answer = in_a_process(logged_sweep, folder, folder / "log")
        same(answer.recv()[0], table)
        again.join()
        assert set(computed(folder / "log")).isdisjoint(survived)
        assert len(computed(folder / "log")) + len(survived) == RUNS
        same(sweep(folder), table)
    assert halfway >= 3, "the kills came before or after the sweeps"


def test_killed_again_and_again(tmp_path, table):
    """One store: killed as soon as one more group is there, until nothing is left to do."""
    rounds = 0
    while len(done := stored(tmp_path / "store")) < RUNS:
        log = tmp_path / f"log{rounds}"
        process, _ = in_a_process(logged_sweep, tmp_path / "store", log)
        until(lambda done=done: len(stored(tmp_path / "store")) > len(done))
        process.kill()
        process.join()
        intact(tmp_path / "store")
        assert set(computed(log)).isdisjoint(done)
        rounds += 1
    assert rounds > 1
    same(sweep(tmp_path / "store"), table)


@pytest.mark.parametrize("writers", [2, 4])
def test_sweeps_at_once_compute_each_run_once(tmp_path, table, writers):
    folder, log = tmp_path / "store", tmp_path / "log"
    sweeps = [in_a_process(logged_sweep, folder, log) for _ in range(writers)]
    for process, answer in sweeps:
        frame, warned = answer.recv()
        same(frame, table)
        assert warned == []
        process.join()
    assert sorted(computed(log)) == sorted((sigma, seed) for sigma in OVER["sigma"] for seed in OVER["seed"])
    same(sweep(folder), table)
    assert len(list((folder / "runs").glob("*/*"))) == RUNS
    assert not [path for name in ("writing", "claims", "claims/writers") for path in (folder / name).glob("*.*")]
    intact(folder)


def test_a_sweep_computes_what_a_killed_one_had_claimed(tmp_path, table):
    first, _ = in_a_process(logged_sweep, tmp_path / "store", tmp_path / "first")
    until(lambda: (tmp_path / "first").exists())
    second, answer = in_a_process(logged_sweep, tmp_path / "store", tmp_path / "second")
    until(lambda: (tmp_path / "second").exists())
    survived = stored(tmp_path / "store")
    first.kill()
    first.join()
    frame, warned = answer.recv()
    same(frame, table)
    assert warned == []
    second.join()
    assert len(computed(tmp_path / "second")) >= RUNS - len(survived) - 4
    same(sweep(tmp_path / "store"), table)


def on_a_pool(folder: Path) -> None:
    """A sweep on workers that write their numbers down, after one in this process."""
    sweep(folder / "before", over={"seed": [0]}, executor=ThreadPoolExecutor(1))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        (folder / "workers").write_text(" ".join(str(pool.submit(os.getpid).result()) for _ in "ab"))
        sweep(folder / "store", base=LONG, executor=pool)


def running(number: int) -> bool:
    """Whether a process runs: one that has ended may wait for the system to forget it."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_of_a_pool_end_with_the_sweep(tmp_path, number):
    process, _ = in_a_process(on_a_pool, tmp_path)
    until(lambda: len(stored(tmp_path / "store")) > 0)
    workers = set(map(int, (tmp_path / "workers").read_text().split()))
    os.kill(process.pid, number)
    process.join()
    until(lambda: not any(map(running, workers)), 20)


def limited_sweep(folder: Path) -> None:
    """A sweep whose process may not write files larger than 4 kB: a table is about 8."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    sweep(folder)


def test_disk_full(tmp_path, table):
    sweep(tmp_path, over=OVER | {"sigma": [0.1]})
    process, answer = in_a_process(limited_sweep, tmp_path)
    error, _ = answer.recv()
    process.join()
    assert isinstance(error, OSError)
    assert "cannot be written (File too large); the runs in it are intact. Free space" in str(error)
    assert len(stored(tmp_path)) == 4
    assert not list((tmp_path / "writing").iterdir())
    intact(tmp_path)
    same(sweep(tmp_path), table)


def interruptible_sweep(folder: Path) -> None:
    """A sweep that takes Ctrl-C as a terminal's does, stderr in a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (folder / "stderr").open("w") as sys.stderr:
        try:
            sweep(folder / "store", base=LONG)
        except KeyboardInterrupt:
            raise RuntimeError("interrupted") from None


def test_ctrl_c(tmp_path):
    process, answer = in_a_process(interruptible_sweep, tmp_path)
    until(lambda: len(stored(tmp_path / "store")) > 0)
    os.kill(process.pid, signal.SIGINT)
    error, _ = answer.recv()
    process.join()
    assert str(error) == "interrupted"
    kept = len(stored(tmp_path / "store"))
    (line,) = (tmp_path / "stderr").read_text().split("\n")[1:-1]
    assert line == (
        f"nin.sweep: interrupted; {kept} of {RUNS} runs are in {tmp_path / 'store'}, "
        "and the same call continues from there."
    )
    assert 0 < kept < RUNS
    same(sweep(tmp_path / "store", base=LONG), sweep(tmp_path / "whole", base=LONG))

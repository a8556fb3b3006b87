"""Catches: results that depend on where a run was computed, work lost with a worker, oversubscribed cores."""

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from sweeping import BASE, OVER, RUNS, fails, same, stored, sweep, two_layers

import nin
from nin.support.cores import cores
from nin.sweeps.executors import check_executor, run_groups, workers
from nin.sweeps.jobs import DamagedData, Group, Jobs
from nin.sweeps.keys import Keys
from nin.sweeps.store import Store

LONG = BASE.replace(steps=1500)  # about a second a group: long enough for a worker to die in between


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    """The sweep in this process."""
    return sweep(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def pool():
    """Two processes that import nin afresh."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def client():
    """A Dask cluster of two workers on this machine."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.slow
def test_process_pool(tmp_path, table, pool, capsys):
    same(sweep(tmp_path, executor=pool, progress=True), table)
    assert f"{RUNS}/{RUNS}" in capsys.readouterr().err
    manifest = Store(tmp_path).manifest(next(iter(Store(tmp_path))))
    assert manifest["threads"] == 1 and manifest["trained_together"] == 2


@pytest.mark.slow
def test_dask(tmp_path, table, client):
    same(sweep(tmp_path, executor=client.get_executor()), table)
    assert len(stored(tmp_path)) == RUNS


@pytest.mark.slow
def test_thread_pool_leaves_the_number_of_threads(tmp_path, table):
    before = torch.get_num_threads()
    with ThreadPoolExecutor(3) as executor:
        same(sweep(tmp_path, executor=executor), table)
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(8, 8), (64, 64, 64)])
def test_a_run_alone_in_a_group_in_a_pool_and_on_dask(tmp_path, widths, pool, client):
    config = BASE.replace(widths=widths, sigma=1.0, seed=2)
    alone = nin.train(config).frame()
    over = {"sigma": [0.1, 1.0, 30.0], "seed": [0, 2]}
    for name, executor, at_once in (
        ("a", None, 6), ("b", None, 1), ("c", pool, 2), ("d", client.get_executor(), 3),
    ):  # fmt: skip
        frame = nin.sweep(BASE.replace(widths=widths), over=over, store=tmp_path / name, executor=executor,
                          at_once=at_once)  # fmt: skip
        same(frame[(frame["sigma"] == 1.0) & (frame["seed"] == 2)].reset_index(drop=True).assign(run=0), alone)


@pytest.mark.slow
def test_data_and_network_of_ones_own_reach_the_workers(tmp_path, blobs, pool):
    config, over = BASE.replace(n_train=None), {"sigma": [0.5, 1.0]}
    same(
        nin.sweep(config, over=over, data=blobs, store=tmp_path / "a", executor=pool),
        nin.sweep(config, over=over, data=blobs, store=tmp_path / "b"),
    )
    assert [path.name for path in (tmp_path / "a" / "data").iterdir()] == [f"{blobs.hash}.pt"]
    same(
        nin.sweep(BASE, over=over, network=two_layers, store=tmp_path / "a", executor=pool),
        nin.sweep(BASE, over=over, network=two_layers, store=tmp_path / "b"),
    )


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_users(tmp_path, pool):
    with pytest.raises(ValueError, match="layer=9 is not in the model"):
        nin.sweep(BASE, over={"layer": [0, 9]}, store=tmp_path, executor=pool)
    with pytest.raises(RuntimeError, match="no such network"):
        nin.sweep(BASE, over={}, network=fails, store=tmp_path, executor=pool)
    with pytest.raises(ValueError, match=r"the runs cannot be sent to its workers .*lambda.*can import"):
        nin.sweep(BASE, over={}, network=lambda: two_layers(), store=tmp_path, executor=pool)


def kill_when_first_stored(folder, pid) -> threading.Thread:
    def wait_and_kill():
        while not stored(folder):
            time.sleep(0.01)
        os.kill(pid(), signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_worker_of_a_pool_dies(tmp_path):
    expected = nin.sweep(LONG, over=OVER, store=tmp_path / "whole")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        killer = kill_when_first_stored(tmp_path / "a", lambda: next(iter(executor._processes)))
        with pytest.warns(UserWarning, match=r"the executor broke .*; the remaining groups run in this") as caught:
            frame = nin.sweep(LONG, over=OVER, store=tmp_path / "a", executor=executor, at_once=2)
        killer.join()
    assert len(caught) == 1
    same(frame, expected)


@pytest.mark.slow
def test_a_dask_worker_dies(tmp_path, client):
    expected = nin.sweep(LONG, over=OVER, store=tmp_path / "whole")
    pids = list(client.run(os.getpid).values())
    killer = kill_when_first_stored(tmp_path / "a", lambda: pids[0])
    frame = nin.sweep(LONG, over=OVER, store=tmp_path / "a", executor=client.get_executor(), at_once=2)
    killer.join()
    same(frame, expected)
    client.wait_for_workers(2)
    assert pids[0] not in client.run(os.getpid).values()


def test_what_has_not_begun_is_cancelled_when_the_caller_stops():
    begun = []

    def work(group):
        begun.append(group)
        time.sleep(0.05)
        return group

    with ThreadPoolExecutor(1) as executor:
        results = run_groups(work, range(50), executor)
        next(results)
        results.close()
    assert len(begun) < 10


def test_in_place_groups_are_taken_one_by_one():
    taken = []
    results = run_groups(lambda group: -group, (taken.append(k) or k for k in range(3)), None)
    assert next(results) == (0, 0) and taken == [0]


def test_workers_take_one_thread_each():
    """The function that a worker runs sets its process to one thread, and the parent's stays."""
    work = Jobs(Keys(None, None, "cpu")).work_elsewhere(Store(Path("unused")))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert work(Group((BASE,))).threads == 1 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_workers_are_counted(pool, client):
    assert (workers(None), workers(pool), workers(client.get_executor())) == (1, 2, 2)

    class Silent(ThreadPoolExecutor):
        _max_workers = None

    assert workers(Silent.__new__(Silent)) == cores()


def test_what_is_not_an_executor_is_named():
    class Client:
        def get_executor(self):
            return Future()

        def __repr__(self):
            return "<Client>"

    with pytest.raises(
        ValueError, match=r"executor=<Client> is not a .*Pass a dask.distributed Client as client.get_exec"
    ):
        check_executor(Client())
    with pytest.raises(ValueError, match=r"Pass an object, for example ThreadPoolExecutor\(max_workers=2\), not the"):
        check_executor(ThreadPoolExecutor)
    with warnings.catch_warnings():
        check_executor(None)


def test_a_damaged_data_file_is_named_by_a_worker_and_mended_by_the_sweep(tmp_path, blobs):
    jobs = Jobs(Keys(blobs, None, "cpu"))
    work = jobs.work_elsewhere(Store(tmp_path))
    (path,) = (tmp_path / "data").iterdir()
    whole = path.read_bytes()
    group = Group((BASE.replace(n_train=None, steps=1),))
    other = dataclasses.replace(blobs, x_test=blobs.x_test + 1)
    Jobs(Keys(other, None, "cpu")).work_elsewhere(Store(tmp_path))
    wrong = (path.parent / f"{other.hash}.pt").read_bytes()
    for content in (wrong, whole[:-100], b"", b"\x80\x04."):
        path.write_bytes(content)
        with pytest.raises(DamagedData, match=rf"{path} is damaged.*: ?.*remove it, and start the sweep again"):
            work(group)
        jobs.work_elsewhere(Store(tmp_path))
        assert path.read_bytes() == whole
    work(group)

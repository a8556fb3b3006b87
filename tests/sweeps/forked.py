"""Processes of tests, forked from a server that has already imported nin and computed a run."""

import multiprocessing
import os
import time
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from sweeping import outcome

from nin.sweeps.store import Store

fork = multiprocessing.get_context("forkserver")


def start_server(*preload: str) -> None:
    """The process to fork from; before Python 3.12 it finds the modules to preload only through PYTHONPATH."""
    fork.set_forkserver_preload(["warm", *preload])
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        forkserver.ensure_running()


def in_a_process(function, *arguments) -> tuple[multiprocessing.Process, Connection]:
    """Start a function in a separate process; its result or error, and its warnings, arrive by the connection."""
    ours, theirs = fork.Pipe()
    process = fork.Process(target=outcome, args=(function, theirs, *arguments))
    process.start()
    return process, ours


def intact(folder: Path) -> None:
    """Assert that every run in a store is whole."""
    store = Store(folder)
    for key in store:
        store.table(key, store.manifest(key))


def until(condition, seconds=60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)

"""Catches: a thread whose draws are undone, or seeded, by another thread of the process."""

import random
import re
import threading

import numpy as np
import pytest
import torch

from nin.support import paths
from nin.support.randomness import kept_randomness, own_randomness

OWN_LOOP = "studies/your_network/measure.py"  # written as a reader's own loop: it seeds torch as a reader would


def drawn() -> list[float]:
    return [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002


def test_draws_follow_the_seed_and_leave_no_trace():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    found = []
    for seed in (1, 1, 2):
        with own_randomness(seed):
            found.append(drawn())
    assert found[0] == found[1] and all(a != b for a, b in zip(found[0], found[2], strict=True))
    with kept_randomness():
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("first", [kept_randomness, lambda: own_randomness(3)])
@pytest.mark.parametrize("second", [kept_randomness, lambda: own_randomness(4)])
def test_threads_wait_for_each_other(first, second):
    """The second thread is let in only when the first has restored the generators."""
    order, inside = [], threading.Event()

    def other() -> None:
        inside.wait()
        with second():
            order.append("second")
            torch.rand(5)

    thread = threading.Thread(target=other)
    thread.start()
    with first():
        torch.default_generator.manual_seed(0)
        inside.set()
        found = []
        for _ in range(4):
            thread.join(0.02)
            found.append(torch.rand(()))
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    with own_randomness(0):
        assert found == [torch.rand(()) for _ in range(4)]


def test_a_thread_may_enter_twice():
    with own_randomness(1), kept_randomness(), own_randomness(1):
        inner = drawn()
    with own_randomness(1):
        assert drawn() == inner


def test_nothing_else_forks_or_seeds_the_global_generators():
    sources = [path for room in ("nin", "studies") for path in (paths.root() / room).rglob("*.py")]
    found = {
        path.relative_to(paths.root()).as_posix()
        for path in sources
        if re.search(
            r"fork_rng|torch\.manual_seed|torch\.seed\(|np\.random\.seed|(?<![\w.])random\.seed", path.read_text()
        )
    }
    assert found == {"nin/support/randomness.py", OWN_LOOP} and len(sources) > 100

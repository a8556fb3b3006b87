"""The number of threads that torch uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nin.support.cores import asleep, chosen, cores

# Multiply-adds in the largest product of a step, below which two threads are no faster than one: of threads that spin
# while they wait, and of threads that sleep. From `python -m benchmarks groups`, without and with
# OMP_WAIT_POLICY=PASSIVE.
ONE_THREAD_BELOW = {"spin": 2**21, "sleep": 2**25}


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run torch on `count` threads (None: leave the number as it is), and restore the previous number afterwards."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(multiply_adds: int) -> int | None:
    """Threads for steps whose largest product has so many multiply-adds; None: those that torch has now.

    1 if it is so small that more threads would only wait for each other, and never more than `cores` for all others,
    unless a person chose their number.
    """
    return 1 if multiply_adds < ONE_THREAD_BELOW["sleep" if asleep() else "spin"] else _fewer()


def fit() -> None:
    """Let torch compute on no more threads than `cores` for all that follows, unless a person chose their number."""
    if fewer := _fewer():
        torch.set_num_threads(fewer)


def _fewer() -> int | None:
    """`cores`, if torch has more threads than that and no person chose their number."""
    return cores() if chosen() is None and torch.get_num_threads() > cores() else None

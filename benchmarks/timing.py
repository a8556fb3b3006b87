"""Timing of alternatives in turn, so that a drift in the machine's speed affects all of them equally."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from nin.support.threads import threads


def seconds(work: Callable[[], object], *, on: int | None = None, device: str = "cpu") -> float:
    """Seconds that work takes on this number of torch threads (None: the current number)."""
    with threads(on):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        return time.perf_counter() - start


def synchronise(device: str) -> None:
    """Wait for a GPU to finish."""
    if device != "cpu":
        torch.cuda.synchronize()


def in_turn(alternatives: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds by alternative and round: each is called once per round, after a warm-up round that does not count."""
    taken = {name: np.empty(rounds) for name in alternatives}
    for number in range(-1, rounds):
        for name, measure in alternatives.items():
            value = measure()
            if number >= 0:
                taken[name][number] = value
    return taken


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Median, smallest and largest, as text."""
    return f"{np.median(values):.{digits}f} ({values.min():.{digits}f}-{values.max():.{digits}f})"

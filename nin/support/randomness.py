"""Code that draws from the global random generators, which are as before afterwards."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_one_at_a_time = threading.RLock()  # the threads of a process share the global generators


def check_generator(generator: torch.Generator | object) -> None:
    """Raise ValueError unless this is a generator of torch on the CPU."""
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        what = repr(generator) if generator is None or isinstance(generator, int) else f"<{type(generator).__name__}>"
        raise ValueError(f"generator={what} must be a CPU generator, such as torch.Generator().manual_seed(0).")


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Restore torch's global generators afterwards, whatever the code inside draws from them.

    Threads of one process wait for each other, and for those in `own_randomness`: what is restored would otherwise be
    the seed of another thread, or undo its draws.
    """
    with _one_at_a_time, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside the context, and restore them afterwards.

    Threads of one process wait for each other.
    """
    with kept_randomness():
        numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - someone may draw from it
        # not torch.manual_seed, which asks every kind of device, for 0.3 ms: a network alone is seeded at each step
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)

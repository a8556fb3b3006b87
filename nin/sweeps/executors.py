"""Running groups of runs in place or on any concurrent.futures.Executor."""

import itertools
import pickle
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import TypeVar

from nin.support.cores import cores

AHEAD = 2  # groups for each worker that are handed to an executor before the first one is finished
PAUSE = 0.5  # seconds
Group = TypeVar("Group")
Result = TypeVar("Result")


def check_executor(executor: object) -> None:
    """Raise ValueError, saying what to pass instead, if executor is neither None nor an Executor."""
    if executor is None or isinstance(executor, Executor):
        return
    if hasattr(executor, "get_executor"):
        hint = f"Pass a dask.distributed {type(executor).__name__} as client.get_executor()."
    elif isinstance(executor, type):
        hint = f"Pass an object, for example {executor.__name__}(max_workers=2), not the class."
    else:
        hint = "Pass None, a ProcessPoolExecutor, or client.get_executor() of a dask.distributed client."
    raise ValueError(f"executor={executor!r} is not a concurrent.futures.Executor. {hint}")


def workers(executor: Executor | None) -> int:
    """The number of groups that run at once: as the pool or Dask cluster reports it, else the cores that are ours."""
    if executor is None:
        return 1
    client = getattr(executor, "_client", None)  # of dask.distributed
    count = sum(client.ncores().values()) if hasattr(client, "ncores") else getattr(executor, "_max_workers", None)
    return count if isinstance(count, int) and count > 0 else cores()


def run_groups(
    work: Callable[[Group], Result], groups: Iterable[Group | None], executor: Executor | None
) -> Iterator[tuple[Group, Result]]:
    """Yield each group with work(group): in this process one after the other, on an executor as they finish.

    groups are asked for as there is room for them; None: there is nothing to do now, ask again after PAUSE seconds.
    If the executor breaks (a worker process died), the remaining groups run in this process, with one warning.
    If the caller stops early, groups that have not started are cancelled.
    Raises ValueError if the work cannot be pickled.
    """
    if executor is None:
        for group in groups:
            if group is None:
                time.sleep(PAUSE)
            else:
                yield group, work(group)
        return
    left = iter(groups)
    futures: dict[Future, Group] = {}
    drawn: list[Group] = []  # and without a result

    def finished(seconds: float | None) -> Iterator[tuple[Group, Result]]:
        for future in wait(futures, timeout=seconds, return_when=FIRST_COMPLETED).done:
            result = future.result()
            drawn.remove(group := futures.pop(future))
            yield group, result

    try:
        for group in left:
            if group is None and not futures:
                time.sleep(PAUSE)
            elif group is not None:
                drawn.append(group)
                futures[executor.submit(work, group)] = group
            full = len(futures) >= AHEAD * workers(executor)
            yield from finished(None if full else PAUSE if group is None else 0)
        while futures:
            yield from finished(None)
    except BrokenExecutor as error:
        warnings.warn(
            f"the executor broke ({str(error).rstrip('.')}); the remaining groups run in this process.", stacklevel=3
        )
        yield from run_groups(work, itertools.chain(drawn, left), None)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error).lower():
            raise
        raise ValueError(
            f"executor={executor!r}: the runs cannot be sent to its workers ({error}). Define the network's factory "
            "and the probes as named functions in a module that the workers can import."
        ) from error
    finally:
        for future in futures:
            future.cancel()

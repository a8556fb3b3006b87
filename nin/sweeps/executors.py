"""Running groups of runs in place or on any concurrent.futures.Executor."""

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from typing import TypeVar

from nin.support.cores import cores

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
    work: Callable[[Group], Result], groups: Iterable[Group], executor: Executor | None
) -> Iterator[tuple[Group, Result]]:
    """Yield each group with work(group): in this process one after the other, on an executor as they finish.

    If the executor breaks (a worker process died), the remaining groups run in this process, with one warning.
    If the caller stops early, groups that have not started are cancelled.
    Raises ValueError if the work cannot be pickled.
    """
    if executor is None:
        for group in groups:
            yield group, work(group)
        return
    left = list(groups)
    futures: dict[Future, Group] = {}
    try:
        for group in left:
            futures[executor.submit(work, group)] = group
        for future in as_completed(futures):
            result = future.result()
            left.remove(futures[future])
            yield futures[future], result
    except BrokenExecutor as error:
        warnings.warn(
            f"the executor broke ({str(error).rstrip('.')}); the remaining {len(left)} groups run in this process.",
            stacklevel=3,
        )
        yield from run_groups(work, left, None)
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

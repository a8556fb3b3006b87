"""Processes end with their parent: on signals, and when the parent is killed."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, wait
from multiprocessing.process import BaseProcess

GRACE = 2.0  # seconds from SIGTERM to SIGKILL
EVERY = 0.5  # seconds between looks at the parent
STOPS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit(128 + number), as Ctrl-C raises KeyboardInterrupt, to be cleaned up after.

    Only in the main thread; elsewhere, and for a signal that is ignored (nohup), nothing changes.
    """

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    mine = threading.current_thread() is threading.main_thread()
    caught = [number for number in STOPS if mine and signal.getsignal(number) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def end_children(*of: int) -> None:
    """End what processes started, and what that started: SIGTERM, and after GRACE seconds SIGKILL."""
    import psutil  # of the extra `companion`

    family = []
    for number in of:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += psutil.Process(number).children(recursive=True)
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(family, timeout=GRACE)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, timeout=GRACE)


def end_workers(before: Collection[BaseProcess], work: Collection[Future]) -> None:
    """End all that this process's multiprocessing workers started, and them, except workers that it had before.

    work  what they do: each notices that its kernel is gone, and may save what there is
    """
    workers = set(multiprocessing.active_children()) - set(before)
    end_children(*(worker.pid for worker in workers))
    wait(work, timeout=GRACE)
    end_children(*(worker.pid for worker in workers))  # a kernel that was about to start
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(GRACE)
        if worker.is_alive():
            worker.kill()


def end_with_parent(parent: int) -> None:
    """Let this process, and all that it started, end soon after its parent, a process number, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        noticed = time.monotonic()
        end_children(os.getpid())
        time.sleep(max(GRACE / 2, GRACE - (time.monotonic() - noticed)))  # this process may save what there is
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()

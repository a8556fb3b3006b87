"""Processes that are still there when what started them has ended."""

import ctypes
import os
import sys

import psutil

GRACE = 8  # seconds within which whatever a process started has ended after it
ADOPT = 36  # PR_SET_CHILD_SUBREAPER of Linux: processes whose parent has died become ours


def adopt() -> None:
    """Become the parent of all processes below this one that lose theirs (on Linux), so that none is overlooked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)


def said(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120] or process.name()
    except psutil.Error:
        return "gone"


def strays() -> list[psutil.Process]:
    """All processes below this one that run, but the server that processes are forked from."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.ppid() == os.getpid():
                    os.waitpid(process.pid, os.WNOHANG)
            elif not (process.ppid() == os.getpid() and is_server(process)):
                found.append(process)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return found


def is_server(process: psutil.Process) -> bool:
    """Whether a child of this process is multiprocessing's own, and not one that was adopted."""
    from multiprocessing import forkserver, resource_tracker

    return process.pid in (forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid)


def end(processes: list[psutil.Process]) -> None:
    """Kill processes, and forget them."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=GRACE)


def processor_seconds() -> float:
    """Seconds that processors have worked for this process and all those below it that have ended."""
    from multiprocessing import forkserver

    server = forkserver._forkserver._forkserver_pid
    times = psutil.Process(server).cpu_times() if server else ()
    return sum(os.times()[:4]) + sum(times[:4])

"""Names for what a process writes into a store, which tell every other process whether the writer still lives."""

import hashlib
import os
import secrets
import socket
from functools import cache
from pathlib import Path

PROC = Path("/proc")  # of Linux; elsewhere it cannot be told whether a process lives


def new_name() -> str:
    """A name that no other has: machine-process-start-random."""
    return f"{_machine()}-{os.getpid()}-{_start(os.getpid()) or 0}-{secrets.token_hex(6)}"


def lives(name: str) -> bool | None:
    """Whether the process that made a name still runs; None if that cannot be told: it is another machine's."""
    machine, _, rest = name.partition("-")
    pid, _, rest = rest.partition("-")
    start = rest.partition("-")[0]
    if machine != _machine() or not pid.isdecimal() or _start(os.getpid()) is None:
        return None
    return _start(int(pid)) == start


@cache
def _machine() -> str:
    """A hash of what distinguishes machines, their boots, and containers, which number their processes on their own."""
    parts = [socket.gethostname()]
    for read in (
        lambda: (PROC / "sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink(PROC / "self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            continue
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _start(pid: int) -> str | None:
    """When a process began, in ticks since the boot, which no change of the clock moves; None if there is none."""
    try:
        state, *fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else fields[18].decode()

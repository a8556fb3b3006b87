"""The cores and the memory that this process may use, and the threads that fit them.

`python -m nin.support.cores` prints what a kernel should be started with, as NAME=value for `env`. This file
imports no other package: make asks it before anything is installed.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path("/")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}  # as JupyterHub writes memory
SPINS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how long threads of GNU's and of LLVM's OpenMP spin before they sleep
UNLIMITED = 2**60  # bytes; version 1 of cgroups writes a number near 2^63 for no limit


def cores(*, root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use: its affinity, at most the quota of its cgroups and JupyterHub's CPU_LIMIT.

    A quota of 1.5 cores is one: two threads would wait for each other whenever the quota is used up.
    root, environ  where the system's files and the variables are
    """
    bound = getattr(os, "sched_getaffinity", None)  # not on macOS
    most = float(len(bound(0)) if bound else os.cpu_count() or 1)
    return max(1, math.floor(min([most, *_quotas(root), *_number(environ.get("CPU_LIMIT"))])))


def threads(*, root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Threads of one process that has the cores for itself: OMP_NUM_THREADS if a person set it, else `cores`."""
    return chosen(environ) or cores(root=root, environ=environ)


def chosen(environ: Mapping[str, str] = os.environ) -> int | None:
    """The threads that a person chose by OMP_NUM_THREADS (a list is for nested threads: its first); None: none."""
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def asleep(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenMP's threads were told to sleep while they wait for each other; untold, they spin first."""
    policy = environ.get("OMP_WAIT_POLICY", "").strip().lower()
    return policy == "passive" or any(environ.get(name, "").strip() == "0" for name in SPINS)


def memory(*, root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> float:
    """Bytes that are free, at most the limit of this process's cgroups and JupyterHub's MEM_LIMIT; inf if unknown."""
    return min([*_free(root), *_limits(root), *_number(environ.get("MEM_LIMIT"))], default=math.inf)


def processes(of: float, *, root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """How many processes fit side by side, at least one: `of` bytes each, on the threads chosen, else on one."""
    each = chosen(environ) or 1
    free = memory(root=root, environ=environ) / of
    return max(1, int(min(cores(root=root, environ=environ) // each, free)))


def variables(count: int | None = None, *, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a process that computes on `count` threads (None: `threads`) is started with, but for what a person set.

    A thread that waits for the others sleeps (OMP_WAIT_POLICY, heeded by GNU's and LLVM's OpenMP alike): if it spun, it
    would take the core that they need, as soon as there is other work or a quota.
    """
    found = {"OMP_WAIT_POLICY": "PASSIVE"}
    if chosen(environ) is None:
        found["OMP_NUM_THREADS"] = str(count or threads(environ=environ))
    if any(name in environ for name in ("OMP_WAIT_POLICY", *SPINS)):
        del found["OMP_WAIT_POLICY"]
    return found


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of those above it, of both versions, for a controller."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, names, path = line.split(":", 2)
            if number == "0" and not names:
                mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            elif controller in names.split(","):
                mounts = [root / "sys/fs/cgroup" / name for name in dict.fromkeys((names, controller))]
            else:
                continue
            own = Path(path.lstrip("/"))  # seen from outside a container, it may not exist: the mount does
            yield from (mount / part for mount in mounts for part in (own, *own.parents))


def _quotas(root: Path) -> Iterator[float]:
    """Cores that cgroups allow: quota over period."""
    for group in _groups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # ValueError: "max", no quota
            quota, period = map(float, (group / "cpu.max").read_text().split())
            yield quota / period
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = (float((group / file).read_text()) for file in files)
            if quota > 0:  # -1: no quota
                yield quota / period


def _limits(root: Path) -> Iterator[float]:
    for group in _groups(root, "memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                if (limit := float((group / file).read_text())) < UNLIMITED:
                    yield limit


def _free(root: Path) -> Iterator[float]:
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
        yield from (1024 * float(line[1]) for line in lines if line[:1] == ["MemAvailable:"])


def _number(text: str | None) -> Iterator[float]:
    """The value of JupyterHub's variable: a number, for memory also with its unit; nothing for what is neither."""
    if found := re.fullmatch(r"(\d+(?:\.\d*)?)\s*([KMGT]?)", (text or "").strip()):
        if value := float(found[1]) * UNITS[found[2]]:
            yield value


if __name__ == "__main__":
    print(*(f"{name}={value}" for name, value in variables().items()))

"""Catches: more threads or processes than the machine, its container or a person allows; a limit read as none."""

import os
import subprocess
import sys

import pytest
import torch

from nin.support import cores as place
from nin.support import paths
from nin.support.cores import chosen, cores, memory, processes, threads, variables
from nin.support.threads import ONE_THREAD_BELOW, fit, threads_for
from nin.support.threads import threads as on

NONE = 9223372036854771712  # of version 1: no limit
MANY = max(ONE_THREAD_BELOW.values())  # multiply-adds that all threads share


@pytest.fixture
def sixteen(monkeypatch):
    """A host of 16 cores, on which nothing binds this process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def system(root, own="0::/", **files):
    """A system's files: what /proc/self/cgroup says, and what those of its cgroups say."""
    for name, text in ({"proc/self/cgroup": own} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return {"root": root, "environ": {}}


@pytest.mark.parametrize(
    ("own", "files", "found"),
    [
        ("0::/", {}, 16),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        ("0::/", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "199999 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "12500 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "6400000 100000"}, 16),
        # of a folder far down, the group above it decides
        ("0::/user/job", {"sys/fs/cgroup/user/job/cpu.max": "max 100000",
                          "sys/fs/cgroup/user/cpu.max": "300000 100000"}, 3),
        ("0::/user/job", {"sys/fs/cgroup/user/job/cpu.max": "200000 100000",
                          "sys/fs/cgroup/user/cpu.max": "300000 100000"}, 2),
        ("0::/other", {"sys/fs/cgroup/user/cpu.max": "100000 100000"}, 16),
        # version 1, its folder as systemd and as Docker name it, and the mixture of both versions
        ("4:cpu,cpuacct:/job\n0::/", {"sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "400000",
                                      "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpuacct,cpu:/docker/1f2e", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
                                        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000"}, 3),
        ("4:cpu:/", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1"}, 16),
        ("4:cpu:/", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "7", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "0"}, 16),
        ("7:memory:/\n0::/", {"sys/fs/cgroup/unified/cpu.max": "500000 100000"}, 5),
        ("nonsense", {"sys/fs/cgroup/cpu.max": "100000 100000"}, 16),
    ],
)  # fmt: skip
def test_the_quota_of_the_group_and_of_those_above_it(tmp_path, sixteen, own, files, found):
    assert cores(**system(tmp_path, own, **files)) == found


@pytest.mark.parametrize(
    ("limit", "found"), [("2", 2), ("2.9", 2), ("0.25", 1), ("64", 16), ("0", 16), ("500m", 16), ("", 16)]
)
def test_the_limit_of_jupyterhub(tmp_path, sixteen, limit, found):
    assert cores(root=tmp_path, environ={"CPU_LIMIT": limit}) == found


@pytest.mark.parametrize(
    ("own", "files", "limit", "found"),
    [
        ("0::/", {}, "", float("inf")),  # another system
        ("0::/", {"proc/meminfo": "MemTotal: 24000 kB\nMemFree: 10 kB\nMemAvailable:  2000 kB"}, "", 2000 * 1024),
        ("0::/", {"proc/meminfo": "MemAvailable:  2000 kB", "sys/fs/cgroup/memory.max": "max"}, "", 2000 * 1024),
        ("0::/", {"proc/meminfo": "MemAvailable:  2000 kB", "sys/fs/cgroup/memory.max": "1000000"}, "", 1e6),
        ("0::/a/b", {"sys/fs/cgroup/a/memory.max": "3000", "sys/fs/cgroup/a/b/memory.max": "5000"}, "", 3000),
        ("6:memory:/a", {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4000"}, "", 4000),
        ("6:memory:/a", {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{NONE}"}, "", float("inf")),
        ("0::/", {}, "2147483648", 2**31),
        ("0::/", {"sys/fs/cgroup/memory.max": "1000000"}, "1.5G", 1e6),
        ("0::/", {}, "1.5G", 1.5 * 2**30),
        ("0::/", {}, "2 Gigabytes", float("inf")),
    ],
)
def test_the_memory_of_the_group_and_of_jupyterhub(tmp_path, own, files, limit, found):
    where = system(tmp_path, own, **files)
    assert memory(root=where["root"], environ={"MEM_LIMIT": limit}) == found


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, 6),
        ({"OMP_NUM_THREADS": "1"}, 6),
        ({"OMP_NUM_THREADS": "2"}, 3),
        ({"OMP_NUM_THREADS": "16"}, 1),
        ({"MEM_LIMIT": "4500"}, 4),
        ({"MEM_LIMIT": "10"}, 1),
    ],
)
def test_processes_fit_cores_and_memory(tmp_path, sixteen, environ, found):
    where = system(tmp_path, **{"sys/fs/cgroup/cpu.max": "600000 100000"})
    assert processes(1000, root=where["root"], environ=environ) == found


def test_what_a_person_set_stays(tmp_path, sixteen):
    quiet = {"OMP_NUM_THREADS": "16", "OMP_WAIT_POLICY": "PASSIVE"}
    assert variables(environ={}) == quiet
    assert variables(3, environ={}) == quiet | {"OMP_NUM_THREADS": "3"}
    assert variables(3, environ={"OMP_NUM_THREADS": "5"}) == {"OMP_WAIT_POLICY": "PASSIVE"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        assert variables(environ={name: "1"}) == {"OMP_NUM_THREADS": "16"}
    assert [chosen({"OMP_NUM_THREADS": text}) for text in ("4,2", " 3 ", "0", "many", "")] == [4, 3, None, None, None]
    assert threads(root=tmp_path, environ={"OMP_NUM_THREADS": "32"}) == 32


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_a_bound_process_has_the_cores_that_it_is_bound_to():
    """As `taskset` binds it; as a kernel would be started in it."""
    first = sorted(os.sched_getaffinity(0))[:1]
    ask = "runpy.run_module('nin.support.cores', run_name='__main__')"
    code = f"import os, runpy; os.sched_setaffinity(0, {first}); {ask}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP", "KMP"))}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environ, cwd=paths.root(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OMP_WAIT_POLICY=PASSIVE", "OMP_NUM_THREADS=1"] and done.stderr == ""


@pytest.mark.parametrize(
    ("environ", "sleeps"),
    [
        ({}, False),
        ({"OMP_WAIT_POLICY": "active"}, False),
        ({"GOMP_SPINCOUNT": "10000"}, False),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, True),
        ({"OMP_WAIT_POLICY": "passive"}, True),
        ({"GOMP_SPINCOUNT": "0"}, True),
        ({"KMP_BLOCKTIME": "0"}, True),
    ],
)
def test_threads_that_sleep_share_larger_products_only(environ, sleeps, monkeypatch):
    """They take longer to wake than a small product takes."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    least, most = ONE_THREAD_BELOW["spin"], ONE_THREAD_BELOW["sleep"]
    assert least < most and place.asleep() == sleeps
    assert [threads_for(n) for n in (least - 1, least, most - 1, most)] == [1, *(2 * [1 if sleeps else None]), None]


def test_torch_keeps_to_the_cores_unless_a_person_chose(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with on(2), monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        fit()
        assert torch.get_num_threads() == 2 and threads_for(MANY) is None
        patch.delenv("OMP_NUM_THREADS")
        assert threads_for(MANY) == 1 == threads_for(0)
        fit()
        assert torch.get_num_threads() == 1
        torch.set_num_threads(2)
    with on(2):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("CPU_LIMIT", raising=False)
        fit()
        assert torch.get_num_threads() <= 2 and threads_for(MANY) is None and threads_for(0) == 1


def test_the_place_needs_nothing_that_is_to_be_installed():
    """The Makefile asks it before .venv exists, with any Python."""
    code = f"import sys; sys.path.insert(0, {str(paths.root())!r}); from nin.support.cores import cores; print(cores())"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 1
    assert place.ROOT == paths.Path("/")

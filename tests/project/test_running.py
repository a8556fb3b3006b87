"""Catches: tests that run without checked annotations, on more cores than they may use, or several threads a worker."""

import os
import re
import subprocess
import sys

import checking
import jaxtyping
import pytest

from nin.support import paths
from nin.support.cores import processes


@pytest.mark.parametrize("test", [1, 2])
def test_the_first_calls_of_each_test_are_checked(test, monkeypatch):
    for _ in range(checking.OFTEN - 1):
        paths.figures("quick")
    with pytest.raises(jaxtyping.TypeCheckError):
        paths.figures(3)
    with pytest.raises(TypeError, match="unsupported operand"):
        paths.figures(3)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores")
@pytest.mark.parametrize("target", ["check", "test"])
def test_one_worker_for_each_core_that_may_be_used(target):
    cores = sorted(os.sched_getaffinity(0))
    for allowed, workers in ((cores[:1], 1), (cores[:2], len(cores[:2])), (cores, min(len(cores), 4))):
        workers = min(workers, processes(2e9, environ={}))  # and what the memory holds
        commands = planned(target, allowed)
        assert len(commands) == 1 + (target == "test")
        for command in commands:
            assert f" -n {workers if workers > 1 else 0} " in command
            assert "OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} " in command


def planned(target: str, cores: list[int]) -> list[str]:
    """The commands by which make would run tests in a process bound to some cores."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "WORKERS", "OMP"))
    }
    words = ["make", "-n", target, f"PYTHON={sys.executable}"]
    bound = f"import os; os.sched_setaffinity(0, {cores}); os.execvp('make', {words})"
    command = [sys.executable, "-c", bound]
    done = subprocess.run(command, cwd=paths.root(), env=env, capture_output=True, text=True, check=True)
    lines = re.sub(r"\\\n\s*", "", done.stdout).splitlines()
    return [line for line in lines if "-m pytest" in line]

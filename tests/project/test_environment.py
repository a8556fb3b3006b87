"""Catches: versions that environment.yml, pyproject.toml and requirements.lock admit drifting apart, a lock that names
a place, a Binder that silently builds something else."""

import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from nin.support import paths

ROOT = paths.root()
CONDA_NAMES = {"pytorch-cpu": "torch"}
NOT_ON_BINDER = {  # for tests and clusters only
    "beartype", "distributed", "import-linter", "jupyter-repo2docker", "nbstripout", "nbval", "playwright", "pytest",
    "pytest-xdist", "ruff",
}  # fmt: skip


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> dict[str, SpecifierSet]:
    """Ranges of pyproject.toml, those of its extras included, except of those that no notebook needs."""
    extras = project()["optional-dependencies"]
    others = [lines for name, lines in extras.items() if name not in ("networks", "trainers")]
    return ranges([*project()["dependencies"], *itertools.chain(*others)])


def ranges(lines: list[str]) -> dict[str, SpecifierSet]:
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}


def conda() -> dict[str, str]:
    """Versions of environment.yml by PyPI name, and those that postBuild adds."""
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    parts = [re.fullmatch(r"([\w-]+)(.*)", line).groups() for line in lines]
    added = re.findall(r'"([\w-]+)([<>=][^"]*)"', (ROOT / "binder" / "postBuild").read_text())
    assert parts and added
    return {CONDA_NAMES.get(name, name): version for name, version in [*parts, *added]}


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def disagreements(declared: dict, conda: dict, lock: dict) -> list[str]:
    """Each package on which the three files differ, in words."""
    found = [f"{name} is not locked" for name in declared if name not in lock]
    found += [
        f"{name}: lock has {lock[name]}, pyproject {spec}"
        for name, spec in declared.items()
        if name in lock and not spec.contains(lock[name])
    ]
    found += [f"{name} is not in environment.yml" for name in declared if name not in conda]
    found += [f"{name} is not in pyproject.toml" for name in conda if name not in declared]
    found += [
        f"{name}: environment has {conda[name]}, pyproject {spec}"
        for name, spec in declared.items()
        if name in conda and SpecifierSet(conda[name]) != spec
    ]
    return found


def placed(lines: list[str]) -> list[str]:
    """Lines of a lock that are more than a name, an exact version and a marker."""
    exact = re.compile(r'[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*(; (sys_platform|python_version) == "[\w.]+")?')
    return [line for line in lines if not exact.fullmatch(line)]


def test_the_three_files_agree():
    conda_versions = conda()
    assert conda_versions.pop("python") == "=3.12"
    wanted = {name: spec for name, spec in declared().items() if name not in NOT_ON_BINDER}
    locked = {canonicalize_name(r.name): str(r.specifier)[2:] for r in map(Requirement, lock_lines())}
    assert disagreements(wanted, conda_versions, locked) == []
    assert [n for n in NOT_ON_BINDER if not declared()[n].contains(locked[n])] == []


def test_the_lock_of_the_networks_extra_fits_it():
    lock = (ROOT / "tests" / "networks" / "requirements.lock").read_text().splitlines()
    lines = [line for line in lock if not line.startswith("#")]
    locked = {canonicalize_name(r.name): str(r.specifier)[2:] for r in map(Requirement, lines)}
    wanted = ranges(project()["optional-dependencies"]["networks"])
    assert placed(lines) == [] and set(wanted) <= set(locked)
    assert [name for name, spec in wanted.items() if not spec.contains(locked[name])] == []
    others = (ROOT / "tests" / "requirements.lock").read_text() + (ROOT / "requirements.lock").read_text()
    assert [line for line in lines if f"{line.partition('==')[0]}==" in others and line not in others] == []


@pytest.mark.parametrize(
    "conda_version, lock_version, message",
    [
        (">=1,<3", "2.1", "a: environment has >=1,<3, pyproject"),
        (">=2,<3", "1.9", "a: lock has 1.9, pyproject"),
    ],
)
def test_disagreement_is_seen(conda_version, lock_version, message):
    (found,) = disagreements({"a": SpecifierSet(">=2,<3")}, {"a": conda_version}, {"a": lock_version})
    assert found.startswith(message)


def test_a_missing_package_is_seen():
    missing = disagreements({"a": SpecifierSet()}, {"b": ""}, {})
    assert missing == ["a is not locked", "a is not in environment.yml", "b is not in pyproject.toml"]


def test_lock_holds_names_and_versions_only():
    assert len(lock_lines()) > 50
    assert placed(lock_lines()) == []
    bad = [
        "--extra-index-url https://x",
        "torch==2.13.0+cpu",
        "-e .",
        "a @ file:///a.whl",
        "numpy>=2",
        "a==1 --hash=sha256:0",
    ]
    assert placed(bad) == bad


def test_python_of_conda_is_admitted():
    assert SpecifierSet(project()["requires-python"]).contains(conda()["python"].removeprefix("="))


def test_binder_reads_the_same_environment():
    assert (ROOT / "binder" / "environment.yml").read_text().strip() in (
        (ROOT / "environment.yml").read_text().strip(),
        "../environment.yml",  # a checkout that turns links into text
    )
    read = {"environment.yml", "postBuild", "start"}
    others = {path.name for path in (ROOT / "binder").iterdir()} - read - {"__pycache__"}
    assert others == {"lock.py", "badge.py", "config"}  # which repo2docker does not read


@pytest.mark.slow
def test_repo2docker_plans_to_build_the_environment_before_it_copies_the_rest():
    """So that a commit that leaves environment.yml alone does not rebuild it; and nothing else is installed."""
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    plan = done.stdout + done.stderr
    assert done.returncode == 0, plan[-2000:]
    assert "python=3.12" in plan
    environment, everything = plan.index('--file "binder/environment.yml"'), plan.index("COPY --chown=0:0 src/ ")
    assert environment < everything < plan.index("RUN ./binder/postBuild")
    assert plan.count("env update") == 1
    assert 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in plan


def test_post_build_installs_the_package_and_nothing_large():
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK)
    first, second, *commands = script.read_text().splitlines()
    assert (first, second) == ("#!/usr/bin/env bash", "set -euo pipefail")
    assert all(command.startswith("python -m pip install --no-deps ") for command in commands)
    assert commands[-1].endswith("--no-build-isolation -e .")


def test_start_bounds_the_memory_of_kernels_and_starts_what_it_is_given():
    script = ROOT / "binder" / "start"
    command = [str(script), sys.executable, "-c", "import os; print(os.environ['MALLOC_MMAP_THRESHOLD_'])"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "8388608\n"


def test_start_gives_kernels_the_threads_that_fit():
    names = ["OMP_NUM_THREADS", "OMP_WAIT_POLICY"]
    command = [str(ROOT / "binder" / "start"), sys.executable, "-c", f"import os; print(*map(os.environ.get, {names}))"]
    env = {name: value for name, value in os.environ.items() if name not in names} | {"CPU_LIMIT": "0.5"}
    env["PATH"] = os.pathsep.join((str(paths.Path(sys.executable).parent), env["PATH"]))
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1 PASSIVE\n"


def test_ci_calls_make_test_alone():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert [line for line in script.read_text().splitlines() if "make" in line] == ["exec make test"]


def test_update_keeps_markers_adds_what_is_new_and_drops_what_is_not_needed():
    spec = importlib.util.spec_from_file_location("lock", ROOT / "binder" / "lock.py")
    lock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lock)
    old = ["# names", 'aiohttp==1.0; python_version == "3.12"', "gone==2.0", "jupyter-core==5.0", "torch==2.13.0"]
    found = {"jupyter_core": "5.1", "torch": "2.13.0", "New.One": "0.1"}
    new = lock.refreshed(old, found)
    assert new == ["# names", old[1], "jupyter-core==5.1", "new-one==0.1", "torch==2.13.0"]
    assert placed(new[1:]) == []

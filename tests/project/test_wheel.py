"""Catches a wheel that lacks a file, needs a package that it does not declare, or needs a clone where it should not."""

import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nin.support import paths

pytestmark = pytest.mark.slow
LIBRARY = {
    "jaxtyping", "matplotlib", "numpy", "pandas", "pooch", "pyarrow", "scikit-learn", "scipy", "threadpoolctl", "torch",
    "tqdm", "tueplots",
}  # fmt: skip
USE = """
import nin, torch
from torch import nn
from nin.probes import curvature, interactions, response, stability

base = nin.RunConfig(n_train=96, widths=(8, 8), steps=12, batch_size=16, eval_points=3, eval_samples=32)
frame = nin.sweep(base, over={"sigma": [0.1, 30.0]})
print(frame["run"].nunique(), "runs", nin.phases.summarise(frame)["phase"].isin(nin.phases.PHASES).all())

model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
noisy = nin.inject(model, "0", sigma=1.0)
data = nin.load_data("digits", n_train=96)
x, y = data.x_train[:16], data.y_train[:16]
noisy(x).sum().backward()
print(tuple(noisy.niw.grad.shape), "gradient of the node")
loss = nn.functional.cross_entropy
print(tuple(curvature.local_hessian(model, "0", x, y, loss=loss).shape), "local Hessian")
print(tuple(response.kernel(model, x).shape), "kernel")
print(tuple(interactions.moebius(torch.randn(8)).shape), "interactions")
images = nn.Sequential(nn.Flatten(), model)
print(len(stability.sensitivities(images, x.reshape(-1, 1, 8, 8), delta=0.2, draws=1)) > 1, "sensitivities")
"""


def requirements(found: Distribution) -> set[str]:
    """What a distribution needs here, extras left out."""
    wanted = map(Requirement, found.requires or ())
    return {r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "-w", folder, paths.root()], check=True, capture_output=True)
    (built,) = folder.glob("nin-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """A fresh environment that holds the wheel, the twelve packages it declares, what these need, and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    waiting, seen = set(LIBRARY), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        found = distribution(name)
        for top in {file.parts[0] for file in found.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))
        waiting |= {need for need in requirements(found) if need not in seen}
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [python, *arguments], cwd=cwd, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    )


def test_the_wheel_declares_the_librarys_packages(python):
    (metadata,) = python.parent.parent.glob("lib/python*/site-packages/nin-*.dist-info/METADATA")
    lines = re.findall(r"^Requires-Dist: (.*)$", metadata.read_text(), re.MULTILINE)
    plain = {r.name for r in map(Requirement, lines) if r.marker is None}
    extras = {r.name for r in map(Requirement, lines) if "companion" in str(r.marker)}
    assert plain == LIBRARY
    assert extras >= {"jupyterlab", "papermill", "voila", "seaborn"} and not extras & plain


def test_a_library_user_needs_no_clone(python, tmp_path):
    done = run(python, "-W", "error", "-c", USE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 runs True",
        "(1, 8) gradient of the node",
        "(8, 8) local Hessian",
        "(16, 16) kernel",
        "(8,) interactions",
        "True sensitivities",
    ]
    assert done.stderr == ""
    listed = run(python, "-m", "nin", "runs", cwd=tmp_path)
    assert listed.returncode == 0 and "2 runs" in listed.stdout, listed.stderr


@pytest.mark.parametrize("command", [["list"], ["run"], ["run", "02"]])
def test_what_needs_a_clone_says_so_in_one_sentence(python, tmp_path, command):
    done = run(python, "-m", "nin", *command, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "come with a clone of the repository" in line


def test_the_explorers_command_and_saved_figures_need_no_clone(python, tmp_path):
    done = run(python, "-m", "nin", "explore", "width=8", "--to", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "explore.csv", "explore.png", "explore_diagram.png",
    ]  # fmt: skip
    done = run(python, "-m", "nin", "figures", "list", cwd=tmp_path)
    assert done.returncode == 2 and "there are no figures" in done.stderr

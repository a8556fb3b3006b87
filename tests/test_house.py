"""Catches: a public name that is lost or takes other arguments, an import that costs seconds, results of an older
version that can no longer be read, a room without a place in the house."""

import importlib
import inspect
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

import nin
from nin import figures
from nin.figures.sidecars import _present_name
from nin.support import paths
from nin.sweeps import jobs, readings
from nin.sweeps.store import Store

ROOMS = {"support", "theory", "phases", "figures", "model", "probes", "training", "sweeps", "companion"}
FILES = {"__init__.py", "__main__.py", "checks.py"}
HEAVY = {"torch", "pandas", "matplotlib", "scipy", "sklearn", "seaborn", "lark"}

# Names that notebooks, readers and other people's code rely on: where, name, arguments that must stay.
PUBLIC = [
    ("nin", "inject", "model layer sigma nodes niw_std at example law generator"),
    ("nin", "NoisyNetwork", ""),
    ("nin", "Dataset", "x_train y_train x_test y_test classes source"),
    ("nin", "load_data", "name n_train n_test seed"),
    ("nin", "Trajectories", ""),
    ("nin", "Record", "noisy optimizer x y loss"),
    ("nin", "train", "configs data network snapshots device progress"),
    ("nin", "sweep", "base over executor store progress"),
    ("nin", "predict", "noisy x y loss lr batch_size steps generator sigma scales"),
    ("nin", "noise_scale", "phase noisy x y loss lr batch_size steps generator sigma"),
    ("nin.theory", "LinearState", "a n V U W k"),
    ("nin.theory", "linear_map", "state eta width target p q c"),
    ("nin.theory", "catapult_map", "f lam eta width"),
    ("nin.theory", "kappa", "eta sigma lam"),
    ("nin.theory", "sigma_catapult", "eta lam"),
    ("nin.theory", "decay_time", "kappa"),
    ("nin.theory", "kappa_mean_square", "batch kurtosis"),
    ("nin.phases", "classify", "frame"),
    ("nin.phases", "fit_decay", "steps values"),
    ("nin.probes.curvature", "local_hessian", "model layer x y loss"),
    ("nin.probes.curvature", "critical_rate", "noisy x y loss batch_size generator sigma steps optimizer judged"),
    ("nin.probes.curvature", "CriticalRate", "rate stderr initial_loss decay decay_stderr"),
    ("nin.probes.curvature", "Thermometer", "model layer nodes amplitude"),
    ("nin.probes.curvature", "Reading", "eigenvalues stderr"),
    ("nin.probes.memorisation", "Indexed", "dataset"),
    ("nin.probes.memorisation", "FixedNoise", "noisy samples"),
    ("nin.probes.memorisation", "MemorisationMeter", "tolerance errors"),
    ("nin.probes.memorisation", "MeterReading", "step norm lowest rise stderr turned"),
    ("nin.probes.response", "kernel", "model x x2"),
    ("nin.probes.response", "response", "model x y probe loss optimizer"),
    ("nin.probes.interactions", "moebius", "values"),
    ("nin.probes.interactions", "inverse_moebius", ""),
    ("nin.probes.interactions", "or_interactions", "values"),
    ("nin.probes.interactions", "shapley", "values"),
    ("nin.probes.interactions", "split", "values kappa"),
    ("nin.probes.interactions", "layerwise", "model x y"),
    ("nin.probes.interactions", "head_readout", "model layer head"),
    ("nin.probes.stability", "temperature", "delta n c"),
    ("nin.probes.stability", "displacement_rms", "T n c"),
    ("nin.probes.stability", "displacement_field", "n c T count generator"),
    ("nin.probes.stability", "deform", "images field"),
    ("nin.probes.stability", "sensitivities", "model x delta c"),
    ("nin.figures", "save", "draw name data"),
    ("nin.checks", "Check", "name source measured predicted tolerance relation"),
    ("nin.checks", "table", ""),
]
CONFIG = (
    "dataset n_train network widths activation loss layer sigma nodes niw_std law resample optimizer lr batch_size "
    "steps record_every eval_points eval_samples seed dtype"
)


@pytest.mark.parametrize(("module", "name", "arguments"), [*PUBLIC, ("nin", "RunConfig", CONFIG)])
def test_public_names_stay(module, name, arguments):
    thing = getattr(importlib.import_module(module), name)
    assert callable(thing)
    assert set(arguments.split()) <= set(inspect.signature(thing).parameters)


def test_nin_offers_what_it_names():
    assert set(nin.__all__) <= set(dir(nin)) and all(getattr(nin, name) is not None for name in nin.__all__)
    assert {"phases", "theory", "figures", "checks", "probes"} <= set(nin.__all__)
    with pytest.raises(AttributeError, match="module 'nin' has no attribute 'injekt'"):
        nin.injekt  # noqa: B018


def test_public_names_of_packages_hide_no_file():
    """A submodule and a function of one name overwrite each other, by the order of imports."""
    for module in ("nin", "nin.theory", "nin.phases", *(f"nin.probes.{name}" for name in nin.probes.__all__)):
        package = importlib.import_module(module)
        files = {path.stem for folder in package.__path__ for path in paths.Path(folder).iterdir()}
        modules = {name for name in package.__all__ if inspect.ismodule(getattr(package, name))}
        assert not (set(package.__all__) - modules) & files, module


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import nin", set()),
        ("import nin.theory, nin.support.paths", set()),
        ("import nin; nin.inject", {"torch"}),
        ("import nin.model.data, nin.model.networks, nin.model.losses", {"torch"}),
        ("from nin.companion.notebooks import begin", set()),
        ("from nin.companion.command import main; main(['list'])", set()),
        ("from nin.companion.explorer.setting import read; read(['sigma=2', 'law=uniform'])", set()),
        ("from nin.companion.runner import run", set()),
        ("import papermill, nbformat", set()),
    ],
)
def test_imports_are_light(code, loaded):
    show = f"{code}; import sys; print(*sorted(set(sys.modules) & {HEAVY}), sep=',')"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    assert set(filter(None, shown.splitlines()[-1].split(","))) == loaded


def test_the_library_loads_no_seaborn_and_no_jupyter():
    walk = (
        "import pkgutil, importlib, sys, nin\n"
        "for module in pkgutil.walk_packages(nin.__path__, 'nin.'):\n"
        "    if not module.name.startswith(('nin.companion', 'nin.__main__', 'nin.training.in_')):\n"
        "        importlib.import_module(module.name)\n"
        "print(*sorted({'seaborn', 'IPython', 'papermill', 'nbformat', 'yaml', 'ipywidgets'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", walk], capture_output=True, text=True, check=True).stdout
    assert shown.split() == []


def test_one_sees_the_house_at_a_glance():
    folder = paths.root() / "nin"
    there = {path.name for path in folder.iterdir() if path.name != "__pycache__"}
    assert there == ROOMS | FILES
    sizes = {path: len(path.read_text().splitlines()) for path in folder.rglob("*.py")}
    sizes |= {path: len(path.read_text().splitlines()) for path in (paths.root() / "studies").rglob("*.py")}
    assert len(sizes) > 100 and max(sizes.values()) <= 300, max(sizes, key=sizes.get)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nin.plots.niw_vs_loss.evolution", "studies.nin_vs_loss.figures.evolution"),
        ("nin.plots.training_response.aging", "studies.training_response.figures.aging"),
        ("mine.figures.curve", "mine.figures.curve"),
    ],
)
def test_draw_functions_are_found_by_their_old_names(old, new):
    assert _present_name(old) == new


def test_every_old_draw_function_is_there():
    """The names in the sidecars of commit 41078c6, as git or the rule has them; the table of 09e has changed."""
    newer = {"02f_collapse", "09e_by_order", "09j_by_layer", "09k_probes", "12b_residual", "12c_transformer"}
    saved = [figure for figure in figures.saved("paper") if figure.name not in newer]
    assert {figure.name[:2] for figure in saved} >= {"01", "02", "03", "05", "06", "07", "08", "09", "10"}
    for figure in saved:
        study = figure.sidecar["draw"].split(".")[1]
        old = f"nin.plots.{'niw_vs_loss' if study == 'nin_vs_loss' else study}.{figure.draw.__name__}"
        assert _present_name(old) == figure.sidecar["draw"]


def test_a_figure_of_an_older_version_is_drawn_again(tmp_path, monkeypatch):
    shutil.copytree(paths.root() / "tests" / "old" / "figures", tmp_path / "figures")
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path / "figures"))
    drawn = figures.redraw("08i_plasticity", profile="paper")
    assert sum(len(ax.lines) for ax in drawn.axes) > 3
    assert {path.suffix for path in (tmp_path / "figures" / "paper").iterdir()} >= {".pdf", ".svg", ".png"}


def test_runs_of_an_older_version_are_read_without_training(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(paths.root() / "tests" / "sweeps"))
    from sweeping import BASE

    shutil.copytree(paths.root() / "tests" / "old" / "store", tmp_path / "store")
    monkeypatch.setattr(jobs, "train", lambda *args, **kwargs: pytest.fail("a stored run is trained again"))
    over = {"sigma": [0.1, 30.0], "seed": [0, 1]}
    frame = nin.sweep(BASE.replace(steps=20), over=over, store=tmp_path / "store", device="cpu")
    assert frame["run"].nunique() == 4 and frame["noisy_loss"].notna().all()
    assert all(Store(tmp_path / "store").manifest(key)["schema"] == 1 for key in Store(tmp_path / "store"))


def test_readings_are_keyed_by_all_code_of_the_probes(tmp_path):
    """A probe that was changed, however deep in the folder, is asked again."""
    copy = shutil.copytree(
        paths.root() / "nin" / "probes", tmp_path / "probes", ignore=shutil.ignore_patterns("__pycache__")
    )
    assert readings._hash_of(copy) == readings.probe_sources()
    files = sorted(copy.rglob("*.py"))
    assert len(files) > 25
    keys = {readings._hash_of(copy)}
    for number, file in enumerate(files, 2):
        file.write_text(file.read_text() + "# changed\n")
        keys.add(readings._hash_of(copy))
        assert len(keys) == number, file
    files[0].rename(files[0].with_name("another.py"))
    assert readings._hash_of(copy) not in keys


def test_the_readme_example_holds_on_a_fresh_import():
    noisy = nin.inject(nn.Sequential(nn.Linear(4, 3)), "0", sigma=1.0, generator=torch.Generator().manual_seed(0))
    assert noisy.niw.shape == (1, 3)

"""Catches: a setting, a thread, a process or a neighbour that changes the numbers of a run; a setting that is not as it
was after a run."""

import gc
import hashlib
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nin import RunConfig, sweep, train
from nin.model.dataset import Dataset
from nin.training.ensemble import Ensemble

BASE = RunConfig(
    widths=(20, 12), batch_size=8, steps=30, eval_points=3, eval_samples=32, curvature_pairs=1, sigma=2.0, lr=0.02
)
OTHERS = [BASE.replace(sigma=sigma, seed=seed) for sigma in (0.1, 1.0, 5.0) for seed in (0, 1)]


def data():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(48, 6, generator=generator, dtype=torch.float32)
    y = torch.arange(48) % 4
    return Dataset(x, y, x[:16], y[:16], 4, "noise")


def hashed(*arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=float).tobytes())
    return digest.hexdigest()


def bits(runs, run=0):
    """A hash of all numbers of a run, and of the weights of its network."""
    state = runs.model(run).state_dict()
    weights = [value.detach().numpy() for name, value in state.items() if name != "_extra_state"]
    return hashed(runs.table(run).to_numpy(float), *weights)


def one(config=BASE, **options):
    return bits(train(config, data=data(), device="cpu", **options))


@pytest.fixture(scope="module")
def expected():
    return one()


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


class Shared:
    """A setting of the process, as a context."""

    def __init__(self, get, put, value):
        self.get, self.put, self.value = get, put, value

    def __enter__(self):
        self.before = self.get()
        self.put(self.value)

    def __exit__(self, *_):
        self.put(self.before)


def of_pandas():
    return pd.option_context("display.precision", 2, "mode.sim_interactive", True, "compute.use_numexpr", False)


def errors():
    found = warnings.catch_warnings(action="error")
    return found


CONTEXTS = {
    "nothing": lambda: Shared(lambda: None, lambda _: None, None),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": autocast,
    "float64 by default": lambda: Shared(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "coarse products": lambda: Shared(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
    "deterministic": lambda: Shared(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "one thread": lambda: Shared(torch.get_num_threads, torch.set_num_threads, 1),
    "two threads": lambda: Shared(torch.get_num_threads, torch.set_num_threads, 2),
    "style of figures": lambda: mpl.rc_context({"figure.dpi": 31, "axes.grid": True}),
    "options of pandas": of_pandas,
    "warnings are errors": errors,
    "NumPy raises": lambda: np.errstate(all="raise", under="ignore"),
}


def settings():
    """All that a run might leave otherwise than it was."""
    return {
        "inference": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "random": hashed(torch.get_rng_state().numpy(), np.random.get_state()[1]),  # noqa: NPY002
        "matplotlib": dict(mpl.rcParams),
        "pandas": [pd.get_option(name) for name in ("display.precision", "mode.sim_interactive")],
        "warnings": list(warnings.filters),
        "NumPy": np.geterr(),
    }


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.*backend:matplotlib.MatplotlibDeprecationWarning")
@pytest.mark.parametrize("name", CONTEXTS)
def test_no_setting_of_the_caller_changes_a_run_or_is_changed(name, expected):
    with CONTEXTS[name]():
        before = settings()
        found = train(BASE, data=data(), device="cpu")
        assert settings() == before
    assert bits(found) == expected


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["inference mode", "autocast", "float64 by default"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_nor_does_one_change_a_network_of_ones_own(name, optimizer):
    """Trained by autograd, under vmap; built in the default dtype."""
    options = {"network": lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4))}
    config = BASE.replace(optimizer=optimizer, layer="0")
    plain = one(config, **options)
    with CONTEXTS[name]():
        assert one(config, **options) == plain


@pytest.mark.usefixtures("unchecked")
def test_a_sweep_in_inference_mode_and_autocast_stores_what_it_stores_without(tmp_path):
    over = {"sigma": [0.5, 2.0]}
    expected = sweep(BASE, over=over, data=data(), store=tmp_path / "plain", device="cpu")
    with torch.inference_mode(), autocast():
        found = sweep(BASE, over=over, data=data(), store=tmp_path / "inside", device="cpu")
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {p.name for p in (tmp_path / "inside").iterdir()}


def test_autocast_is_that_of_the_config():
    """A config that asks for it gets it, and other numbers."""
    asked = one(BASE.replace(autocast=True))
    with autocast():
        assert one(BASE.replace(autocast=True)) == asked
    assert asked != one()


def test_alone_and_among_others(expected):
    together = train([*OTHERS, BASE, *OTHERS], data=data(), device="cpu")
    assert bits(together, len(OTHERS)) == expected


def test_runs_of_one_seed_are_measured_once_at_the_start_and_to_the_same_bits(monkeypatch):
    asked, part = [], Ensemble.part
    monkeypatch.setattr(Ensemble, "part", lambda self, members: asked.append(len(members)) or part(self, members))
    configs = [*OTHERS, *(config.replace(lr=0.01) for config in OTHERS)]
    once = train(configs, data=data(), device="cpu")
    assert asked == [2, 2]  # seeds, on training and test samples
    monkeypatch.setattr(Ensemble, "exact", False)
    every = train(configs, data=data(), device="cpu")
    assert [bits(once, run) for run in range(12)] == [bits(every, run) for run in range(12)]
    assert once.curves["train_loss"][0, 0] == once.curves["train_loss"][0, 2] != once.curves["train_loss"][0, 1]


@pytest.mark.parametrize(("batch", "widths"), [(1, (20, 12)), (4, (33,)), (8, (50, 7)), (5, (10,))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_widths_of_any_number_give_the_same_bits_alone_and_among_others(batch, widths, dtype):
    changed = {"batch_size": batch, "widths": widths, "dtype": dtype, "lr": 0.005}
    together = train([config.replace(**changed) for config in (*OTHERS, BASE)], data=data(), device="cpu")
    assert bits(together, len(OTHERS)) == one(BASE.replace(**changed))


@pytest.mark.parametrize(
    ("batch", "width", "exact"), [(16, 9, True), (32, 50, True), (3, 16, True), (1, 50, False), (5, 9, False)]
)
def test_networks_of_ones_own_give_the_same_bits_where_it_is_said(batch, width, exact):
    """Where the values of a layer fill whole cache lines; elsewhere the numbers agree to 1e-6."""

    def network():
        return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 4))

    changed = {"batch_size": batch, "lr": 0.005, "layer": "0", "steps": 15}
    configs = [config.replace(**changed) for config in (*OTHERS, BASE)]
    together = train(configs, data=data(), network=network, device="cpu")
    alone = train(configs[-1], data=data(), network=network, device="cpu")
    if exact:
        assert bits(together, len(OTHERS)) == bits(alone)
    else:
        found, wanted = together.table(len(OTHERS)), alone.table(0)
        np.testing.assert_allclose(found["noisy_loss"], wanted["noisy_loss"], rtol=1e-6)
        np.testing.assert_allclose(found["niw_norm"], wanted["niw_norm"], rtol=1e-6)


def test_twice_in_a_process_and_in_threads_beside_each_other(expected):
    found = {}

    def work(place):
        with torch.inference_mode():
            found[place] = one()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
    with CONTEXTS["float64 by default"]():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_default_dtype() == torch.float64
    assert set(found.values()) == {expected} and one() == expected


@pytest.mark.slow
def test_in_another_process_on_any_number_of_threads_and_in_a_pool(expected, tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_same_bits; print(test_same_bits.one())"
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, os.path.dirname(__file__)],
            env=os.environ | {"OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [expected]
    over = {"sigma": [0.5, 2.0], "seed": [0, 1]}
    here = sweep(BASE, over=over, data=data(), store=tmp_path / "here", device="cpu")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = sweep(BASE, over=over, data=data(), store=tmp_path / "pool", device="cpu", executor=pool)
    pd.testing.assert_frame_equal(found, here, check_exact=True)


@pytest.mark.slow
def test_on_dask(tmp_path):
    distributed = pytest.importorskip("distributed")
    over = {"sigma": [0.5, 2.0], "seed": [0, 1]}
    here = sweep(BASE, over=over, data=data(), store=tmp_path / "here", device="cpu")
    with (
        distributed.LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        found = sweep(BASE, over=over, data=data(), store=tmp_path / "dask", device="cpu", executor=executor)
    pd.testing.assert_frame_equal(found, here, check_exact=True)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_two_hundred_runs_in_a_process_leave_nothing_behind(tmp_path, monkeypatch):
    """Memory, handles, threads and temporary files after 200 trainings are those after the first 40."""
    psutil = pytest.importorskip("psutil")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    process = psutil.Process()

    def used():
        gc.collect()
        files = len(list(tmp_path.rglob("*")))
        return process.memory_info().rss, process.num_fds(), process.num_threads(), files

    config = BASE.replace(steps=5)

    def some(count):
        for seed in range(count):
            train(config.replace(seed=seed), data=data(), device="cpu").frame()

    some(40)
    before = used()
    some(200)
    after = used()
    assert after[1:] == before[1:]
    assert after[0] - before[0] < 8 * 2**20  # 40 kB a run: less than its data, networks and tables

"""The small sweep that the tests of grid, store and executors share; importable by worker processes."""

import warnings
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import nin
from nin.sweeps import jobs
from nin.sweeps.store import Store

BASE = nin.RunConfig(
    n_train=96, widths=(8, 8), steps=60, batch_size=16, eval_points=6, eval_samples=64, curvature_pairs=1, lr=0.1
)
OVER = {"sigma": [0.1, 1.0, 30.0], "seed": [0, 1, 2, 3]}
RUNS = 12


def sweep(store, **changes) -> pd.DataFrame:
    """The sweep in groups of two; `changes` replace arguments."""
    return nin.sweep(**{"base": BASE, "over": OVER, "store": store, "at_once": 2} | changes)


def logged_sweep(store: Path, log: Path, **changes) -> pd.DataFrame:
    """The sweep; runs that are computed are first written into a log file."""
    train = jobs.train

    def logged(configs, **arguments):
        with log.open("a") as file:
            file.writelines(f"{config.sigma} {config.seed}\n" for config in configs)
        return train(configs, **arguments)

    jobs.train = logged
    return sweep(store, **changes)


def computed(log: Path) -> list[tuple[float, int]]:
    """What logged_sweep wrote, as (sigma, seed)."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(float(sigma), int(seed)) for sigma, seed in map(str.split, lines)]


def stored(folder: Path) -> set[tuple[float, int]]:
    """The complete runs of a store, as (sigma, seed)."""
    store = Store(folder)
    configs = [store.manifest(key)["config"] for key in store]
    return {(config["sigma"], config["seed"]) for config in configs}


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Assert that two tables are equal bit for bit."""
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def two_layers() -> nn.Module:
    """A user-defined network."""
    return nn.Sequential(nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10))


def fails() -> nn.Module:
    """A factory that raises."""
    raise RuntimeError("no such network")


def outcome(function, connection, *arguments) -> None:
    """Send what a function returns or raises, and the warnings it gave, through a connection."""
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*arguments)
        except Exception as error:
            result = error
    connection.send((result, [str(w.message) for w in caught if w.category is UserWarning]))


def with_batch_norm() -> nn.Module:
    """A network whose runs cannot be stacked."""
    return nn.Sequential(nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1), nn.Linear(6, 10))


def smoothed(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A loss of one's own."""
    return nn.functional.cross_entropy(outputs, y, label_smoothing=0.1)


def jitter(x: torch.Tensor) -> torch.Tensor:
    """An augmentation that draws from torch's global generator."""
    return x + 0.1 * torch.randn_like(x)

"""Methods of robust learning, all tuned in the same way and tested on corrupted images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.model.losses import cross_entropy, score
from nin.phases import vote
from nin.support.progress import ProgressBar
from studies.robust_learning.attacks import fgsm, pgd
from studies.robust_learning.corruptions import Pixels, corrupt
from studies.robust_learning.phases import Watcher, predicted
from studies.robust_learning.recipes import NODES, Recipe, fit

TUNED = ["method", "strength", "seed", "clean", "noisy", "phase", "predicted", "kappa_1", "best"]
VALIDATION = 5  # every fifth training sample is held out while a method is tuned


def fit_each(
    recipes: Mapping[str, Recipe], data: Dataset, *, seeds: Sequence[int], progress: bool = False
) -> dict[str, list[nn.Module]]:
    """`fit` one network for each recipe and seed; the result can be passed to `evaluate`."""
    cases = [(name, recipe, seed) for name, recipe in recipes.items() for seed in seeds]
    networks: dict[str, list[nn.Module]] = {name: [] for name in recipes}
    for name, recipe, seed in ProgressBar(cases, progress=progress, desc="training", unit="network"):
        networks[name].append(fit(recipe, data, seed=seed))
    return networks


def tune(
    base: Recipe,
    grids: Mapping[str, Sequence[float]],
    data: Dataset,
    *,
    seeds: Sequence[int],
    noise: float = 0.3,
    progress: bool = False,
) -> pd.DataFrame:
    """Train each method at the strengths of its grid, without every fifth sample, and score it on the samples left out.

    Columns: method, strength, seed, clean, noisy (accuracy under Gaussian noise of strength `noise`); best, true at the
    strength of each method with the largest mean of the two over seeds. For methods with nodes also phase, of this
    run, and predicted and kappa_1 from before its first step (`nin.predict`). "none" (strength 0) is always included.
    """
    held = torch.arange(len(data.x_train)) % VALIDATION == 0
    kept, pixels = (~held).nonzero().squeeze(1), Pixels.of(data)
    x, y = data.x_train[held], data.y_train[held]
    worse = corrupt(x, "gaussian", noise, pixels=pixels, seed=1)
    rows = []
    cases = [(m, s, seed) for m, grid in ({"none": (0.0,)} | dict(grids)).items() for s in grid for seed in seeds]
    for method, strength, seed in ProgressBar(cases, progress=progress, desc="tuning", unit="network"):
        recipe, about = replace(base, method=method, strength=strength), {}
        watcher = Watcher(data.x_train[kept], data.y_train[kept], recipe.steps) if method in NODES else None
        network = fit(recipe, data, seed=seed, keep=kept, watch=watcher)
        if watcher:
            before = predicted(recipe, data, seed=seed, keep=kept)
            about = {"phase": watcher.phase(), "predicted": before.phase, "kappa_1": before.kappa}
        scores = {"clean": score(network, x, y), "noisy": score(network, worse, y)}
        rows.append({"method": method, "strength": strength, "seed": seed} | scores | about)
    table = pd.DataFrame(rows).reindex(columns=TUNED[:-1])
    table["mean"] = (table["clean"] + table["noisy"]) / 2
    means = table.groupby(["method", "strength"])["mean"].mean().reset_index()
    best = means.loc[means.groupby("method")["mean"].idxmax()].set_index("method")["strength"]
    return table.assign(best=table["strength"] == table["method"].map(best))[TUNED]


def choices(tuned: pd.DataFrame) -> pd.DataFrame:
    """The tuned strength of each method, and whether it is at an end of its grid: method, strength, edge."""
    rows = []
    for method, part in tuned[tuned["method"] != "none"].groupby("method", sort=False):
        (strength,) = set(part.loc[part["best"], "strength"])
        rows.append((method, strength, strength in (part["strength"].min(), part["strength"].max())))
    return pd.DataFrame(rows, columns=["method", "strength", "edge"])


def phases_of(tuned: pd.DataFrame) -> pd.DataFrame:
    """One row for each method with nodes and strength: method, strength, best, the phases of its runs and before them.

    phase, predicted: "catapult (2 of 3)", the most frequent one; kappa_1: geometric mean over seeds; noisy, clean: mean
    gain over the network without a node of the same seed.
    """
    plain = tuned[tuned["method"] == "none"].set_index("seed")
    rows = []
    nodes = tuned[tuned["method"].isin(NODES)]
    for (method, strength), part in nodes.groupby(["method", "strength"], sort=False):
        seeds = part.set_index("seed")
        row = {"method": method, "strength": strength, "best": part["best"].iloc[0]}
        for name in ("phase", "predicted"):
            most = vote(part[name])
            row[name] = f"{most} ({(part[name] == most).sum()} of {len(part)})"
        row["kappa_1"] = float(np.exp(np.log(part["kappa_1"]).mean()))
        row |= {name: float((seeds[name] - plain[name]).mean()) for name in ("noisy", "clean")}
        rows.append(row)
    return pd.DataFrame(rows)


def evaluate(
    networks: Mapping[str, Sequence[nn.Module]],
    data: Dataset,
    *,
    corruptions: Mapping[str, Sequence[float]],
    attacks: Sequence[float] = (),
    attacked: int = 512,
    others: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Test accuracy of networks, by method and seed, on clean, corrupted and attacked images.

    corruptions    strengths by kind (`corruptions.corrupt`); one draw for all networks
    attacks    radii of FGSM and PGD in the l_infinity norm, as fractions of the range from black to white
    attacked   number of test samples that are attacked
    others     further test sets, (x, y) by name
    Columns: method, seed, test, strength, accuracy.
    """
    pixels, x, y = Pixels.of(data), data.x_test, data.y_test
    sets = {("clean", 0.0): (x, y)}
    for kind, strengths in corruptions.items():
        sets |= {(kind, strength): (corrupt(x, kind, strength, pixels=pixels, seed=2), y) for strength in strengths}
    sets |= {(name, 0.0): pair for name, pair in (others or {}).items()}
    bounds = {"low": pixels.low, "high": pixels.high, "loss": cross_entropy}
    few_x, few_y = x[:attacked], y[:attacked]
    rows = []
    for method, group in ProgressBar(networks.items(), progress=progress, desc="testing", unit="method"):
        for seed, network in enumerate(group):
            for (test, strength), (inputs, labels) in sets.items():
                rows.append((method, seed, test, strength, score(network, inputs, labels)))
            for radius in attacks:
                size = radius * (pixels.high - pixels.low)
                for name, attack in (("fgsm", fgsm), ("pgd", pgd)):
                    moved = attack(network, few_x, few_y, radius=size, **bounds)
                    rows.append((method, seed, name, radius, score(network, moved, few_y)))
    return pd.DataFrame(rows, columns=["method", "seed", "test", "strength", "accuracy"])


def digits_as_mnist(data: Dataset) -> tuple[Float[Tensor, "n pixels"], Int[Tensor, " n"]]:
    """All 1,797 digits of scikit-learn in the format of MNIST: a real change of domain for networks trained on MNIST.

    The 8 x 8 images are enlarged to 20 x 20 (bilinear), centred in 28 x 28, and standardised like `data`, MNIST.
    Raises ValueError if data does not hold 28 x 28 images.
    """
    pixels = Pixels.of(data)
    if pixels.side != 28:
        raise ValueError(f"data has images of {pixels.side} x {pixels.side} pixels; pass MNIST, of 28 x 28.")
    digits = load_digits()
    large = ndimage.zoom(digits.images / 16, (1, 2.5, 2.5), order=1)
    return pixels.rows(np.pad(large, ((0, 0), (4, 4), (4, 4)))).to(data.x_train), torch.from_numpy(digits.target)

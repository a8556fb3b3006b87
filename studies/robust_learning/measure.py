"""Robust learning by noise nodes, dropout or weight decay, all tuned in the same way and tested on corrupted images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from nin.model.data import Dataset
from nin.model.losses import cross_entropy, score
from nin.model.networks import he_initialise
from nin.model.nodes import NoisyNetwork, inject
from nin.support.arguments import check_choice, check_count, check_number
from nin.support.progress import ProgressBar
from studies.robust_learning.attacks import fgsm, pgd
from studies.robust_learning.corruptions import Pixels, corrupt

METHODS = ("none", "nin_input", "nin_layers", "dropout", "l2")
ARCHITECTURES = ("fully_connected", "convolutional")
VALIDATION = 5  # every fifth training sample is held out while a method is tuned


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    method     "none"; "nin_input": a node at the first layer; "nin_layers": one at every layer but the last; "dropout":
               after every hidden layer; "l2": weight decay
    strength   sigma of the nodes, probability of dropout, or weight decay
    architecture    "fully_connected", three hidden ReLU layers of `width`; "convolutional", two ReLU convolutions of
               16 and 32 channels, stride 2, and a hidden layer of `width`
    lr, batch_size, steps    of plain SGD
    """

    method: str = "none"
    strength: float = 0.0
    architecture: str = "fully_connected"
    width: int = 128
    lr: float = 0.05
    batch_size: int = 128
    steps: int = 1500

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_choice("architecture", self.architecture, ARCHITECTURES)
        check_number("strength", self.strength)
        if self.method == "dropout" and self.strength >= 1:
            raise ValueError(f"strength={self.strength!r} of dropout is a probability and must be below 1.")
        check_number("lr", self.lr, exclusive=True)
        for name in ("width", "batch_size", "steps"):
            check_count(name, getattr(self, name))


def build(recipe: Recipe, inputs: int, classes: int, seed: int) -> nn.Module:
    """The network of a recipe, He initialised from the seed: methods that share a seed share initial weights."""
    drop = recipe.strength if recipe.method == "dropout" else 0.0
    generator = torch.Generator().manual_seed(seed)
    if recipe.architecture == "convolutional":
        side = int(inputs**0.5)
        reduced = -(-side // 4)
        layers = [
            nn.Unflatten(1, (1, side, side)), nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(drop),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(drop), nn.Flatten(),
            nn.Linear(32 * reduced**2, recipe.width), nn.ReLU(), nn.Dropout(drop), nn.Linear(recipe.width, classes),
        ]  # fmt: skip
    else:
        layers, width = [], inputs
        for _ in range(3):
            layers += [nn.Linear(width, recipe.width), nn.ReLU(), nn.Dropout(drop)]
            width = recipe.width
        layers.append(nn.Linear(width, classes))
    network = nn.Sequential(*layers)
    he_initialise(network, generator)
    return network


def fit(
    recipe: Recipe, data: Dataset, *, seed: int, keep: Sequence[int] | Int[Tensor, " kept"] | None = None
) -> nn.Module:
    """Train a network by a recipe on the training samples (those in `keep`); return it in eval mode, without nodes.

    The nodes' noise is redrawn for every sample in every epoch (arXiv 2210.15764: adaptive noise injection); their
    initial weights have a norm of about one. Raises ValueError for a batch larger than the training set.
    """
    x, y = (data.x_train, data.y_train) if keep is None else (data.x_train[keep], data.y_train[keep])
    if recipe.batch_size > len(x):
        raise ValueError(f"batch_size={recipe.batch_size} is larger than the training set of {len(x)}.")
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator when they are made
        network = build(recipe, x.shape[1], data.classes, seed).to(x)
    layers = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][:-1]
    model = network
    if recipe.method.startswith("nin"):
        chosen = layers[:1] if recipe.method == "nin_input" else layers
        generator = torch.Generator().manual_seed(seed + 1)
        model = inject(network, chosen, sigma=recipe.strength, example=x[:2], generator=generator)
    decay = recipe.strength if recipe.method == "l2" else 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, weight_decay=decay)
    model.train()
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(seed)
        for rows, noise in _batches(model, recipe, len(x), seed):
            outputs = model(x[rows]) if noise is None else model(x[rows], noise)
            optimizer.zero_grad()
            F.cross_entropy(outputs, y[rows]).backward()
            optimizer.step()
    return network.eval()


def fit_each(
    recipes: Mapping[str, Recipe], data: Dataset, *, seeds: Sequence[int], progress: bool = False
) -> dict[str, list[nn.Module]]:
    """`fit` one network for each recipe and seed; the result can be passed to `evaluate`."""
    cases = [(name, recipe, seed) for name, recipe in recipes.items() for seed in seeds]
    networks: dict[str, list[nn.Module]] = {name: [] for name in recipes}
    for name, recipe, seed in ProgressBar(cases, progress=progress, desc="training", unit="network"):
        networks[name].append(fit(recipe, data, seed=seed))
    return networks


def _batches(
    model: nn.Module, recipe: Recipe, count: int, seed: int
) -> Iterator[tuple[Tensor, Tensor | Mapping[str, Tensor] | None]]:
    order, step = torch.Generator().manual_seed(seed + 2), 0
    while True:
        permutation = torch.randperm(count, generator=order)
        eps = model.draw(count) if isinstance(model, NoisyNetwork) else None
        for start in range(0, count - recipe.batch_size + 1, recipe.batch_size):
            if step == recipe.steps:
                return
            rows, step = permutation[start : start + recipe.batch_size], step + 1
            if isinstance(eps, Mapping):
                yield rows, {layer: noise[rows] for layer, noise in eps.items()}
            else:
                yield rows, None if eps is None else eps[rows]


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

    Columns: method, strength, clean, noisy (accuracy under Gaussian noise of strength `noise`), mean of the two, all
    over seeds; best marks each method's strength with the largest mean. "none" has no strength and is not tuned.
    """
    held = torch.arange(len(data.x_train)) % VALIDATION == 0
    kept, pixels = (~held).nonzero().squeeze(1), Pixels.of(data)
    x, y = data.x_train[held], data.y_train[held]
    worse = corrupt(x, "gaussian", noise, pixels=pixels, seed=1)
    rows = []
    cases = [(method, strength) for method, grid in grids.items() for strength in grid]
    for method, strength in ProgressBar(cases, progress=progress, desc="tuning", unit="setting"):
        recipe = replace(base, method=method, strength=strength)
        networks = [fit(recipe, data, seed=seed, keep=kept) for seed in seeds]
        clean, noisy = (np.mean([score(network, part, y) for network in networks]) for part in (x, worse))
        rows.append((method, strength, clean, noisy, (clean + noisy) / 2))
    table = pd.DataFrame(rows, columns=["method", "strength", "clean", "noisy", "mean"])
    return table.assign(best=table.groupby("method")["mean"].transform("idxmax") == table.index)


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

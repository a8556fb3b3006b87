"""Recipes of robust learning: a network, a method against noise, and its training by plain SGD."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from nin.model.dataset import Dataset
from nin.model.injection import inject
from nin.model.networks import he_initialise
from nin.model.nodes import NoisyNetwork
from nin.support.arguments import check_choice, check_count, check_number
from nin.support.randomness import kept_randomness, own_randomness

Watch = Callable[[int, nn.Module], None]

NODES = ("nin_input", "nin_fixed", "nin_frozen", "nin_layers")
METHODS = ("none", *NODES, "gaussian", "dropout", "l2")
ARCHITECTURES = ("fully_connected", "convolutional")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    method     "none"; "nin_input": a node at the first layer; "nin_fixed": the same, with noise that is drawn once for
               each sample; "nin_frozen": the same, with W_NI that is not trained; "nin_layers": a node at every layer
               but the last; "gaussian": Gaussian noise on the inputs, re-drawn for every pixel and step; "dropout":
               after every hidden layer; "l2": weight decay
    strength   sigma of the nodes, standard deviation of the noise on the inputs as a fraction of their range (in
               images: from black to white), probability of dropout, or weight decay
    architecture    "fully_connected", three hidden ReLU layers of `width`; "convolutional", two ReLU convolutions of
               `channels` and twice as many, stride 2, and a hidden layer of `width`
    lr, batch_size, steps    of plain SGD
    """

    method: str = "none"
    strength: float = 0.0
    architecture: str = "fully_connected"
    width: int = 128
    channels: int = 16
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
        for name in ("width", "channels", "batch_size", "steps"):
            check_count(name, getattr(self, name))


def build(recipe: Recipe, inputs: int, classes: int, seed: int) -> nn.Module:
    """The network of a recipe, He initialised from the seed: methods that share a seed share initial weights."""
    drop = recipe.strength if recipe.method == "dropout" else 0.0
    generator = torch.Generator().manual_seed(seed)
    if recipe.architecture == "convolutional":
        side = int(inputs**0.5)
        reduced, few = -(-side // 4), recipe.channels
        layers = [
            nn.Unflatten(1, (1, side, side)), nn.Conv2d(1, few, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(drop),
            nn.Conv2d(few, 2 * few, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(drop), nn.Flatten(),
            nn.Linear(2 * few * reduced**2, recipe.width), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(recipe.width, classes),
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


def start(recipe: Recipe, x: Tensor, classes: int, seed: int) -> tuple[nn.Module, nn.Module]:
    """The network of a recipe before training, and the model that is trained: the network, or the network with nodes.

    The nodes' initial weights have a norm of about one.
    """
    with kept_randomness():  # torch's layers draw from the global generator when they are made
        network = build(recipe, x.shape[1], classes, seed).to(x)
    if recipe.method not in NODES:
        return network, network
    layers = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][:-1]
    chosen = layers if recipe.method == "nin_layers" else layers[:1]
    generator = torch.Generator().manual_seed(seed + 1)
    noisy = inject(network, chosen, sigma=recipe.strength, example=x[:2], generator=generator)
    if recipe.method == "nin_frozen":
        noisy.niw.requires_grad_(False)
    return network, noisy


def fit(
    recipe: Recipe,
    data: Dataset,
    *,
    seed: int,
    keep: Sequence[int] | Int[Tensor, " kept"] | None = None,
    watch: Watch | None = None,
) -> nn.Module:
    """Train a network by a recipe on the training samples (those in `keep`); return it in eval mode, without nodes.

    The nodes' noise is redrawn for every sample in every epoch (arXiv 2210.15764: adaptive noise injection), unless the
    method says otherwise.
    watch  called as watch(step, model) before the first step (step 0) and after each one; it must not change the model
    Raises ValueError for a batch larger than the training set.
    """
    x, y = (data.x_train, data.y_train) if keep is None else (data.x_train[keep], data.y_train[keep])
    if recipe.batch_size > len(x):
        raise ValueError(f"batch_size={recipe.batch_size} is larger than the training set of {len(x)}.")
    network, model = start(recipe, x, data.classes, seed)
    decay = recipe.strength if recipe.method == "l2" else 0.0
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=recipe.lr, weight_decay=decay)
    blur = recipe.strength * (x.max() - x.min()) if recipe.method == "gaussian" else None
    generator = torch.Generator().manual_seed(seed + 1)
    model.train()
    if watch:
        watch(0, model)
    with own_randomness(seed):  # dropout draws from the global generator
        for step, (rows, noise) in enumerate(_batches(model, recipe, len(x), seed), start=1):
            inputs = x[rows]
            if blur is not None:
                inputs = inputs + blur * torch.randn(inputs.shape, generator=generator).to(inputs)
            outputs = model(inputs) if noise is None else model(inputs, noise)
            optimizer.zero_grad()
            F.cross_entropy(outputs, y[rows]).backward()
            optimizer.step()
            if watch:
                watch(step, model)
    return network.eval()


def _batches(
    model: nn.Module, recipe: Recipe, count: int, seed: int
) -> Iterator[tuple[Tensor, Tensor | Mapping[str, Tensor] | None]]:
    order, step, eps = torch.Generator().manual_seed(seed + 2), 0, None
    while True:
        permutation = torch.randperm(count, generator=order)
        if isinstance(model, NoisyNetwork) and (eps is None or recipe.method != "nin_fixed"):
            eps = model.draw(count)
        for start in range(0, count - recipe.batch_size + 1, recipe.batch_size):
            if step == recipe.steps:
                return
            rows, step = permutation[start : start + recipe.batch_size], step + 1
            if isinstance(eps, Mapping):
                yield rows, {layer: noise[rows] for layer, noise in eps.items()}
            else:
                yield rows, None if eps is None else eps[rows]

"""Small image networks as sequences of layers: fully connected, strided, LeNet-like, VGG-like, residual."""

import itertools
from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from nin.model.evaluating import evaluating
from nin.model.networks import he_initialise
from nin.support.arguments import check_choice, check_count, check_number
from nin.support.randomness import kept_randomness

ARCHITECTURES = ("fully_connected", "strided", "strided_gap", "lenet", "vgg", "vgg_gap", "vgg9", "residual_gap")
VGG9 = ((1, 1), (2, 2), (4, 4), (4, 4, 4))  # channels of the convolutions between poolings, in units of the first


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """An image network and its training by Adam on the cross-entropy.

    architecture    fully_connected: three hidden layers of 128. strided: three 3 x 3 convolutions of stride 2. lenet:
                    two 5 x 5 convolutions with max pooling, two hidden layers (LeCun et al. 1998, with ReLU). vgg: two
                    pairs of 3 x 3 convolutions with batch norm, each followed by max pooling. vgg9: nine of these
                    convolutions and four poolings (`VGG9`), down to one pixel of 28. _gap: global average pooling
                    before the last layer, instead of all pixels. residual: a 3 x 3 stem of stride 2, three
                    `ResidualBlock`s
    channels        of the first convolution (strided, vgg: doubled after the first downsampling; vgg9: up to four times
                    as many; residual: of every layer)
    noise           standard deviation of Gaussian noise on the training images, in units of standardised pixels
    epochs, lr, batch_size    of Adam; ours: with them all architectures learn 2,000 Fashion-MNIST images in seconds
    """

    architecture: str = "vgg_gap"
    channels: int = 16
    noise: float = 0.0
    epochs: int = 8
    lr: float = 2e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_choice("architecture", self.architecture, ARCHITECTURES)
        check_number("noise", self.noise)
        check_number("lr", self.lr, exclusive=True)
        check_count("epochs", self.epochs, minimum=0)
        for name in ("channels", "batch_size"):
            check_count(name, getattr(self, name))


def build(recipe: ImageRecipe, side: int, classes: int, *, seed: int) -> nn.Sequential:
    """The network of a recipe for images (batch, 1, side, side), He initialised from the seed; biases start at 0.

    Its children are its layers, including activation and pooling: conv1, ..., dense1, ..., head. Channels lie last in
    memory, where batch norm and pooling of so few of them are faster: training takes a fifth less time.
    """
    check_count("side", side, minimum=16 if recipe.architecture == "vgg9" else 8)
    with kept_randomness():  # torch's layers draw from the global generator on construction
        blocks = _blocks(recipe, side)
        body = nn.Sequential(OrderedDict(blocks))
        with evaluating(body), torch.no_grad():
            width = body(torch.zeros(1, 1, side, side)).numel()
        head = nn.Sequential(nn.Flatten(), nn.Linear(width, classes))
        network = nn.Sequential(OrderedDict([*blocks, ("head", head)]))
    he_initialise(network, torch.Generator().manual_seed(seed))
    return network.to(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """x + branch(x) with batch norm and ReLU only inside the branch (He et al. 2016): the stream stays linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _blocks(recipe: ImageRecipe, side: int) -> list[tuple[str, nn.Module]]:
    c = recipe.channels
    kind, gap, _ = recipe.architecture.partition("_gap")
    if kind == "fully_connected":
        sizes = [(side**2, 128), (128, 128), (128, 128)]
        dense = [nn.Sequential(nn.Flatten(), nn.Linear(*size), nn.ReLU()) for size in sizes]
        return [(f"dense{k}", layer) for k, layer in enumerate(dense, 1)]
    if kind == "lenet":
        small = (side - 4) // 2
        flat = 16 * ((small - 4) // 2) ** 2
        return [
            ("conv1", nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2))),
            ("conv2", nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2))),
            ("dense1", nn.Sequential(nn.Flatten(), nn.Linear(flat, 120), nn.ReLU())),
            ("dense2", nn.Sequential(nn.Linear(120, 84), nn.ReLU())),
        ]
    if kind == "residual":
        blocks = [(f"block{k}", ResidualBlock(c)) for k in (1, 2, 3)]
        stem = nn.Conv2d(1, c, 3, stride=2, padding=1)
        blocks = [("stem", stem), *blocks]
    elif kind == "strided":
        sizes = [(1, c), (c, 2 * c), (2 * c, 2 * c)]
        layers = [nn.Sequential(nn.Conv2d(*size, 3, stride=2, padding=1), nn.ReLU()) for size in sizes]
        blocks = [(f"conv{k}", layer) for k, layer in enumerate(layers, 1)]
    else:
        stages = VGG9 if kind == "vgg9" else VGG9[:2]
        sizes = itertools.pairwise([1, *(c * width for stage in stages for width in stage)])
        layers = [nn.Sequential(nn.Conv2d(*size, 3, padding=1), nn.BatchNorm2d(size[1]), nn.ReLU()) for size in sizes]
        for end in itertools.accumulate(map(len, stages)):
            layers[end - 1].append(nn.MaxPool2d(2))
        blocks = [(f"conv{k}", layer) for k, layer in enumerate(layers, 1)]
    return [*blocks, ("pool", nn.AdaptiveAvgPool2d(1))] if gap else blocks


def fit_images(
    recipe: ImageRecipe,
    x: Float[Tensor, "n 1 side side"],
    y: Int[Tensor, " n"],
    *,
    classes: int,
    seed: int,
) -> nn.Sequential:
    """Train a network by a recipe; the seed sets weights, order and noise. It is returned in eval mode."""
    network = build(recipe, x.shape[-1], classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(recipe.batch_size):
            if len(rows) < 2:  # batch norm needs two
                continue
            inputs = x[rows]
            if recipe.noise:
                inputs = inputs + recipe.noise * torch.randn(inputs.shape, generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), y[rows]).backward()
            optimizer.step()
    return network.eval()


class SmallConvolutional(nn.Sequential):
    """ReLU network on rows of side^2 pixels: two 3 x 3 convolutions of stride 2 (c, 2 c channels), 64 units, head."""

    def __init__(self, side: int = 28, channels: int = 8, classes: int = 10) -> None:
        last = (side + 3) // 4
        layers = [
            ("image", nn.Unflatten(1, (1, side, side))),
            ("conv1", nn.Conv2d(1, channels, 3, stride=2, padding=1)), ("act1", nn.ReLU()),
            ("conv2", nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)), ("act2", nn.ReLU()),
            ("flat", nn.Flatten()), ("dense", nn.Linear(2 * channels * last**2, 64)), ("act3", nn.ReLU()),
            ("head", nn.Linear(64, classes)),
        ]  # fmt: skip
        super().__init__(OrderedDict(layers))
        he_initialise(self, None)

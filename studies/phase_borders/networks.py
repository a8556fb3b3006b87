"""The networks, data and settings over which measured borders are compared with predicted ones."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nin.model.data import available, load_data
from nin.model.dataset import Dataset
from nin.model.networks import he_initialise
from nin.training.config import RunConfig
from studies.image_networks import SmallConvolutional

# Noise re-drawn at each step, as the control numbers assume; 50 steps, within which a spike counts.
BASE = RunConfig(resample="step", steps=50, curvature_pairs=1, eval_points=0, eval_samples=256)
IMAGES, TEST_IMAGES = 2000, 500  # of MNIST and Fashion-MNIST: about as many as there are digits
# Of eta_1(sigma) / eta_1(0): noise scales at which the node, and not plain SGD, makes the catapult.
RATIOS, ONE = (0.3, 0.05), (0.1,)
BOUNDED = (10.0, 100.0)  # where a norm or tanh limits what any noise does, so that those ratios are out of reach

Factory = Callable[[], nn.Module]


@dataclass(frozen=True)
class Case:
    """One setting, which differs from BASE in one respect, and the noise scales at which its borders are measured.

    group    the respect in which it differs
    changes  the fields of BASE that differ;  network  a factory in place of the config's network
    ratios   eta_1(sigma) / eta_1(0) of the noise scales;  sigmas  noise scales in place of those
    plain    whether sigma = 0, plain SGD, is measured as well
    """

    name: str
    group: str
    changes: dict[str, Any] = field(default_factory=dict)
    network: Factory | None = None
    ratios: tuple[float, ...] = RATIOS
    sigmas: tuple[float, ...] | None = None
    plain: bool = False

    @property
    def config(self) -> RunConfig:
        """The run of the case; sigma, seed and lr are those of BASE."""
        return BASE.replace(**self.changes)

    @property
    def available(self) -> bool:
        """Whether the data are there without a download."""
        return available(self.config.dataset)

    def data(self) -> Dataset:
        """The data of the case; of MNIST and Fashion-MNIST a balanced subset."""
        name = self.config.dataset
        return load_data(name) if name == "digits" else load_data(name, n_train=IMAGES, n_test=TEST_IMAGES)


def cases() -> list[Case]:
    """All cases: one respect at a time around digits, 64-128-128-128-10 ReLU, cross-entropy, |B| = 128, Gaussian noise.

    Ahead of a norm, no noise scale lowers eta_1 tenfold; the node of the GroupNorm network therefore feeds the last
    block.
    The noise scales of small W_NI are those of the base: noise that would lower eta_1 there has to be 1000 times
    stronger, while W_NI grows within a few steps.
    """
    width, default = 128, 128**-0.5
    return [
        Case("base", "base", ratios=(0.6, 0.3, 0.1, 0.02), plain=True),
        Case("gelu", "activation", network=gelu_mlp),
        Case("tanh", "activation", {"activation": "tanh"}, plain=True),
        Case("softplus", "activation", {"activation": "softplus"}),
        Case("convolutional", "architecture", {"layer": "conv2"}, small_convolutional, plain=True),
        Case("convolutional, dense layer", "architecture", {"layer": "dense"}, small_convolutional, ratios=ONE),
        Case("residual, LayerNorm", "architecture", {"layer": "blocks.0.up"}, ResidualMLP),
        Case("residual, GroupNorm", "architecture", {"layer": "blocks.1.second"}, ResidualConvolutional, ratios=ONE),
        Case("transformer, MLP", "architecture", {"layer": "blocks.0.up"}, Transformer, plain=True, sigmas=BOUNDED),
        Case("transformer, embedding", "architecture", {"layer": "embed"}, Transformer, sigmas=BOUNDED),
        Case("mse", "loss", {"loss": "mse"}, plain=True),
        Case("mse, tanh", "loss", {"loss": "mse", "activation": "tanh"}, sigmas=BOUNDED),
        Case("W_NI x 0.001", "niw_std", {"niw_std": 1e-3 * default}, sigmas=(10.0, 30.0)),
        Case("W_NI x 0.03", "niw_std", {"niw_std": 0.03 * default}, sigmas=(10.0, 30.0)),
        Case("W_NI x 0.3", "niw_std", {"niw_std": 0.3 * default}, ratios=ONE),
        Case("W_NI x 3", "niw_std", {"niw_std": 3 * default}),
        Case("momentum 0.9", "optimiser", {"momentum": 0.9}),
        Case("Adam", "optimiser", {"optimizer": "adam"}, sigmas=(10.0, 100.0)),
        Case("layer 1", "layer", {"layer": 1}),
        Case("layer 2", "layer", {"layer": 2}, ratios=ONE),
        Case("layer 3, the output", "layer", {"layer": 3}, ratios=ONE),
        Case("width 32", "width", {"widths": (32,) * 3}),
        Case("depth 1", "depth", {"widths": (width,)}, ratios=ONE),
        Case("depth 2", "depth", {"widths": (width,) * 2}, ratios=ONE),
        Case("depth 6", "depth", {"widths": (width,) * 6}, ratios=ONE),
        Case("batch 32", "batch", {"batch_size": 32}, plain=True),
        Case("batch 1024", "batch", {"batch_size": 1024}, ratios=ONE),
        Case("uniform", "law", {"law": "uniform"}, ratios=ONE),
        Case("Rademacher", "law", {"law": "rademacher"}, ratios=ONE),
        Case("MNIST", "data", {"dataset": "mnist"}, ratios=ONE),
        Case("Fashion-MNIST", "data", {"dataset": "fashion_mnist"}, ratios=ONE),
        Case("width 512", "width", {"widths": (512,) * 2}, ratios=ONE),
    ]


def small_convolutional() -> nn.Module:
    """Two 3 x 3 convolutions of stride 2 (8, 16 channels) on the digits, 64 units, head; He initialised."""
    return SmallConvolutional(side=8)


def gelu_mlp(inputs: int = 64, width: int = 128, depth: int = 3, classes: int = 10) -> nn.Sequential:
    """Hidden layers of equal width with GELU, He initialised."""
    sizes = [inputs, *[width] * depth]
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.GELU())]
    network = nn.Sequential(*hidden, nn.Linear(width, classes))
    he_initialise(network, None)
    return network


class ResidualMLP(nn.Module):
    """h + W_2 relu(W_1 LN(h)), three times, between an input layer and a head; PyTorch's default initial weights."""

    def __init__(self, inputs: int = 64, width: int = 64, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(FeedForward(width, nn.ReLU()) for _ in range(blocks))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)  # (*batch, width)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


class FeedForward(nn.Module):
    """h + down(phi(up(LN(h)))), with twice the width inside."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm, self.up, self.activation = nn.LayerNorm(width), nn.Linear(width, 2 * width), activation
        self.down = nn.Linear(2 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.down(self.activation(self.up(self.norm(h))))


class ResidualConvolutional(nn.Module):
    """Images of side^2 pixels: a 3 x 3 stem of stride 2, two residual blocks with GroupNorm, average pooling, head."""

    def __init__(self, side: int = 8, channels: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.image = nn.Unflatten(1, (1, side, side))
        self.stem = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ConvolutionalBlock(channels) for _ in range(2))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(self.image(x))  # (batch, channels, side / 2, side / 2)
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean((2, 3)))


class ConvolutionalBlock(nn.Module):
    """h + second(relu(GN(first(relu(GN(h)))))), 3 x 3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(2, channels) for _ in range(2))
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(F.relu(self.norm2(self.first(F.relu(self.norm1(h))))))


class Transformer(nn.Module):
    """The rows of an image as tokens: embedding, one block of attention and GELU MLP with LayerNorm, mean, head."""

    def __init__(self, side: int = 8, width: int = 32, heads: int = 4, blocks: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.rows = nn.Unflatten(1, (side, side))
        self.embed = nn.Linear(side, width)
        self.position = nn.Parameter(0.02 * torch.randn(side, width))
        self.attention = nn.ModuleList(Attention(width, heads) for _ in range(blocks))
        self.blocks = nn.ModuleList(FeedForward(width, nn.GELU()) for _ in range(blocks))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(self.rows(x)) + self.position  # (batch, tokens, width)
        for attention, block in zip(self.attention, self.blocks, strict=True):
            h = block(attention(h))
        return self.head(h.mean(1))


class Attention(nn.Module):
    """h + out(softmax(q k^T / sqrt d) v), q, k, v linear in LN(h); nn.MultiheadAttention would hide its last layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        parts = self.qkv(self.norm(h)).unflatten(-1, (3, self.heads, -1))  # (batch, tokens, 3, heads, d)
        q, k, v = parts.movedim(-3, 0).movedim(-3, -2).unbind()  # (batch, heads, tokens, d) each
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return h + self.out((weights @ v).movedim(-2, -3).flatten(-2))

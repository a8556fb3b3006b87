"""Networks of linear layers, norms and embeddings, and weights that are tied, shared, aliased, computed or frozen."""

import torch
from kinds import RELU, Kind, seeded, tokens, values
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

X, Y = values(8, 5), torch.arange(8) % 3
IMAGES = values(8, 2, 6, 6)


def mlp(activation: type[nn.Module] = nn.Tanh, norm: nn.Module | None = None, dropout: float = 0.0) -> nn.Module:
    middle = [layer for layer in (norm, nn.Dropout(dropout) if dropout else None) if layer is not None]
    return nn.Sequential(nn.Linear(5, 6), activation(), *middle, nn.Linear(6, 4), activation(), nn.Linear(4, 3))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Shared(nn.Module):
    """A layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.cell(torch.tanh(self.cell(x)))))


class Aliased(nn.Module):
    """`enc` is also the first module of `body`."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(5, 5)
        self.body = nn.Sequential(self.enc, nn.Tanh())
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Scaled(nn.Module):
    """A residual branch times a parameter without axes, as in ReZero; CLIP has one, too."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.branch, self.head = nn.Parameter(torch.tensor(0.5)), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.scale * torch.tanh(self.branch(x)))


class Bag(nn.Module):
    """The mean of embedded tokens, read by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.embed(ids)).mean(1)))


class Mixer(nn.Module):
    """One block of an MLP mixer: patches of 3 x 3, mixed over tokens and then over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=3)
        self.norms = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])
        self.tokens = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 4))
        self.channels = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).flatten(2).mT  # (n, tokens, channels)
        h = h + self.tokens(self.norms[0](h).mT).mT
        h = h + self.channels(self.norms[1](h))
        return self.head(h.mean(1))


def frozen() -> nn.Module:
    network = seeded(mlp())
    network[0].requires_grad_(False)
    return network


def parametrised(norm) -> nn.Module:
    network = mlp()
    network[2] = norm(network[2])
    with torch.no_grad():
        network(X.float())  # spectral norm: a power iteration
    return seeded(network)


KINDS = [
    Kind("MLP, tanh", lambda: seeded(mlp()), X, Y, "0", neurons="0"),
    Kind("MLP, ReLU", lambda: seeded(mlp(nn.ReLU)), X, Y, "2", neurons="2", step=RELU),
    Kind("BatchNorm", lambda: seeded(mlp(norm=nn.BatchNorm1d(6))), X, Y, "0", neurons="0"),
    Kind("LayerNorm", lambda: seeded(mlp(norm=nn.LayerNorm(6))), X, Y, "0", neurons="0"),
    Kind("dropout", lambda: seeded(mlp(dropout=0.5)), X, Y, "0", neurons="0"),
    Kind("embedding", lambda: seeded(Bag()), tokens(8, 4, vocabulary=7), Y, "embed", neurons="hidden"),
    Kind("tied weights", lambda: seeded(Tied()), X, Y, "second", neurons="second"),
    Kind("shared layer", lambda: seeded(Shared()), X, Y, "cell", calls="same", neurons="last"),
    Kind("aliased module", lambda: seeded(Aliased()), X, Y, "body.0", neurons="enc"),
    Kind("spectral norm", lambda: parametrised(spectral_norm), X, Y, "2", neurons="2"),
    Kind("weight norm", lambda: parametrised(weight_norm), X, Y, "2", neurons="2"),
    Kind("scalar parameter", lambda: seeded(Scaled()), X, Y, "branch", neurons="branch"),
    Kind("frozen layer", frozen, X, Y, "0", neurons="0"),
    Kind("mixer", lambda: seeded(Mixer()), IMAGES, Y, "tokens.0", neurons="channels.0"),
]

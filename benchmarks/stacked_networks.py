"""Is a network of one's own trained faster in a stack (torch.func.vmap) or one run after the other?"""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nin
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.training.batches import StackedBatches, batches
from nin.training.ensemble import Ensemble
from nin.training.objective import Objective
from nin.training.one_by_one import OneByOne
from nin.training.start import members
from nin.training.together import why_alone
from nin.training.updates import Stack, Updates

COUNTS = (1, 2, 4, 8, 16)
BATCH, SAMPLES = 32, 512
ROUNDS = 5
SECONDS = 0.1  # of a timing of the loop


def convolutional() -> nn.Module:
    """Two strided convolutions and a linear layer for images of 28 x 28: 4 million multiply-adds for a batch."""
    first, second = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 10))


class Transformer(nn.Module):
    """One block of width 64 on 16 tokens, and a linear layer on their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(32, 64)
        self.block = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.tokens(x)).mean(1))


class Residual(nn.Module):
    """relu(skip(x) + branch(x)) with two convolutions and group norm in the branch."""

    def __init__(self, into: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(into, channels, 3, stride=stride, padding=1, bias=False), nn.GroupNorm(4, channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(4, channels),
        )  # fmt: skip
        self.skip = nn.Identity() if into == channels else nn.Conv2d(into, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.branch(x))


def residual(channels: int) -> nn.Module:
    """A ResNet of three blocks for colour images of 32 x 32."""
    stages = [
        Residual(channels, channels),
        Residual(channels, 2 * channels, 2),
        Residual(2 * channels, 4 * channels, 2),
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * channels, 10)]
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *stages, *head)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {  # network, shape of a sample, layer
    "convolutional": (convolutional, (1, 28, 28), "0"),
    "transformer block": (Transformer, (16,), "block.linear1"),
    "ResNet, 4 channels": (partial(residual, 4), (3, 32, 32), "0"),
    "ResNet, 16 channels": (partial(residual, 16), (3, 32, 32), "0"),
}


def run() -> str:
    """One table: milliseconds per member and step, three ways; ratios within each round."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # of a stack that nin.train would not make
        rows = [row for name in CASES for row in _rows(name)]
    columns = ("network", "runs", "loop (ms)", "one by one (ms)", "stack (ms)", "loop / one by one", "loop / stack")
    return (
        "Batches of 32, float32, one thread; milliseconds per run and step. The loop is one that a user would write,\n"
        "for each run in turn. Ratios: median of five rounds (smallest-largest). Bold: what nin.train takes, by\n"
        "a count of multiply-adds, the same for any number of runs and on any machine.\n\n" + table(columns, rows)
    )


def _rows(name: str) -> list[tuple[str, ...]]:
    build, shape, layer = CASES[name]
    data, rows = _data(shape), []
    for count in COUNTS:
        base = nin.RunConfig(layer=layer, lr=0.001, batch_size=BATCH, curvature_pairs=0, eval_samples=64)
        configs = [base.replace(sigma=0.1 + 0.01 * k) for k in range(count)]
        pairs = configs * 2 if count == 1 else configs  # a stack has at least two members
        ways = {
            "loop": _loop(configs, data, build),
            "one by one": _steps(OneByOne(members(configs, data, build)[0], configs), configs, data),
            "stack": _steps(Ensemble(members(pairs, data, build)[0]), pairs, data),
        }
        once = min(seconds(partial(ways["loop"], 1), on=1) for _ in range(2))
        steps = max(1, int(SECONDS / once))
        taken = in_turn({way: partial(seconds, partial(work, steps), on=1) for way, work in ways.items()}, ROUNDS)
        cost = {way: f"{1e3 * np.median(taken[way]) / steps / count:.2f}" for way in ways}
        chosen = "one by one" if why_alone(base, build(), data.x_train[:2]) else "stack"
        cost[chosen] = f"**{cost[chosen]}**"
        ratios = [spread(taken["loop"] / taken[way]) for way in ("one by one", "stack")]
        rows.append((name, str(count), *cost.values(), *ratios))
    return rows


def _data(shape: tuple[int, ...]) -> nin.Dataset:
    draws = torch.Generator().manual_seed(0)
    size = (SAMPLES, *shape)
    x = torch.randn(size, generator=draws) if len(shape) == 3 else torch.randint(32, size, generator=draws)
    y = torch.randint(10, (SAMPLES,), generator=draws)
    return nin.Dataset(x, y, x[:64], y[:64], 10, "random samples and labels")


def _loop(configs: list[nin.RunConfig], data: nin.Dataset, build: Callable[[], nn.Module]) -> Callable[[int], None]:
    networks = members(configs, data, build)[0]
    optimizers = [torch.optim.SGD(network.parameters(), lr=configs[0].lr) for network in networks]
    feeds = [batches(config, SAMPLES) for config in configs]

    def run(steps: int) -> None:
        for network, optimizer, feed, config in zip(networks, optimizers, feeds, configs, strict=True):
            for _ in range(steps):
                index, eps = next(feed)
                loss = F.cross_entropy(network(data.x_train[index], config.sigma * eps.float()), data.y_train[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return run


def _steps(stack: Stack, configs: list[nin.RunConfig], data: nin.Dataset) -> Callable[[int], None]:
    feed, updates, objective = StackedBatches(configs, data), Updates(configs, stack), Objective("cross_entropy")
    scale = updates.scale.float()

    def run(steps: int) -> None:
        for step in range(steps):
            stack.backward(*feed.next(), loss=objective, scale=scale)
            updates.step(step)

    return run

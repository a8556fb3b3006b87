"""What does a node cost in a training step of a user-defined network?"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nin
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread

BATCH, ROUNDS, STEPS = 128, 15, 20


def run() -> str:
    """One table: the time of a step with one node relative to that of the plain step."""
    torch.manual_seed(0)
    linear = nn.Sequential(
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
    convolutional = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip
    vectors, images = torch.randn(BATCH, 784), torch.randn(BATCH, 1, 28, 28)
    cases = [
        ("MLP 3 x 512, after the first layer", linear, "0", vectors, "<= 1.05"),
        ("MLP 3 x 512, after the second layer", linear, "2", vectors, "<= 1.05"),
        ("convolutions, before an inner one", convolutional, "2", images, "<= 1.10"),
        ("convolutions, before the first", convolutional, "0", images, ""),
    ]
    rows = []
    for name, model, layer, x, goal in cases:
        noisy = nin.inject(copy.deepcopy(model), layer, sigma=1.0, example=x[:2])
        plain, with_node = stepper(copy.deepcopy(model), x), stepper(noisy, x)
        taken = in_turn({"plain": partial(seconds, plain), "node": partial(seconds, with_node)}, ROUNDS)
        rows.append((name, f"{1e3 * taken['plain'].min() / STEPS:.2f}", spread(taken["node"] / taken["plain"]), goal))
    head = f"Batch {BATCH}, SGD, float32, noise drawn at every step; median of {ROUNDS} rounds (smallest-largest).\n\n"
    return head + table(("network and node", "plain step (ms)", "node / plain", "goal"), rows)


def stepper(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A function that takes STEPS training steps of a model."""
    optimizer, y = torch.optim.SGD(model.parameters(), lr=1e-3), torch.arange(BATCH) % 10

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return steps

"""One step of training, three ways: a loop that a user would write, our ensemble, and its bare matrix products."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nin
from nin.support.threads import threads_for
from nin.training.batches import StackedBatches
from nin.training.ensemble import Ensemble
from nin.training.start import members
from nin.training.updates import Updates

SAMPLES = 4096


@dataclass(frozen=True)
class Shape:
    """Three hidden layers of one width, a batch, the number of inputs; ten classes."""

    width: int
    batch: int
    inputs: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.inputs, self.width, self.width, self.width, 10

    @property
    def flops(self) -> int:
        """Of one member's step: products forward, for the weights, and for the activations, except the inputs."""
        pairs = list(pairwise(self.sizes))
        return 2 * self.batch * (3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1])

    def config(self, **changes: object) -> nin.RunConfig:
        return nin.RunConfig(widths=(self.width,) * 3, batch_size=self.batch, eval_samples=64, **changes)

    def data(self) -> nin.Dataset:
        draws = torch.Generator().manual_seed(0)
        x = torch.randn(SAMPLES, self.inputs, generator=draws)
        y = torch.randint(10, (SAMPLES,), generator=draws)
        return nin.Dataset(x, y, x[:64], y[:64], 10, "Gaussian samples, random labels")


class Noise(nn.Module):
    """A noise injection node as a layer of an nn.Sequential."""

    eps: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.niw = nn.Parameter(torch.randn(1, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.eps @ self.niw


def loop(shape: Shape, device: str = "cpu") -> Callable[[int], None]:
    """A loop over the steps of one run: nn.Sequential, torch.optim.SGD, data in memory."""
    data, width, noise = shape.data().to(torch.float32, device), shape.width, Noise(shape.width)
    network = nn.Sequential(
        nn.Linear(shape.inputs, width), noise, nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    eps = 3.0 * torch.randn(SAMPLES, 1, device=device)

    def run(steps: int) -> None:
        for _ in range(steps):
            batch = torch.randint(SAMPLES, (shape.batch,), device=device)
            noise.eps = eps[batch]
            loss = F.cross_entropy(network(data.x_train[batch]), data.y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def ensemble(shape: Shape, count: int, device: str = "cpu") -> tuple[Callable[[int], None], int | None]:
    """The steps of `count` runs of a sweep over sigma as in nin.train, nothing recorded; and the number of threads."""
    data = shape.data().to(torch.float32, device)
    configs = [shape.config(sigma=0.1 + 0.01 * k, lr=0.01) for k in range(count)]
    stack = Ensemble(members([config.replace(eval_samples=1) for config in configs], shape.data())[0], device=device)
    feed = StackedBatches(configs, data)
    updates = Updates(configs, stack)
    scale = updates.scale.to(data.x_train)

    def run(steps: int) -> None:
        for step in range(steps):
            x, y, noise = feed.next()
            loss = stack.backward(x, y, noise, loss="cross_entropy", scale=scale)
            if not math.isfinite(loss.sum()):
                raise FloatingPointError("a member diverged; the benchmark measures members that do not diverge")
            updates.step(step)

    return run, threads_for(shape.batch * count * max(a * b for a, b in pairwise(shape.sizes)))


def products(shape: Shape, count: int, device: str = "cpu") -> Callable[[int], None]:
    """Only the matrix products of the same step, each result kept in its own memory, as a step requires."""
    sizes, batch = shape.sizes, shape.batch
    weights = [torch.randn(count, b, a, device=device) for a, b in pairwise(sizes)]
    values, back, out, out_back = ([torch.randn(count, batch, a, device=device) for a in sizes] for _ in range(4))
    gradients = [torch.empty_like(weight) for weight in weights]

    def run(steps: int) -> None:
        for _ in range(steps):
            for layer, weight in enumerate(weights):
                torch.bmm(values[layer], weight.mT, out=out[layer + 1])
            for layer in reversed(range(len(weights))):
                torch.bmm(back[layer + 1].mT, values[layer], out=gradients[layer])
                if layer:
                    torch.bmm(back[layer + 1], weights[layer], out=out_back[layer])

    return run

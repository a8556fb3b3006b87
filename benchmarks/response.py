"""What do a grid of very simple networks and an exact kernel cost, compared with loops over networks and samples?"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.probes.response import kernel
from studies.training_response.measure import task
from studies.training_response.networks import LOSSES, SimpleNetworks, SimpleRecipe

STEPS, ROUNDS = 100_000, 3
SAMPLES = 64


def run() -> str:
    """Two tables: 72 networks for 10^5 steps of one sample; the kernel of 64 samples, 83,000 parameters."""
    recipe = SimpleRecipe()
    x, y = task("random", recipe)
    taken = in_turn(
        {
            "ours": partial(seconds, partial(_stacked, recipe, x, y, 2000), on=1),
            "loop": partial(seconds, partial(_one_by_one, recipe, x, y, 500), on=1),
        },
        ROUNDS,
    )
    whole = seconds(partial(_stacked, recipe, x, y, STEPS), on=1)
    nets = len(recipe.activations) * len(recipe.losses) * len(recipe.seeds)
    ratio = (taken["loop"] / 500 * nets) / (taken["ours"] / 2000)
    grid = table(
        ("72 networks, 10^5 steps", "seconds (goal 90)", "a loop over networks / ours"),
        [("stacked, gradients written out", f"{whole:.0f}", spread(ratio, 0))],
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    inputs, count = torch.randn(SAMPLES, 64), sum(p.numel() for p in model.parameters())
    kernels = in_turn(
        {
            "ours": partial(seconds, partial(kernel, model, inputs)),
            "samples": partial(seconds, partial(_per_sample, model, inputs)),
            "pairs": partial(seconds, partial(_per_pair, model, inputs[:16])),
        },
        5,
    )
    pairs = kernels["pairs"] * (SAMPLES / 16) ** 2
    rows = [
        (
            f"{SAMPLES} samples, {count} parameters", f"{np.median(kernels['ours']):.3f}",
            spread(kernels["samples"] / kernels["ours"], 1), spread(pairs / kernels["ours"], 0),
        )
    ]  # fmt: skip
    columns = ("exact kernel", "seconds (goal 1.5)", "a loop over samples / ours", "a loop over pairs / ours")
    return grid + "\n\n" + table(columns, rows)


def _stacked(recipe: SimpleRecipe, x: Tensor, y: Tensor, steps: int) -> None:
    list(SimpleNetworks(recipe).train(x, y, steps))


def _one_by_one(recipe: SimpleRecipe, x: Tensor, y: Tensor, steps: int) -> None:
    """One network with autograd and torch.optim, as a user would write it."""
    network = SimpleNetworks(recipe).module(0, 0, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(steps):
        k = step % x.shape[1]
        optimizer.zero_grad()
        LOSSES["ce"](network(x[0, k : k + 1])[:, 0], y[0, k : k + 1]).mean().backward()
        optimizer.step()


def _gradient(model: nn.Module, sample: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(model(sample[None]).sum(), list(model.parameters()))])


def _per_sample(model: nn.Module, x: Tensor) -> Tensor:
    """One backward pass per sample, then one product."""
    J = torch.stack([_gradient(model, sample) for sample in x])
    return J @ J.T


def _per_pair(model: nn.Module, x: Tensor) -> list[float]:
    """As in the definition: two gradients for each pair."""
    return [(_gradient(model, a) @ _gradient(model, b)).item() for a in x for b in x]

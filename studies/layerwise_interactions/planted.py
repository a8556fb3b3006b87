"""A task with known interactions: planted AND and OR terms of binary variables set the odds of two classes."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nin.model.networks import MLP
from nin.probes.interactions.comparison import agreement, changes, salient
from nin.probes.interactions.games import members
from nin.probes.interactions.games_of_layers import layer_games, layer_interactions
from nin.probes.interactions.readouts import fit_readouts, head_readout

VARIABLES = 8
PLANTED = {  # kind and coalition -> interaction; chosen to differ in order, sign and size
    ("and", (0, 1, 2)): 3.0,
    ("or", (3, 4)): 2.5,
    ("and", (5, 6)): -2.0,
    ("and", (7,)): 1.5,
}
BIAS = -2.0
LABELS = 16  # of each input, drawn for the layers' readouts


def coalition(variables: Sequence[int]) -> int:
    """The integer of a coalition: bit i = variable i."""
    return sum(1 << i for i in variables)


def planted_values() -> Float[Tensor, " coalitions"]:
    """v(T) = log-odds of class 1 where the variables in T are 1 and the others 0, (2^8,)."""
    T = torch.arange(2**VARIABLES)
    values = torch.full((len(T),), BIAS, dtype=torch.float64)
    for (kind, variables), size in PLANTED.items():
        S = coalition(variables)
        values += size * ((T & S == S) if kind == "and" else (T & S != 0))
    return values


def planted_interactions() -> Float[Tensor, "2 coalitions"]:
    """The planted interactions, (2, 2^8): AND, OR."""
    truth = torch.zeros(2, 2**VARIABLES, dtype=torch.float64)
    for (kind, variables), size in PLANTED.items():
        truth[int(kind == "or"), coalition(variables)] = size
    return truth


def fit_planted(*, seed: int, steps: int = 1500, width: int = 64, depth: int = 3) -> nn.Module:
    """An MLP trained by Adam on the exact probabilities of all 2^8 inputs, in float64."""
    generator = torch.Generator().manual_seed(seed)
    network = MLP(VARIABLES, (width,) * depth, 2, dtype=torch.float64, generator=generator)
    x = members(2**VARIABLES).double()
    p = planted_values().sigmoid()
    targets = torch.stack([1 - p, p], 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(x), targets).backward()
        optimizer.step()
    return with_hidden_layers(network).eval()


def with_hidden_layers(network: MLP) -> nn.Sequential:
    """The same network, sharing its weights: hidden1, hidden2, ... with their ReLU, and the linear `head`.

    The layers of an `MLP` are read before the activation; a linear head follows only after it.
    """
    *hidden, head = network.layers
    blocks = [(f"hidden{k}", nn.Sequential(layer, nn.ReLU())) for k, layer in enumerate(hidden, 1)]
    return nn.Sequential(OrderedDict([*blocks, ("head", head)]))


def recovered(seeds: Sequence[int], *, steps: int = 1500) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How much of the planted interactions each layer encodes for the input of all ones, before and after training.

    Layer "head": the last hidden layer, read by the network's own head instead of a fitted readout.

    First table: seed, state ("initial", "trained"), layer, iou (of the salient interactions, |I| > 5 % of the largest,
    with the planted ones), completeness (of the planted ones, in units of each layer's |v(N) - v(empty)|).
    Second table, one row for each planted term: seed, state, layer, kind, coalition (text), order, found, planted.
    """
    x = members(2**VARIABLES).double()
    generator = torch.Generator().manual_seed(0)
    draws = torch.bernoulli(planted_values().sigmoid().expand(LABELS, -1), generator=generator).long().T.flatten()
    one, label = torch.ones(1, VARIABLES, dtype=torch.float64), torch.ones(1, dtype=torch.long)
    patches = torch.eye(VARIABLES, dtype=torch.bool)[None]
    planted = planted_values()
    truth = (planted_interactions() / (planted[-1] - planted[0]).abs())[None, None]
    rows, terms = [], []
    for seed, (state, count) in itertools.product(seeds, (("initial", 0), ("trained", steps))):
        network = fit_planted(seed=seed, steps=count)
        layers = [name for name, _ in network.named_children()][:-1]
        readouts = fit_readouts(network, x.repeat_interleave(LABELS, 0), draws, layers, chunk=4096)
        reading = {"patches": patches, "baseline": torch.zeros_like(one[0])}
        games = layer_games(network, one, label, readouts=readouts, **reading)
        own = {layers[-1]: head_readout(network, layers[-1], "head", x, (planted > 0).long())}
        output = games.pop("output")
        games |= {"head": layer_games(network, one, label, readouts=own, **reading)[layers[-1]], "output": output}
        found = layer_interactions(games)
        strong = salient(found.scaled)
        completeness = changes(strong, truth)["completeness"]
        agree = agreement(strong, truth.expand_as(strong))
        for number, layer in enumerate(found.layers):
            where = (0, number, 2, 0)  # the one input, both kinds, all orders
            rows.append((seed, state, layer, agree.above[where], completeness.above[where] / completeness.below[where]))
            for (kind, variables), size in PLANTED.items():
                value = found.values[number, 0, int(kind == "or"), coalition(variables)].item()
                terms.append((seed, state, layer, kind, "".join(map(str, variables)), len(variables), value, size))
    columns = ["seed", "state", "layer", "kind", "coalition", "order", "found", "planted"]
    return (
        pd.DataFrame(rows, columns=["seed", "state", "layer", "iou", "completeness"]),
        pd.DataFrame(terms, columns=columns),
    )

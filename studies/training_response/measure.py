"""What notebook 08 measures on very simple networks: aging, splitting, annealing, features, fragility, plasticity."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from nin.probes.response.features import effective_rank, live_units, participation
from nin.probes.response.fragility import error_rate, flips, margin, weight_noise, worst_neuron
from nin.support.arguments import check_choice
from nin.support.progress import ProgressBar
from nin.support.threads import threads
from nin.training.schedule import log_spaced
from studies.training_response.networks import SimpleNetworks, SimpleRecipe, strings

TASKS = ("random", "xor", "sign")
CASE = ["seed", "activation", "loss"]


def task(name: str, recipe: SimpleRecipe, count: int = 64) -> tuple[Float[Tensor, "S n d"], Float[Tensor, "S n"]]:
    """Strings of +-1 with random labels, or the product of their first two bits ("xor"), their first bit ("sign")."""
    check_choice("name", name, TASKS)
    x = strings(count, recipe.inputs, recipe.seeds)
    if name == "random":
        drawn = [
            torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed + 2000)) for seed in recipe.seeds
        ]
        return x, 2.0 * torch.stack(drawn).double() - 1
    return x, x[..., 0] * x[..., 1] if name == "xor" else x[..., 0].clone()


def every_network(recipe: SimpleRecipe, values: dict[str, Float[Tensor, "S A L"]]) -> pd.DataFrame:
    """Tensors (S, A, L) as rows: seed, activation, loss, slot (place among the losses), and a column each."""
    seeds, activations, slots = (range(len(part)) for part in (recipe.seeds, recipe.activations, recipe.losses))
    index = pd.MultiIndex.from_product([seeds, activations, slots]).to_frame(index=False).to_numpy()
    table = pd.DataFrame(
        {
            "seed": [recipe.seeds[s] for s in index[:, 0]],
            "activation": [recipe.activations[a] for a in index[:, 1]],
            "loss": [recipe.losses[k] for k in index[:, 2]],
            "slot": index[:, 2],
        }
    )
    return table.assign(**{name: value.flatten().numpy() for name, value in values.items()})


def reading(
    networks: SimpleNetworks, x: Float[Tensor, "S n d"], y: Float[Tensor, "S n"], *, responders: int = 16
) -> pd.DataFrame:
    """Columns response (mean |R(x_i | x_i)|, exact), self_kernel, output_share, stability, train_loss, accuracy."""
    some, labels = x[:, :responders], y[:, :responders]
    f, own = networks.outputs(x), networks.factors(x)
    diagonal = own.whole.diagonal(dim1=-2, dim2=-1)  # (S, A, L, n)
    exact = networks.exact_responses(some, labels).diagonal(dim1=-2, dim2=-1)
    values = {
        "response": exact.abs().mean(-1),
        "self_kernel": diagonal.mean(-1),
        "output_share": (own.output.diagonal(dim1=-2, dim2=-1) / diagonal).mean(-1),
        "stability": networks.eta * diagonal.mean(-1),
        "train_loss": networks.losses(f, networks.for_each_loss(y)).mean(-1),
        "accuracy": (f.sign() == y[:, None, None].sign()).double().mean(-1),
    }
    return every_network(networks.recipe, values)


def along_training(
    recipe: SimpleRecipe,
    x: Float[Tensor, "S n d"],
    y: Float[Tensor, "S n"],
    steps: int,
    *,
    points: int = 30,
    responders: int = 16,
    progress: bool = False,
) -> tuple[pd.DataFrame, SimpleNetworks]:
    """Readings at log-spaced steps, with step and drift (|Theta - Theta_0| / |Theta_0|), and the trained networks."""
    networks, tables, start = SimpleNetworks(recipe), [], None
    due = log_spaced(steps, points)
    with threads(1):
        stops = networks.train(x, y, steps, at=due)
        for step in ProgressBar(stops, progress=progress, total=len(due), desc="training", unit="reading"):
            kernel = networks.factors(x).whole
            start = kernel if start is None else start
            drift = (kernel - start).flatten(3).norm(dim=3) / start.flatten(3).norm(dim=3)
            table = reading(networks, x, y, responders=responders)
            tables.append(table.assign(step=step, drift=drift.flatten().numpy()))
    return pd.concat(tables, ignore_index=True), networks


def slopes(table: pd.DataFrame, quantity: str, *, low: int, high: int) -> pd.DataFrame:
    """d ln quantity / d ln step between two steps, one fit per network: seed, activation, loss, slope, r2."""
    late = table[table["step"].between(low, high) & (table[quantity] > 0)]
    rows = []
    for case, part in late.groupby(CASE, sort=False):
        t, value = np.log(part["step"]), np.log(part[quantity])
        slope = np.polyfit(t, value, 1)[0]
        rows.append((*case, slope, np.corrcoef(t, value)[0, 1] ** 2))
    return pd.DataFrame(rows, columns=[*CASE, "slope", "r2"])


def by_distance(networks: SimpleNetworks, x: Float[Tensor, "S n d"]) -> pd.DataFrame:
    """The kernel of each network against Hamming distance, in units of the self-kernel: distance, value."""
    kernel = networks.factors(x).whole  # (S, A, L, n, n)
    kernel = kernel / kernel.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    distance = ((x[:, :, None] - x[:, None]).abs().sum(-1) / 2).round()  # (S, n, n)
    tables = []
    for d in sorted(distance.unique().tolist()):
        mask = (distance == d)[:, None, None].double()  # (S, 1, 1, n, n)
        mean = (kernel * mask).sum((-1, -2)) / mask.sum((-1, -2))  # (S, A, L)
        tables.append(every_network(networks.recipe, {"value": mean}).assign(distance=d))
    return pd.concat(tables, ignore_index=True).dropna(subset=["value"])


def splitting(recipe: SimpleRecipe, steps: int, *, points: int = 12, count: int = 32) -> pd.DataFrame:
    """y = sign x on a line: mean normalised kernel of pairs on the same side of 0 (within) and on both sides (across).

    Columns: those of `every_network`, step, within, across, ratio = (1 - across) / (1 - within).
    """
    recipe = replace(recipe, inputs=1)
    x = torch.linspace(-1, 1, count, dtype=torch.float64)[None, :, None].expand(len(recipe.seeds), -1, -1).contiguous()
    y = x[..., 0].sign()
    same = (y[:, :, None] == y[:, None]) & ~torch.eye(count, dtype=torch.bool)  # (S, n, n)
    networks, tables = SimpleNetworks(recipe), []
    with threads(1):
        for step in networks.train(x, y, steps, at=log_spaced(steps, points)):
            kernel = networks.factors(x).whole
            size = kernel.diagonal(dim1=-2, dim2=-1).sqrt()  # (S, A, L, n)
            kernel = kernel / (size[..., None] * size[..., None, :])
            within, across = (
                (kernel * mask[:, None, None]).sum((-1, -2)) / mask[0].sum()
                for mask in (same, y[:, :, None] != y[:, None])
            )
            table = every_network(recipe, {"within": within, "across": across, "ratio": (1 - across) / (1 - within)})
            tables.append(table.assign(step=step))
    return pd.concat(tables, ignore_index=True)


def features(networks: SimpleNetworks) -> pd.DataFrame:
    """effective_rank, participation and live_units of the hidden features on all 2^d strings, one row per network."""
    recipe = networks.recipe
    every = strings(2**recipe.inputs, recipe.inputs, recipe.seeds)
    h, _ = networks.hidden(every)  # (S, A, L, H, 2^d)
    measures = {"effective_rank": effective_rank, "participation": participation, "live_units": live_units}
    shape = networks.c.shape
    found = {name: torch.empty(shape, dtype=torch.float64) for name in measures}
    for place in np.ndindex(*shape):
        for name, measure in measures.items():
            found[name][place] = measure(h[place].T)
    return every_network(recipe, found)


def fragility(
    networks: SimpleNetworks, x: Float[Tensor, "S n d"], y: Float[Tensor, "S n"], *, noise: float = 0.5
) -> pd.DataFrame:
    """flips, worst_neuron, weight_noise, margin and the error of each network, as a module."""
    shape = networks.c.shape
    names = ("error", "flips", "worst_neuron", "weight_noise", "margin")
    found = {name: torch.empty(shape, dtype=torch.float64) for name in names}
    for place in np.ndindex(*shape):
        model, inputs, labels = networks.module(*place), x[place[0]], y[place[0]]
        generator = torch.Generator().manual_seed(0)
        found["error"][place] = error_rate(model(inputs).detach(), labels)
        found["flips"][place] = flips(model, inputs, noise=noise, generator=generator)
        found["worst_neuron"][place] = worst_neuron(model, inputs, labels, layer="1")
        found["weight_noise"][place] = weight_noise(model, inputs, labels, generator=generator)
        found["margin"][place] = margin(model, inputs)
    return every_network(networks.recipe, found)


def plasticity(
    recipe: SimpleRecipe,
    x: Float[Tensor, "S n d"],
    y: Float[Tensor, "S n"],
    befores: Sequence[int],
    *,
    cap: int,
    every: int = 20,
) -> pd.DataFrame:
    """Steps that networks need to relearn when all labels flip after some steps of training: before, relearning.

    Learned: every sample has the new sign, checked every `every` steps; `cap` if that is not reached.
    """
    networks, tables = SimpleNetworks(recipe), []
    with threads(1):
        for before in networks.train(x, y, max(befores), at=sorted(befores)):
            flipped = copy.deepcopy(networks)
            taken = torch.full(networks.c.shape, float(cap), dtype=torch.float64)
            for step in flipped.train(x, -y, cap, at=range(0, cap + 1, every)):
                right = (flipped.outputs(x).sign() == -y[:, None, None]).all(-1)
                taken[right & (taken == cap)] = step
                if (taken < cap).all():
                    break
            tables.append(every_network(recipe, {"relearning": taken}).assign(before=before))
    return pd.concat(tables, ignore_index=True)


def drift_by_width(recipe: SimpleRecipe, widths: Sequence[int], steps: int, *, eta: float = 0.02) -> pd.DataFrame:
    """The kernel's drift |Theta - Theta_0| / |Theta_0| in a run, against width: hidden, seed, activation, drift.

    The learning rate, eta at H = 64, falls as 1/H because the kernel of v ~ N(0, 1/H) grows with H.
    """
    tables = []
    for width in widths:
        wide = replace(recipe, hidden=width, eta=eta * 64 / width)
        x, y = task("random", wide, min(64, 2**wide.inputs))
        table, _ = along_training(wide, x, y, steps, points=2, responders=1)
        tables.append(table[table["step"] == steps].assign(hidden=width))
    return pd.concat(tables, ignore_index=True)


def balance(networks: SimpleNetworks) -> Float[Tensor, "S A L H"]:
    """v_j^2 - |w_j|^2 - b_j^2, which gradient flow conserves for ReLU (derived)."""
    return networks.v.square() - networks.w.square().sum(-1) - networks.b.square()

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
from nin.support.arguments import check_choice
from nin.support.progress import ProgressBar
from nin.support.threads import threads
from nin.training.schedule import log_spaced
from studies.training_response.networks import SimpleNetworks, SimpleRecipe, strings

TASKS = ("random", "xor", "sign")
CASE = ["seed", "activation", "loss"]
BORDER = (-0.15, 0.15, 0.45)  # two neighbours across the border of the classes, and one as far away on the same side
WIDTH_ETA = {"ntk": 0.3, "standard": 0.02}  # at H = 64: eta mean Theta is about 0.7 at the start of both


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


def by_distance(
    networks: SimpleNetworks, x: Float[Tensor, "S n d"], *, places: Float[Tensor, "S n d"] | None = None
) -> pd.DataFrame:
    """The kernel of each network against Hamming distance, in units of the self-kernel: distance, value.

    places: the strings between which the distances are taken, None: x; a permutation of x is the null.
    """
    kernel = networks.factors(x).whole  # (S, A, L, n, n)
    kernel = kernel / kernel.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    places = x if places is None else places
    distance = ((places[:, :, None] - places[:, None]).abs().sum(-1) / 2).round()  # (S, n, n)
    tables = []
    for d in sorted(distance.unique().tolist()):
        mask = (distance == d)[:, None, None].double()  # (S, 1, 1, n, n)
        mean = (kernel * mask).sum((-1, -2)) / mask.sum((-1, -2))  # (S, A, L)
        tables.append(every_network(networks.recipe, {"value": mean}).assign(distance=d))
    return pd.concat(tables, ignore_index=True).dropna(subset=["value"])


def splitting(
    recipe: SimpleRecipe, steps: int, *, biases: Sequence[float] = (1.0, 0.0), points: int = 12, count: int = 32
) -> pd.DataFrame:
    """y = sign x on a line: the normalised kernel of a pair across the border at 0 and of an equally distant pair.

    Columns: those of `every_network`, step, bias, across = Theta(-.15, .15), within = Theta(.15, .45), each divided by
    the roots of the self-kernels, and ratio = (1 - across) / (1 - within).
    biases      standard deviations of the initial biases; with 0 the kink of every unit lies at 0, on the border
    """
    recipe = replace(recipe, inputs=1, losses=("mse",) * len(biases), bias=tuple(biases))
    x = torch.linspace(-1, 1, count, dtype=torch.float64)[None, :, None].expand(len(recipe.seeds), -1, -1).contiguous()
    places = torch.tensor(BORDER, dtype=torch.float64)[None, :, None].expand(len(recipe.seeds), -1, -1)
    networks, tables = SimpleNetworks(recipe), []
    with threads(1):
        for step in networks.train(x, x[..., 0].sign(), steps, at=log_spaced(steps, points)):
            kernel = networks.factors(places).whole  # (S, A, L, 3, 3)
            size = kernel.diagonal(dim1=-2, dim2=-1).sqrt()  # (S, A, L, 3)
            kernel = kernel / (size[..., None] * size[..., None, :])
            across, within = kernel[..., 0, 1], kernel[..., 1, 2]
            table = every_network(recipe, {"across": across, "within": within, "ratio": (1 - across) / (1 - within)})
            tables.append(table.assign(step=step, bias=[biases[slot] for slot in table["slot"]]))
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
    networks: SimpleNetworks, x: Float[Tensor, "S n d"], y: Float[Tensor, "S n"], *, noise: float = 0.5, draws: int = 32
) -> pd.DataFrame:
    """flips, worst_neuron, weight_noise, margin and the error of each network, all networks at once.

    The measures and the random numbers are those of `nin.probes.response.fragility` with a generator of seed 0. noise:
    standard deviation on the inputs; draws: of noise on inputs and on weights (relative strength 0.2).
    """
    generator, labels = torch.Generator().manual_seed(0), y[:, None, None].sign()
    h, slope = networks.hidden(x)  # (S, A, L, H, n) each
    f = networks.outputs(x)
    s_i, s_o = networks.recipe.factors
    without = f[..., None, :] - s_o * networks.v[..., None] * h  # (S, A, L, H, n)
    errors = (without.sign() != labels[..., None, :]).double().mean(-1)  # (S, A, L, H)
    pull = s_i * s_o * torch.einsum("salh,salhn,salhd->salnd", networks.v, slope, networks.w).abs().sum(-1)
    distance = torch.where(f == 0, 0.0, f.abs() / pull)
    values = {"error": _wrong(f, labels), "flips": torch.zeros_like(networks.c), "worst_neuron": errors.amax(-1)}
    for _ in range(draws):
        shaken = x + noise * torch.randn(x.shape[1:], generator=generator, dtype=x.dtype)
        values["flips"] += _wrong(networks.outputs(shaken), f.sign()) / draws
    values["weight_noise"] = torch.zeros_like(networks.c)
    for _ in range(draws):
        other = copy.deepcopy(networks)
        for parameter in (other.w, other.b, other.v[..., None, :], other.c[..., None]):
            shape = parameter.shape[3:]
            parameter *= 1 + 0.2 * torch.randn(shape, generator=generator, dtype=x.dtype)
        values["weight_noise"] += _wrong(other.outputs(x), labels) / draws
    return every_network(networks.recipe, values | {"margin": distance.median(-1).values})


def _wrong(f: Float[Tensor, "S A L n"], signs: Float[Tensor, "S _ _ n"]) -> Float[Tensor, "S A L"]:
    """The fraction of samples whose sign differs from `signs`."""
    return (f.sign() != signs).double().mean(-1)


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

    before = 0 is the control: the first labels are learned. Learned: every sample has the new sign, checked every
    `every` steps; `cap` if that is not reached.
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


def drift_by_width(recipe: SimpleRecipe, widths: Sequence[int], steps: int) -> pd.DataFrame:
    """The kernel's drift |Theta - Theta_0| / |Theta_0| in a run, against width: scaling, hidden, drift, share, ...

    Both scalings start with eta mean Theta of about 0.7. "ntk": the learning rate is that of every width. "standard":
    it falls as 1/H, because the kernel of v ~ N(0, 1/H) grows with H.
    share       the output weights' share of the self-kernel, at the end over that at the start
    """
    tables = []
    for scaling, eta in WIDTH_ETA.items():
        for width in widths:
            rate = eta if scaling == "ntk" else eta * 64 / width
            wide = replace(recipe, hidden=width, eta=rate, scaling=scaling)
            x, y = task("random", wide, min(64, 2**wide.inputs))
            table, _ = along_training(wide, x, y, steps, points=2, responders=1)
            first, last = (table[table["step"] == step].reset_index(drop=True) for step in (0, steps))
            share = last["output_share"] / first["output_share"]
            tables.append(last.assign(scaling=scaling, hidden=width, share=share))
    return pd.concat(tables, ignore_index=True)


def balance(networks: SimpleNetworks) -> Float[Tensor, "S A L H"]:
    """v_j^2 - |w_j|^2 - b_j^2, which gradient flow conserves for ReLU (derived)."""
    return networks.v.square() - networks.w.square().sum(-1) - networks.b.square()

"""Stochastic against deterministic training: what each leaves of the features, of robustness and of generalisation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from nin.support.threads import threads
from nin.training.schedule import log_spaced
from studies.statistics import Interval, geometric_band, mean_interval
from studies.training_response.measure import balance, every_network, features, fragility, task
from studies.training_response.networks import SimpleNetworks, SimpleRecipe, strings

REST = 1e-9  # training loss below which gradient descent has come to rest: no reading changes in its third digit
GD, SGD, NOISE = "GD", "SGD", "label noise"
MEASURES = {
    "effective_rank": "effective rank",
    "flips": "flips by noise",
    "worst_neuron": "error, worst neuron off",
    "error_all": "error, all strings",
}


def contrast(
    recipe: SimpleRecipe, steps: int, *, etas: Sequence[float], sigmas: Sequence[float], points: int = 12
) -> pd.DataFrame:
    """The parity of two bits, learned by gradient descent, by SGD and by SGD with label noise: readings along the runs.

    etas, sigmas    learning rate and label noise of each stochastic training; the first one has sigma 0 ("SGD"), and
        gradient descent has its rate
    Columns: those of `every_network` and `state`, training, eta, sigma, step, the clock u = eta^2 sigma^2 step; where
    sigma is 0, u has that of the first label noise, so that it counts the same steps. Gradient descent stops once its
    training loss is below REST everywhere, and its last reading is repeated at the remaining steps.
    Raises ValueError unless the first sigma is 0 and the others are positive.
    """
    if len(sigmas) < 2 or sigmas[0] != 0 or min(sigmas[1:]) <= 0:
        raise ValueError(f"sigmas={sigmas!r} must be 0, and then at least one positive label noise.")
    stochastic = replace(recipe, losses=("mse",) * len(etas), eta=tuple(etas), label_noise=tuple(sigmas), batch=1)
    deterministic = replace(recipe, losses=("mse",), eta=etas[0], label_noise=0.0, batch=None)
    tables = []
    for one, rates, noises in ((stochastic, etas, sigmas), (deterministic, etas[:1], sigmas[:1])):
        for step, table in _readings(one, steps, points):
            eta, sigma = (table["slot"].map(dict(enumerate(part))) for part in (rates, noises))
            clock = sigma.where(sigma > 0, sigmas[1])
            training = GD if one.batch is None else sigma.gt(0).map({True: NOISE, False: SGD})
            tables.append(table.assign(training=training, eta=eta, sigma=sigma, step=step, u=(eta * clock) ** 2 * step))
    return pd.concat(tables, ignore_index=True)


def _readings(recipe: SimpleRecipe, steps: int, points: int) -> Iterator[tuple[int, pd.DataFrame]]:
    (x, y), networks = task("xor", recipe, min(64, 2**recipe.inputs)), SimpleNetworks(recipe)
    start, due, rest, table = balance(networks), log_spaced(steps, points), False, pd.DataFrame()
    with threads(1):
        for step in networks.train(x, y, steps, at=due):
            table = state(networks, x, y, start)
            yield step, table
            rest = recipe.batch is None and table["train_loss"].max() < REST
            if rest:
                break
    if rest:
        yield from ((later, table) for later in due if later > step)


def state(
    networks: SimpleNetworks, x: Float[Tensor, "S n d"], y: Float[Tensor, "S n"], start: Float[Tensor, "S A L H"]
) -> pd.DataFrame:
    """Features, fragility, error_all (on all 2^d strings, of the parity), self_kernel, stability, train_loss, balance.

    Of the balance q_j = v_j^2 - |w_j|^2 - b_j^2: moved = sum |q_j - q_j(0)| / sum |q_j(0)| and
    left = sum |q_j| / sum |q_j(0)|.
    """
    recipe = networks.recipe
    every = strings(2**recipe.inputs, recipe.inputs, recipe.seeds)
    wrong = networks.outputs(every).sign() != (every[..., 0] * every[..., 1])[:, None, None]
    own = networks.factors(x).whole.diagonal(dim1=-2, dim2=-1).mean(-1)
    size, now = start.abs().sum(-1), balance(networks)
    values = {
        "error_all": wrong.double().mean(-1),
        "self_kernel": own,
        "stability": networks.eta * own,
        "train_loss": networks.losses(networks.outputs(x), networks.for_each_loss(y)).mean(-1),
        "moved": (now - start).abs().sum(-1) / size,
        "left": now.abs().sum(-1) / size,
    }
    case = ["seed", "activation", "loss", "slot"]
    tables = every_network(recipe, values), features(networks), fragility(networks, x, y)
    return tables[0].merge(tables[1], on=case).merge(tables[2], on=case)


def of_training(table: pd.DataFrame, training: str) -> pd.DataFrame:
    """The rows of a training; of label noise, those with the learning rate of GD and the smallest noise."""
    rows = table[table["training"] == training]
    if training == NOISE:
        rows = rows[rows["eta"] == table.loc[table["training"] == GD, "eta"].iloc[0]]
        rows = rows[rows["sigma"] == rows["sigma"].min()]
    return rows


def changes(table: pd.DataFrame, activation: str, training: str, *, other_seeds: bool = False) -> dict[str, Interval]:
    """Each of MEASURES at the last step, minus that of GD: mean over paired seeds and its 95 % interval.

    other_seeds: pair each seed with the next one, the null of two networks that differ in nothing but the seed.
    """
    ours, theirs = (at_end(table, activation, way) for way in (training, GD))
    shift = 1 if other_seeds else 0
    return {name: mean_interval(np.roll(ours[name], shift) - theirs[name].to_numpy()) for name in MEASURES}


def rank_ratio(table: pd.DataFrame, activation: str, training: str) -> float:
    """Geometric mean over seeds of the effective rank at the last step over that of GD."""
    ours, theirs = (at_end(table, activation, way)["effective_rank"] for way in (training, GD))
    return geometric_band(ours / theirs).mean


def at_end(table: pd.DataFrame, activation: str, training: str) -> pd.DataFrame:
    """MEASURES at the last step, by seed."""
    rows = of_training(table, training)
    rows = rows[(rows["activation"] == activation) & (rows["step"] == table["step"].max())]
    return rows.set_index("seed")[list(MEASURES)].sort_index()

"""The sparsest split of a game into AND and OR interactions: a linear program, for all games at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nin.probes.interactions.games import Game, check_values, inverse_moebius, or_values, orders
from nin.probes.interactions.solver import solve
from nin.support.arguments import check_count, check_number
from nin.support.memory import check_memory
from nin.support.precision import matching, widened

ARRAYS = 20  # of all games, that the iteration holds at a time

FLAT = 32  # units of rounding within which all values of a game are the same


def constant(values: Game, dtype: torch.dtype) -> Bool[Tensor, "*games"]:
    """Whether a game is the same for all coalitions, to the rounding of the dtype that it was computed in."""
    spread = (values - values[..., :1]).abs().amax(-1)
    return spread <= FLAT * torch.finfo(dtype).eps * values.abs().amax(-1)


@dataclass(frozen=True)
class Split:
    """v(T) = v(empty) + sum_{S in T} I_and(S) + sum_{S cap T not empty} I_or(S) + delta(T) on every coalition, exactly.

    and_, or_  (..., 2^n); order-1 OR equals order-1 AND and is merged into it, so or_ is 0 there. and_ of the empty
               set is v(empty)
    delta      (..., 2^n), |delta| <= kappa |v(N) - v(empty)|, 0 for the empty set
    objective  (...), the minimised sum_S |I_and(S)| + |I_or(S)| over S not empty; weighted if there is a tie_break
    bound      (...), a lower bound for every split (weak duality), so that objective / bound - 1 bounds the excess
    """

    and_: Float[Tensor, "*games coalitions"]
    or_: Float[Tensor, "*games coalitions"]
    delta: Float[Tensor, "*games coalitions"]
    objective: Float[Tensor, "*games"]
    bound: Float[Tensor, "*games"]


def split(
    values: Game,
    kappa: float = 0.04,
    *,
    tie_break: float = 0.0,
    accuracy: float = 0.005,
    iterations: int = 6000,
) -> Split:
    """min sum |I_and| + |I_or| over all splits of v, with |delta| <= kappa |v(N) - v(empty)| (arXiv 2409.08712).

    The result matches v on every coalition to rounding. The iteration ends when every game is proven to be within
    `accuracy` of its optimum, or after `iterations`; `bound` shows how close each game came.

    kappa       0.04 in the paper; 0: no delta
    tie_break   the split is not unique: x_i + x_j = AND_ij + OR_ij at equal cost. 0: the optimum that the iteration
                reaches from zero, symmetric between AND and OR; > 0: weights 1 + tie_break |S|, which prefer low
                orders (0.01 settles most ties)
    accuracy, iterations    ours
    Raises ValueError for negative kappa, for values as `moebius` does, for n > 13 (the inverse takes 8 4^n bytes), and
    for games with v(N) = v(empty) to rounding, where kappa has no scale: use kappa=0.
    """
    check_number("kappa", kappa)
    check_number("tie_break", tie_break)
    check_number("accuracy", accuracy, exclusive=True)
    check_count("iterations", iterations)
    values = check_values(values)
    size = values.shape[-1]
    check_splits(size.bit_length() - 1, values.numel() // size)
    games = widened(values.reshape(-1, size))  # (games, 2^n), as are b, and_, or_ and delta
    b = games - games[:, :1]
    room = kappa * b[:, -1:].abs()  # (games, 1)
    flat = ((room[:, 0] == 0) | constant(games, values.dtype)).nonzero()[:, 0]
    if kappa and len(flat):
        raise ValueError(
            f"values: {len(flat)} of {len(games)} games, the first of index {int(flat[0])}, have v(N) = v(empty) "
            "to rounding, so kappa has no scale. Leave them out, or use kappa=0."
        )
    scale = b.abs().amax(1, keepdim=True)  # (games, 1)
    scale = torch.where(scale > 0, scale, 1)  # a constant game has no interactions
    weights = 1 + tie_break * orders(size).to(b)
    found = solve(b / scale, room / scale, weights, accuracy=accuracy, iterations=iterations)
    and_, or_ = found.a * scale, found.o * scale
    delta = b - inverse_moebius(and_) - or_values(or_)
    and_[:, 0] = games[:, 0]
    parts = (matching(part.view(values.shape), values) for part in (and_, or_, delta))
    totals = ((total * scale[:, 0]).view(values.shape[:-1]) for total in (found.objective, found.bound))
    return Split(*parts, *totals)


def check_splits(n: int, games: int) -> None:
    """ValueError if that many games of n variables cannot be split: n > 13, or more than fits into memory."""
    if n > 13:
        raise ValueError(f"values of n = {n}: the split takes an inverse of {8 * 4**n / 2**30:.0f} GB; at most n = 13.")
    needed = 8 * (4**n + ARRAYS * games * 2**n)
    check_memory(f"the split of {games} games of n = {n} variables", needed, "use fewer images, layers or variables")

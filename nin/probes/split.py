"""The sparsest split of a game into AND and OR interactions: a linear program, for all games at once."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from nin.arguments import check_count, check_number
from nin.probes.games import check_values, inverse_moebius, moebius, or_values, orders

STEP = 0.05  # of the proximal steps, in units of the largest |v - v(empty)|; 0.01 to 0.1 do alike
SLACK = 0.99  # of the room of delta while iterating: what then misses the matching condition still fits into it
RELAXATION = 1.8  # of the reflections; below 2 they converge


@dataclass(frozen=True)
class Split:
    """v(T) = v(empty) + sum_{S in T} I_and(S) + sum_{S cap T not empty} I_or(S) + delta(T) on every coalition, exactly.

    and_, or_  (..., 2^n); order-1 OR effects are merged into the order-1 AND effects, which they equal: or_ has none.
               and_ of the empty set is v(empty)
    delta      (..., 2^n), |delta| <= kappa |v(N) - v(empty)|, 0 for the empty set
    objective  sum_S |I_and(S)| + |I_or(S)| over S not empty, (...)
    bound      the optimum is not below this (weak duality); objective / bound - 1 bounds the excess
    """

    and_: Tensor
    or_: Tensor
    delta: Tensor
    objective: Tensor
    bound: Tensor


def split(
    values: Float[Tensor, "... 2**n"], kappa: float = 0.04, *, tie_break: float = 0.0, iterations: int = 1000
) -> Split:
    """min sum |I_and| + |I_or| over all splits of v, with |delta| <= kappa |v(N) - v(empty)| (arXiv 2409.08712).

    By Douglas-Rachford splitting: projections on the matching condition, with one inverse of size 2^n - 1 for each n,
    and soft thresholds. The result matches on every coalition to rounding; how far it is from the optimum at most is
    told by `bound`.

    kappa       0.04 in the paper; 0: no delta
    tie_break   the split is not unique: x_i + x_j = AND_ij + OR_ij at equal cost. 0: what the iteration from zero
                reaches, symmetric between AND and OR; else weights 1 + tie_break |S|, which prefer low orders (0.01
                mostly decides)
    Raises ValueError for kappa negative, values as `moebius` does, n > 13 (the inverse takes 8 4^n bytes), and for
    games with v(N) = v(empty), where kappa has no scale: take kappa=0.
    """
    check_number("kappa", kappa)
    check_number("tie_break", tie_break)
    check_count("iterations", iterations)
    values = check_values(values)
    size = values.shape[-1]
    if size > 2**13:
        n = size.bit_length() - 1
        raise ValueError(f"values of n = {n}: the split takes an inverse of {8 * 4**n / 2**30:.0f} GB; at most n = 13.")
    games = values.reshape(-1, size).double()
    b = games - games[:, :1]
    room = kappa * b[:, -1:].abs()
    flat = (room[:, 0] == 0).nonzero()[:, 0]
    if kappa and len(flat):
        raise ValueError(
            f"values: {len(flat)} of {len(games)} games, the first of index {int(flat[0])}, have v(N) = v(empty), of "
            "which delta is a fraction. Leave them out, or take kappa=0."
        )
    scale = b.abs().amax(1, keepdim=True).clamp(min=1e-300)
    weights = 1 + tie_break * orders(size)[1:].to(b)
    a, o, y = _solve(b[:, 1:] / scale, SLACK * room / scale, weights, iterations)
    and_, or_ = (torch.cat([b.new_zeros(len(b), 1), part * scale], 1) for part in (a, o))
    single = orders(size).to(b.device) == 1
    and_[:, single] += or_[:, single]
    or_[:, single] = 0
    delta = b - inverse_moebius(and_) - or_values(or_)
    excess = delta - delta.clamp(-room, room)
    and_ += moebius(excess)  # exact again, within the bounds of delta
    delta = delta - excess
    objective = (and_.abs() + or_.abs()).sum(1)
    bound = scale[:, 0] * _lower_bound(b[:, 1:] / scale, room / scale, y)
    and_[:, 0] = games[:, 0]
    shape = values.shape[:-1]
    parts = (part.view(values.shape).to(values) for part in (and_, or_, delta))
    return Split(*parts, objective.view(shape), bound.view(shape))


def _solve(b: Tensor, room: Tensor, weights: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """a, o (games, 2^n - 1) of the last soft threshold, and the multipliers y of the matching condition."""
    inverse = _inverse(b.shape[1] + 1).to(b)
    z = [torch.zeros_like(b) for _ in range(3)]
    shrink = STEP * weights
    for _ in range(iterations):
        residual = _and(z[0]) + _or(z[1]) + z[2] - b
        y = residual @ inverse
        x = [z[0] - _and_transposed(y), z[1] - _or(y), z[2] - y]
        reflected = [2 * now - before for now, before in zip(x, z, strict=True)]
        w = [
            torch.nn.functional.softshrink(reflected[0] / shrink, 1.0) * shrink,
            torch.nn.functional.softshrink(reflected[1] / shrink, 1.0) * shrink,
            reflected[2].clamp(-room, room),
        ]
        z = [old + RELAXATION * (new - now) for old, new, now in zip(z, w, x, strict=True)]
    return w[0], w[1], -y / STEP


def _lower_bound(b: Tensor, room: Tensor, y: Tensor) -> Tensor:
    """b.y - room |y|_1 of multipliers scaled to |Z^T y|, |R^T y| <= 1: no objective is below it."""
    largest = torch.maximum(_and_transposed(y).abs().amax(1), _or(y).abs().amax(1)).clamp(min=1)
    return ((b * y).sum(1) - room[:, 0] * y.abs().sum(1)) / largest


def _and(a: Tensor) -> Tensor:
    """Z a: sum over S in T, on coalitions that are not empty."""
    return inverse_moebius(_padded(a))[:, 1:]


def _and_transposed(y: Tensor) -> Tensor:
    """Z^T y: sum over T that contain S; S in T is N \\ T in N \\ S."""
    return inverse_moebius(_padded(y).flip(-1)).flip(-1)[:, 1:]


def _or(o: Tensor) -> Tensor:
    """R o: sum over S that meet T; R is symmetric."""
    return or_values(_padded(o))[:, 1:]


def _padded(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(len(values), 1), values], 1)


@lru_cache(maxsize=2)
def _inverse(size: int) -> Tensor:
    """(Z Z^T + R R^T + 1)^-1 on the coalitions that are not empty, (2^n - 1, 2^n - 1)."""
    unit = torch.eye(size - 1, dtype=torch.float64)
    Z, R = _and(unit).T, _or(unit).T
    return torch.linalg.inv(Z @ Z.T + R @ R.T + unit)

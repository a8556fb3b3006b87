"""Douglas-Rachford splitting for the AND / OR split: many linear programs of a thousand unknowns at once.

min sum_S weight_S (|a_S| + |o_S|)  over  Z a + R o + s = b, |s| <= room,  with Z_TS = 1[S in T], R_TS = 1[S meets T]
on the coalitions that are not empty. One step projects onto the equations, with one inverse for each n, and
soft-thresholds a and o; Z, R and their transposes are transforms of O(n 2^n). All arrays are (games, 2^n), with 0 at
the empty coalition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nin.probes.interactions.games import DISJOINT, SUBSET, SUPERSET, kronecker, moebius, orders

RELAXATION = 1.8  # of the reflections, which converge below 2
SLACK = 0.995  # of the room of s while iterating, so that a small residual of the equations still fits into the room
START = 0.01  # initial threshold, in units of the largest |b|; it adapts to each game
DEADBAND = 3  # smaller factors leave the threshold unchanged: each change delays convergence
EVERY = 50  # steps between two adaptations and checks of convergence
REPAIRS = 5  # projections towards the equations before the remaining residual is added to a

Games = Float[Tensor, "games coalitions"]
PerGame = Float[Tensor, "games 1"]


@dataclass
class Found:
    """Matching a, o (games, 2^n), their objective (games,) and a lower bound of the optimum (games,)."""

    a: Games
    o: Games
    objective: Float[Tensor, " games"]
    bound: Float[Tensor, " games"]


def solve(b: Games, room: PerGame, weights: Float[Tensor, " coalitions"], *, accuracy: float, iterations: int) -> Found:
    """Iterate each game until objective <= (1 + accuracy) bound; games that reach this leave the batch.

    b (games, 2^n) with largest entry about 1, room (games, 1), weights (2^n,).
    """
    inverse = _inverse(b.shape[1]).to(b)  # (2^n, 2^n)
    found = Found(torch.zeros_like(b), torch.zeros_like(b), b.new_full((len(b),), torch.inf), b.new_zeros(len(b)))
    live = torch.arange(len(b), device=b.device)  # (games,), rows of `found` that are still in the batch
    threshold = b.new_full((len(b), 1), START)
    z = w = [torch.zeros_like(b) for _ in range(3)]  # a, o, s: (games, 2^n) each, as are y, x, reflected
    for iteration in range(1, iterations + 1):
        y = (and_values(z[0]) + meeting_values(z[1]) + z[2] - b) @ inverse
        x = [z[0] - containing_values(y), z[1] - meeting_values(y), z[2] - y]
        reflected = [2 * now - before for now, before in zip(x, z, strict=True)]
        before, shrink = w, threshold * weights  # (games, 2^n)
        w = [value - value.clamp(-shrink, shrink) for value in reflected[:2]]
        w.append(reflected[2].clamp(-SLACK * room, SLACK * room))
        if iteration % EVERY and iteration < iterations:
            z = [old + RELAXATION * (new - now) for old, new, now in zip(z, w, x, strict=True)]
            continue
        _keep_best(found, live, _matching(b, room, w[0], w[1], inverse), b, room, weights, -y / threshold)
        rows = (found.objective > (1 + accuracy) * found.bound)[live]  # (games,) booleans: not yet converged
        if not rows.any():
            break
        # residual balancing: the difference of x and w against the last change of w; z - x scales with the threshold
        apart = _norm([new - now for new, now in zip(w, x, strict=True)]) / _norm(w)
        moves = _norm([new - old for new, old in zip(w, before, strict=True)]) / _norm(
            [old - now for old, now in zip(z, x, strict=True)]
        )
        factor = (moves / apart).sqrt().clamp(0.1, 10)  # (games, 1)
        factor = torch.where((factor > DEADBAND) | (factor < 1 / DEADBAND), factor, 1)
        z = [(now + (old - now) * factor)[rows] for old, now in zip(z, x, strict=True)]
        w = [part[rows] for part in w]
        live, b, room, threshold = live[rows], b[rows], room[rows], (threshold * factor)[rows]
    return found


def and_values(a: Games) -> Games:
    """Z a: sum over S in T."""
    return kronecker(a, SUBSET)


def containing_values(y: Games) -> Games:
    """Z^T y: sum over T that contain S."""
    values = kronecker(y, SUPERSET)
    values[:, 0] = 0
    return values


def meeting_values(o: Games) -> Games:
    """R o = R^T o: sum over S that meet T."""
    disjoint = kronecker(o, DISJOINT)
    return disjoint[:, :1] - disjoint


def _matching(
    b: Games, room: PerGame, a: Games, o: Games, inverse: Float[Tensor, "coalitions coalitions"]
) -> tuple[Games, Games]:
    """Move a and o until the residual nearly fits into the room; the remaining excess is then added to a, exactly."""
    for _ in range(REPAIRS):
        y = _excess(b - and_values(a) - meeting_values(o), room) @ inverse
        a, o = a + containing_values(y), o + meeting_values(y)
    a = a + moebius(_excess(b - and_values(a) - meeting_values(o), room))
    single = orders(b.shape[1]).to(b.device) == 1  # AND and OR of one variable are the same
    return torch.where(single, a + o, a), torch.where(single, 0, o)


def _keep_best(
    found: Found,
    live: Int[Tensor, " games"],
    parts: tuple[Games, Games],
    b: Games,
    room: PerGame,
    weights: Float[Tensor, " coalitions"],
    y: Games,
) -> None:
    """Keep each game's best solution and best bound so far."""
    a, o = parts
    objective = ((a.abs() + o.abs()) * weights).sum(1)  # (games,)
    better = objective < found.objective[live]
    for kept, new in ((found.a, a), (found.o, o), (found.objective, objective)):
        kept[live[better]] = new[better]
    # weak duality: y scaled so that |Z^T y|, |R^T y| <= weights
    dual = torch.maximum(containing_values(y).abs(), meeting_values(y).abs())
    largest = (dual / weights).amax(1).clamp(min=1)  # (games,)
    bound = ((b * y).sum(1) - room[:, 0] * y.abs().sum(1)) / largest
    found.bound[live] = torch.maximum(found.bound[live], bound)


def _excess(rest: Games, room: PerGame) -> Games:
    return rest - rest.clamp(-room, room)


def _norm(parts: Sequence[Games]) -> PerGame:
    squares = sum(part.square().sum(1, keepdim=True) for part in parts)
    return squares.sqrt().clamp(min=1e-300)


@lru_cache(maxsize=2)
def _inverse(size: int) -> Float[Tensor, "coalitions coalitions"]:
    """(Z Z^T + R R^T + 1)^-1 on the coalitions that are not empty, (2^n, 2^n) with row and column 0 of zeros."""
    unit = torch.eye(size, dtype=torch.float64)
    unit[0, 0] = 0
    Z, R = and_values(unit).T, meeting_values(unit).T
    inverse = torch.zeros_like(unit)
    inverse[1:, 1:] = torch.cholesky_inverse(torch.linalg.cholesky((Z @ Z.T + R @ R.T + unit)[1:, 1:]))
    return inverse

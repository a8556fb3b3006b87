"""Identities that hold for the interactions of any game, measured in float64 as checks (notebook 09)."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import OptimizeResult, linprog
from scipy.sparse import csr_matrix
from torch import Tensor

from nin.checks import Check
from nin.probes.interactions.comparison import changes, salient, shared
from nin.probes.interactions.games import inverse_moebius, members, moebius, or_interactions, or_values, orders, shapley
from nin.probes.interactions.sparsest import split

N = 8  # variables of the games


def game_checks(*, games: int = 20) -> list[Check]:
    """Identities 1 to 4 and 7, for random games and their splits by random gamma."""
    v = _draw(games, 2**N)
    gamma = _draw(games, 2**N, seed=1)
    gamma[:, 0] = v[:, 0] / 2
    and_, or_ = moebius(v / 2 + gamma), or_interactions(v / 2 - gamma)
    subsets = torch.tensor([[float(T & S == T) for T in range(2**N)] for S in range(2**N)], dtype=torch.float64)
    size = orders(2**N).double()
    brute = v @ (subsets * (-1.0) ** (size[:, None] - size)).T
    sign = (-1.0) ** (size + 1)
    phi = ((and_ + or_) / size.clamp(min=1)) @ members(2**N).double()
    whole = v[:, -1] - v[:, 0]
    banzhaf = ((and_ + or_) / 2.0 ** (size - 1)) @ members(2**N).double()
    free = _draw(games, 2**N, seed=1)  # gamma that is not v / 2 at the empty set
    loose = inverse_moebius(moebius(v / 2 + free)) + or_values(or_interactions(v / 2 - free))
    from_and, of_or = moebius(v) @ subsets, or_interactions(v)[:, 1:]
    found = {  # identity, the measured error, and that of the nearest wrong formula
        "transform against the sum over subsets": (1, _off(moebius(v), brute), _off(inverse_moebius(v), brute)),
        "inverse of the transform": (1, _off(inverse_moebius(moebius(v)), v), _off(moebius(moebius(v)), v)),
        "efficiency, AND alone": (2, _off(moebius(v)[:, 1:].sum(1), whole), _off(moebius(v).sum(1), whole)),
        "efficiency, any split": (2, _off(and_[:, 1:].sum(1) + or_.sum(1), whole), _off(and_[:, 1:].sum(1), whole)),
        "universal matching, any gamma": (3, _off(inverse_moebius(and_) + or_values(or_), v), _off(loose, v)),
        "OR from AND of the same game": (4, _off(of_or, (sign * from_and)[:, 1:]), _off(of_or, from_and[:, 1:])),
        "Shapley value from any split": (7, _off(shapley(v), phi), _off(shapley(v), banzhaf)),
    }
    return [
        Check(f"{name}: largest error", f"identity {number}", off, 0, 1e-12, rival=wrong)
        for name, (number, off, wrong) in found.items()
    ]


def known_game_checks() -> list[Check]:
    """Identities 5 and 6: unanimity, OR, multilinear and additive games; a dummy variable."""
    T, x = torch.arange(2**N), members(2**N).double()
    polynomial = 2 + 3 * x[:, 0] - x[:, 1] * x[:, 2] + 0.5 * x[:, :5].prod(1)
    expected = torch.zeros(2**N, dtype=torch.float64)
    expected[[0, 1, 6, 31]] = torch.tensor([2.0, 3.0, -1.0, 0.5], dtype=torch.float64)
    weights = torch.tensor([1.0, -2.0, 0.0, 4.0, 0.5, 3.0, 1.0, 1.0], dtype=torch.float64)
    additive = x @ weights
    all_of, any_of, high = (T & 6 == 6).double(), (T & 7 != 0).double(), orders(2**N) > 1
    ands, ors = moebius(any_of).abs().sum(), or_interactions(any_of).abs().sum()
    found = {  # the measured error, and that of the other transform, of another game or of another variable
        "unanimity: one AND term": (5, moebius(all_of).abs().sum() - 1, or_interactions(all_of).abs().sum() - 1),
        "an OR game: one OR term": (5, ors - 1, ands - 1),
        "an OR of three: 7 AND terms": (5, ands - 7, ors - 7),
        "a polynomial: its coefficients": (
            5, (moebius(polynomial) - expected).abs().max(), (polynomial - expected).abs().max()
        ),
        "an additive game: orders above 1": (
            6, moebius(additive)[high].abs().max(), moebius(additive**2)[high].abs().max()
        ),
        "a dummy variable: its Shapley value": (6, shapley(additive)[2], shapley(additive)[3]),
    }  # fmt: skip
    return [
        Check(name, f"identity {number}", abs(float(off)), 0, 1e-12, rival=abs(float(wrong)))
        for name, (number, off, wrong) in found.items()
    ]


def noise_check(*, games: int = 40_000) -> Check:
    """Identity 8: noise of variance 1 on every value has Var I(S) = 2^|S|."""
    variance = moebius(_draw(games, 2**5)).var(0)
    size = orders(2**5)
    off = (variance / 2.0**size - 1).abs().max().item()
    wrong = (variance / 2.0 ** (size - 1) - 1).abs().max().item()  # half the subsets
    return Check("noise: Var I(S) / 2^|S| - 1", "identity 8", off, 0, 0.04, rival=wrong)


def definition_checks() -> list[Check]:
    """Identities 11 and 12: strength = overlap + forget if thresholded; an optimum without delta has 2^n - 1 terms."""
    values = _draw(2, 6, 2, 2**N, seed=2) ** 3
    values[..., 0] = 0
    last = shared(values, values[-1:])  # as printed: the threshold after the minimum
    printed = salient(last).abs().sum((-2, -1)) + (values - last).abs().sum((-2, -1))
    late = (printed / values.abs().sum((-2, -1)) - 1).abs().max().item()
    values = salient(values)
    ratios = changes(values, values[-1:])
    strength = ratios["strength"].above[:, :, 2, 0].T
    gap = abs(strength / values.abs().sum((-2, -1)).numpy() - 1).max()
    small = _draw(2**5, seed=3).numpy()
    vertex, loose = linear_program(small, 0.0), linear_program(small, 1.0)
    terms = [int((solution.x[: 4 * (2**5 - 1)] > 1e-9).sum()) for solution in (vertex, loose)]
    game = torch.from_numpy(small)
    excess = (split(game, 0.0, accuracy=1e-4).objective / vertex.fun - 1).item()
    and_alone = (moebius(game)[1:].abs().sum() / vertex.fun - 1).item()
    return [
        Check("all - (overlap + forget), as a fraction", "identity 11", gap, 0, 1e-12, rival=late),
        Check("no delta: non-zeros of the optimal split, n = 5", "identity 12", terms[0], 2**5 - 1, rival=terms[1]),
        Check("no delta: split above the linear program", "identity 12", excess, 0, 1e-4, rival=and_alone),
    ]


def linear_program(v: Float[np.ndarray, " coalitions"], kappa: float = 0.04) -> OptimizeResult:
    """The split of one game by scipy's HiGHS: fun is the optimum; x holds the parts +a, -a, +o, -o, delta in turn."""
    T = np.arange(1, len(v))
    Z, R = (T[None] & T[:, None]) == T[None], (T[None] & T[:, None]) != 0
    room = kappa * abs(v[-1] - v[0])
    matrix = csr_matrix(np.hstack([Z, -1.0 * Z, R, -1.0 * R, np.eye(len(T))]))
    cost = np.r_[np.ones(4 * len(T)), np.zeros(len(T))]
    bounds = [(0, None)] * (4 * len(T)) + [(-room, room)] * len(T)
    return linprog(cost, A_eq=matrix, b_eq=v[1:] - v[0], bounds=bounds, method="highs")


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()

"""Interactions of a game: transforms between values of coalitions and AND / OR interactions, along the last axis 2^n.

Coalitions are integers, bit i = variable i present: values[..., 0] is v(empty), values[..., -1] is v(N). Any batch
dimensions, any device; O(n 2^n) by a few products with small matrices. The result is float64, or float32 for float32.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from nin.support.arguments import described
from nin.support.precision import widened

BITS = 5  # of a coalition, transformed by one product: matrices of 32 x 32 stay in cache
LARGEST = 20  # variables: 2^20 values, 8 MB a game

Game = Tensor | np.ndarray | Sequence  # (..., 2^n), see `check_values`
Matrix = tuple[tuple[float, float], tuple[float, float]]
SUBSET: Matrix = ((1.0, 0.0), (1.0, 1.0))  # 1[S in T], row T and column S, for one variable
SUPERSET: Matrix = ((1.0, 1.0), (0.0, 1.0))  # 1[T in S]
DISJOINT: Matrix = ((1.0, 1.0), (1.0, 0.0))  # 1[S cap T empty]


def moebius(values: Game) -> Float[Tensor, "... coalitions"]:
    """I_and(S) = sum_{T in S} (-1)^(|S| - |T|) v(T), the Harsanyi dividend of every coalition (arXiv 2409.08712).

    Raises ValueError if the last axis is not a power of two or exceeds 2^20, or if values are not finite.

    >>> moebius([0.0, 1.0, 2.0, 5.0]).tolist()
    [0.0, 1.0, 2.0, 2.0]
    """
    return kronecker(check_values(values), ((1.0, 0.0), (-1.0, 1.0)))


def inverse_moebius(interactions: Game) -> Float[Tensor, "... coalitions"]:
    """v(T) = sum_{S in T} I(S), the inverse of `moebius`."""
    return kronecker(check_values(interactions, "interactions"), SUBSET)


def or_interactions(values: Game) -> Float[Tensor, "... coalitions"]:
    """I_or(S) = -sum_{T in S} (-1)^(|S| - |T|) v(N \\ T) for S not empty, I_or(empty) = 0 (arXiv 2409.08712)."""
    interactions = -moebius(check_values(values).flip(-1))
    interactions[..., 0] = 0
    return interactions


def or_values(interactions: Game) -> Float[Tensor, "... coalitions"]:
    """sum_{S cap T not empty} I_or(S) for every T: the contribution of OR interactions to the values."""
    interactions = check_values(interactions, "interactions")
    disjoint = kronecker(interactions, DISJOINT)
    return disjoint[..., :1] - disjoint


def shapley(values: Game) -> Float[Tensor, "... n"]:
    """phi_i = sum_{S contains i} I_and(S) / |S|, the Shapley value of every variable (Harsanyi 1963)."""
    values = check_values(values)
    member, size = members(values.shape[-1]), orders(values.shape[-1]).clamp(min=1)  # (2^n, n), (2^n,)
    return (moebius(values) / size.to(values)) @ member.to(values)


@lru_cache
def orders(size: int) -> Int[Tensor, " coalitions"]:
    """|S| of every coalition, (2^n,) integers."""
    return members(size).sum(1)


@lru_cache
def members(size: int) -> Int[Tensor, "coalitions n"]:
    """The variables in every coalition, (2^n, n) of 0 and 1."""
    n = size.bit_length() - 1
    return (torch.arange(size)[:, None] >> torch.arange(n)) & 1


def by_order(values: Float[Tensor, "... coalitions"]) -> Float[Tensor, "... n"]:
    """Sums over the coalitions of each order, 1 to n."""
    order = orders(values.shape[-1])
    in_order = order[:, None] == torch.arange(1, int(order.max()) + 1)  # (2^n, n)
    return values @ in_order.to(values)


def check_values(values: Game, name: str = "values") -> Float[Tensor, "... coalitions"]:
    """The values as a floating-point tensor; ValueError unless finite and with a last axis 2^n, 1 <= n <= 20."""
    try:
        values = torch.as_tensor(values)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"{described(name, values)} must be numbers, one for each coalition.") from None
    if values.is_complex():
        raise ValueError(f"{name} of {values.dtype} must be real numbers; complex ones have no order.")
    values = values if values.dtype in (torch.float32, torch.float64) else widened(values)
    size = values.shape[-1] if values.dim() else 0
    if size < 2 or size & (size - 1):
        raise ValueError(f"{name} of shape {tuple(values.shape)} must have a last axis of 2^n coalitions, n >= 1.")
    if size > 2**LARGEST:
        n = size.bit_length() - 1
        raise ValueError(
            f"{name} of n = {n} variables: at most {LARGEST}. All coalitions of one game take "
            f"{size * values.element_size() / 2**20:.0f} MB and 2^{n} passes of a network; group variables first."
        )
    if not values.isfinite().all():
        raise ValueError(f"{name} must be finite; {int((~values.isfinite()).sum())} of {values.numel()} are not.")
    return values


def kronecker(values: Float[Tensor, "*games coalitions"], factor: Matrix) -> Float[Tensor, "*games coalitions"]:
    """Apply the n-fold Kronecker power of a 2 x 2 matrix along the last axis 2^n, a few bits at a time; unchecked."""
    n = values.shape[-1].bit_length() - 1
    shape = values.shape
    for start in range(0, n, BITS):
        bits = min(BITS, n - start)
        matrix = _power(factor, bits, values.dtype, values.device)
        if start == 0:  # the lowest bits are the last axis
            values = values.reshape(-1, 2**bits) @ matrix.T  # (rest, 2^bits)
        else:
            values = matrix @ values.reshape(-1, 2**bits, 2**start)  # (rest, 2^bits, 2^start)
    return values.reshape(shape)


@lru_cache
def _power(factor: Matrix, bits: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix, base = (torch.tensor(entries, dtype=dtype, device=device) for entries in (((1.0,),), factor))
    for _ in range(bits):
        matrix = torch.kron(matrix, base)
    return matrix


def mean_order(strength: ArrayLike) -> float:
    """sum_m m strength_m / sum_m strength_m; NaN if all strengths are 0."""
    strength = np.asarray(strength)
    return float(strength @ np.arange(1, len(strength) + 1) / strength.sum()) if strength.sum() > 0 else np.nan

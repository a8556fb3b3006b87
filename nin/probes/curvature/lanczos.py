"""The eigenvalue solver: outermost eigenpairs of a symmetric operator known only by its products with vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from threadpoolctl import ThreadpoolController
from torch import Tensor

from nin.support.precision import matching

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # what rounding in the products allows
SPARE = 10  # vectors beyond 2 count: the top of a trained network takes 13 to 19 products; with scipy's 18, 21


@dataclass(frozen=True)
class Mode:
    """An eigenvalue, its unit eigenvector (d,), whose largest entry is positive, and the residual |Av - lam v|.

    vector is None for an eigenvalue in closed form.
    """

    lam: float
    vector: Float[Tensor, " d"] | None
    residual: float

    @classmethod
    def of(
        cls, lam: Float[Tensor, ""], vector: Float[Tensor, " d"], product: Float[Tensor, " d"], *, like: Tensor
    ) -> "Mode":
        """The mode of an eigenpair in float64 with product = A v; its vector gets the dtype and device of `like`."""
        residual = torch.linalg.vector_norm(product - lam * vector)
        vector = vector * torch.sign(vector[vector.abs().argmax()])
        return cls(lam=float(lam), vector=matching(vector, like), residual=float(residual))


def lanczos(
    product: Callable[[Tensor], Tensor], d: int, *, like: Tensor, count: int = 1, below: float | None = None
) -> list[Mode]:
    """The `count` outermost eigenpairs of a symmetric (d, d) operator from ARPACK (scipy's eigsh), in ascending order.

    product  v (d,) -> A v, in the dtype and on the device of `like`
    below    None: the largest eigenvalues; the largest eigenvalue: the smallest ones, as the largest of below - A,
             because ARPACK's tolerance is relative to the eigenvalue and many networks have one that is exactly 0
    Raises ValueError for a dtype too coarse for eigenvalues, and for products that are not finite.
    """
    if like.dtype not in TOLERANCE:
        raise ValueError(f"the parameters are {like.dtype}, too coarse for eigenvalues; use model.float().")

    def multiply(v: np.ndarray) -> np.ndarray:
        column = matching(torch.from_numpy(np.ascontiguousarray(v).reshape(-1)), like)
        found = product(column).cpu().double().numpy()
        if not np.isfinite(found).all():
            raise ValueError("a Hessian-vector product is not finite: the network has diverged, or its inputs have.")
        return found

    def multiply_shifted(v: np.ndarray) -> np.ndarray:
        return multiply(v) if below is None else abs(below) * v.reshape(-1) - multiply(v)

    start = np.random.default_rng(0).standard_normal(d)
    operator = LinearOperator((d, d), matvec=multiply_shifted, dtype=np.float64)
    if d <= count:  # ARPACK needs more dimensions than pairs
        matrix = np.stack([multiply_shifted(unit) for unit in np.eye(d)])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    else:
        try:
            with _blas().limit(limits=1):  # BLAS and torch threads would each spin while the others work
                values, vectors = eigsh(
                    operator, k=count, which="LA", v0=start, tol=TOLERANCE[like.dtype], ncv=min(d, 2 * count + SPARE)
                )
        except ArpackError:
            if multiply_shifted(start).any():
                raise
            values, vectors = np.zeros(count), np.eye(d, count)  # of an operator that annihilates all vectors
    if below is not None:
        values = abs(below) - values
    pairs = sorted(zip(values, vectors.T, strict=True), key=lambda pair: pair[0])
    return [
        Mode.of(*(torch.from_numpy(np.array(part)) for part in (value, vector, multiply(vector))), like=like)
        for value, vector in pairs
    ]


@cache
def _blas() -> ThreadpoolController:
    """The OpenBLAS libraries of numpy and scipy."""
    return ThreadpoolController().select(internal_api="openblas")

"""Eigenpairs of a symmetric operator that is known by its products alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from threadpoolctl import ThreadpoolController
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # what rounding in the products leaves
SPARE = 10  # vectors kept beyond 2 count: 13 to 19 products for the top of a trained network; scipy's 18 take 21


@dataclass(frozen=True)
class Mode:
    """An eigenvalue, its unit eigenvector (d,), largest entry positive, and the residual |Av - lam v|."""

    lam: float
    vector: Tensor
    residual: float

    @classmethod
    def of(cls, lam: Tensor, vector: Tensor, product: Tensor, *, like: Tensor) -> "Mode":
        """An eigenpair in float64, and A v; the vector takes the dtype and device of `like`."""
        residual = torch.linalg.vector_norm(product - lam * vector)
        vector = vector * torch.sign(vector[vector.abs().argmax()])
        return cls(lam=float(lam), vector=vector.to(like), residual=float(residual))


def lanczos(
    product: Callable[[Tensor], Tensor], d: int, *, like: Tensor, count: int = 1, which: str = "LA"
) -> list[Mode]:
    """Eigenpairs of a symmetric (d, d) operator by ARPACK (scipy's eigsh), ascending.

    product  v (d,) -> A v, in the dtype and on the device of `like`
    which    "LA": the `count` largest; "BE": half of them from either end
    """

    def multiply(v: np.ndarray) -> np.ndarray:
        column = torch.from_numpy(np.ascontiguousarray(v).reshape(-1)).to(like)
        return product(column).double().cpu().numpy()

    operator = LinearOperator((d, d), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(d)
    with _blas().limit(limits=1):  # its threads would spin while torch's work, and torch's while they do
        values, vectors = eigsh(
            operator, k=count, which=which, v0=start, tol=TOLERANCE[like.dtype], ncv=min(d, 2 * count + SPARE)
        )
    pairs = sorted(zip(values, vectors.T, strict=True), key=lambda pair: pair[0])
    return [
        Mode.of(*(torch.from_numpy(np.array(part)) for part in (value, vector, multiply(vector))), like=like)
        for value, vector in pairs
    ]


@cache
def _blas() -> ThreadpoolController:
    """The OpenBLAS libraries of numpy and scipy."""
    return ThreadpoolController().select(internal_api="openblas")

"""The local curvature <H>: the Hessian of the loss with respect to what a node is added to, mean over samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nin.arguments import check_count
from nin.nodes import NoisyNetwork
from nin.sites import find_site
from nin.threads import threads

DENSE_LIMIT = 256  # above this many units top_mode goes matrix-free: some 20 products instead of d of them
AT_ONCE = 8  # directions in one vectorised product: the memory of 16 gradient passes
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # of Lanczos: what rounding in the products leaves

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Mode:
    """An eigenvalue of <H>, its unit eigenvector (d,), and the residual |<H>v - lam v|."""

    lam: float
    vector: Tensor
    residual: float


def local_hessian(
    model: nn.Module,
    layer: str,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss,
    at: str | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "d d"]:
    """<H> = mean_i d^2 ell_i / dz_i dz_i^T at the pre-activation z of a layer, without noise.

    It is the exact Hessian, at delta = 0, of delta -> mean_i ell(f(x_i; z_i + delta), y_i): one shift shared by all
    samples, d gradient passes. Autograd drops the delta functions at the kinks of ReLU.
    loss(outputs, y) gives the mean or the per-sample losses, whose mean is taken. The model is put into eval mode
    for the measurement and back.
    at          where a node would be added, as in `nin.inject`: unless told otherwise z is the pre-activation of a
                linear layer, the input of a convolution, flattened
    batch_size  samples at a time (None: all), weighted by their number; bounds the memory
    Source: arXiv 2210.13599, the curvature that dictates the decay of the NIW.
    Raises ValueError for an unknown layer, with the list of candidates, and for a batch_size < 1.
    """
    curvature = _Curvature(model, layer, x, y, loss=loss, at=at, batch_size=batch_size)
    return curvature @ torch.eye(curvature.d).to(curvature.delta)


def extremes(
    model: nn.Module,
    layer: str,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss,
    count: int = 1,
    at: str | None = None,
    batch_size: int | None = None,
) -> tuple[list[Mode], list[Mode]]:
    """The `count` largest and the `count` smallest eigenvalues of <H>, both algebraic, the outermost first.

    Lanczos (ARPACK by scipy's eigsh) on exact Hessian-vector products: no d x d matrix. Each Mode carries its residual.
    Arguments as in `local_hessian`. Raises ValueError as it does, and where 2 count is not below d.
    """
    check_count("count", count)
    curvature = _Curvature(model, layer, x, y, loss=loss, at=at, batch_size=batch_size)
    if 2 * count >= curvature.d:
        raise ValueError(
            f"count={count} at both ends is too much for d={curvature.d} units; take the eigenvalues of local_hessian."
        )
    modes = curvature.lanczos(2 * count, "BE")  # ascending
    return modes[: count - 1 : -1], modes[:count]


def top_mode(model: nn.Module, layer: str, x: Tensor, y: Tensor, *, loss: Loss) -> Mode:
    """Return the algebraically largest eigenvalue of <H> and its eigenvector, sign fixed by a positive largest entry.

    Dense up to DENSE_LIMIT units, else Lanczos (scipy's eigsh) on exact Hessian-vector products.
    """
    curvature = _Curvature(model, layer, x, y, loss=loss)
    if curvature.d > DENSE_LIMIT:
        return curvature.lanczos(1, "LA")[0]
    hessian = (curvature @ torch.eye(curvature.d).to(curvature.delta)).double()
    with threads(1):  # on more, LAPACK rounds differently
        values, vectors = torch.linalg.eigh(hessian)
    return curvature.mode(values[-1], vectors[:, -1], hessian @ vectors[:, -1])


class _Curvature:
    """<H> as the products <H> v, exact, a batch of samples at a time.

    Reverse over reverse: <H> is symmetric, so that v <H> will do; forward over reverse takes longer here, lacks kernels
    (attention, layer norm), and has one level for all threads of a process.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        x: Tensor,
        y: Tensor,
        *,
        loss: Loss,
        at: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        if batch_size is not None:
            check_count("batch_size", batch_size)
        self.model, self.x, self.y, self.loss = model, x, y, loss
        self.batch_size = batch_size or len(x)
        site = find_site(model, layer, at=at, example=x[:2])
        self.delta = torch.zeros(site.shape).to(model.get_submodule(layer).weight.detach()).flatten()
        self.d, self.shape = len(self.delta), (1, *site.shape)
        self.noisy = NoisyNetwork(
            model, [site], niw=[self.delta.view(self.shape)], sigma=[0], law="gaussian", generator=torch.Generator()
        )

    def __matmul__(self, columns: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """The products of <H> with the rows of a block of vectors."""
        total = torch.zeros_like(columns)
        with _measuring(self.model):
            for x, y in zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True):
                _, pull_back = torch.func.vjp(torch.func.grad(partial(self._shifted_loss, x, y)), self.delta)
                product = torch.vmap(lambda v, pull_back=pull_back: pull_back(v)[0], chunk_size=AT_ONCE)
                total += len(x) / len(self.x) * product(columns)
        return total

    def lanczos(self, count: int, which: str) -> list[Mode]:
        """Eigenpairs by scipy's eigsh, ascending; "LA": the largest, "BE": half of them from either end."""

        def multiply(v: np.ndarray) -> np.ndarray:
            column = torch.from_numpy(np.ascontiguousarray(v).reshape(1, -1)).to(self.delta)
            return (self @ column)[0].double().cpu().numpy()

        operator = LinearOperator((self.d, self.d), matvec=multiply, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(self.d)
        values, vectors = eigsh(operator, k=count, which=which, v0=start, tol=TOLERANCE[self.delta.dtype])
        pairs = sorted(zip(values, vectors.T, strict=True), key=lambda pair: pair[0])
        return [
            self.mode(torch.tensor(value), *(torch.from_numpy(np.array(v)) for v in (vector, multiply(vector))))
            for value, vector in pairs
        ]

    def mode(self, lam: Tensor, vector: Tensor, product: Tensor) -> Mode:
        """An eigenpair in float64 as a Mode, the sign of the vector fixed by its largest entry."""
        residual = torch.linalg.vector_norm(product - lam * vector)
        vector = vector * torch.sign(vector[vector.abs().argmax()])
        return Mode(lam=float(lam), vector=vector.to(self.delta), residual=float(residual))

    def _shifted_loss(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        ones = torch.ones(len(x), 1).to(delta)
        return self.loss(torch.func.functional_call(self.noisy, {"niw": delta.view(self.shape)}, (x, ones)), y).mean()


@contextmanager
def _measuring(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        # no graph of the parameters beside the derivatives in delta; the other kernels of attention lack the second one
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for module, training in modes.items():
            module.training = training

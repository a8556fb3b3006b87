"""The local curvature <H>: the Hessian of the loss with respect to a layer's pre-activation, mean over samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from nin.nodes import NoisyNetwork
from nin.sites import Site, find_linear
from nin.threads import threads

DENSE_LIMIT = 1024  # above this many units top_mode goes matrix-free: a dense <H> would cost d gradient passes


@dataclass(frozen=True)
class Mode:
    """An eigenvalue of <H>, its unit eigenvector (d,), and the residual |<H>v - lam v|."""

    lam: float
    vector: Tensor
    residual: float


def local_hessian(
    model: nn.Module, layer: str, x: Tensor, y: Tensor, *, loss: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "d d"]:
    """<H> = mean_i d^2 ell_i / dz_i dz_i^T at the pre-activation z of a linear layer, without noise.

    It is the exact Hessian, at delta = 0, of delta -> mean_i ell(f(x_i; z_i + delta), y_i): one shift shared by all
    samples, d gradient passes. Autograd drops the delta functions at the kinks of ReLU.
    loss(outputs, y) gives the mean or the per-sample losses, whose mean is taken. The model is put into eval mode
    for the measurement and back.
    Source: arXiv 2210.13599, the curvature that dictates the decay of the NIW.
    Raises ValueError for an unknown layer, with the list of candidates.
    """
    shifted, delta = _shifted_loss(model, layer, x, y, loss)
    with _measuring(model):
        columns = torch.vmap(partial(_multiply, shifted, delta), chunk_size=16)
        return columns(torch.eye(len(delta)).to(delta))


def top_mode(model: nn.Module, layer: str, x: Tensor, y: Tensor, *, loss: Callable[[Tensor, Tensor], Tensor]) -> Mode:
    """Return the algebraically largest eigenvalue of <H> and its eigenvector, sign fixed by a positive largest entry.

    Dense up to DENSE_LIMIT units, else Lanczos (scipy's eigsh) on exact Hessian-vector products.
    """
    shifted, delta = _shifted_loss(model, layer, x, y, loss)
    if len(delta) <= DENSE_LIMIT:
        hessian = local_hessian(model, layer, x, y, loss=loss).double()
        with threads(1):  # on more, LAPACK rounds differently
            values, vectors = torch.linalg.eigh(hessian)
        lam, vector = values[-1], vectors[:, -1]
        product = hessian @ vector
    else:

        def multiply(v: np.ndarray) -> np.ndarray:
            tangent = torch.from_numpy(np.ascontiguousarray(v).reshape(-1)).to(delta)
            return _multiply(shifted, delta, tangent).double().cpu().numpy()

        with _measuring(model):
            operator = LinearOperator((len(delta),) * 2, matvec=multiply, dtype=np.float64)
            values, vectors = eigsh(operator, k=1, which="LA", v0=np.ones(len(delta)))
            lam, vector = torch.tensor(values[0]), torch.from_numpy(vectors[:, 0].copy())
            product = torch.from_numpy(multiply(vectors[:, 0]))
    vector = vector * torch.sign(vector[vector.abs().argmax()])
    residual = torch.linalg.vector_norm(product.abs() - lam.abs() * vector.to(product).abs())
    return Mode(lam=float(lam), vector=vector.to(delta), residual=float(residual))


def _shifted_loss(model: nn.Module, layer: str, x: Tensor, y: Tensor, loss: Callable) -> tuple[Callable, Tensor]:
    weight = find_linear(model, layer).weight
    delta = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    site = Site(layer, "preactivation", (len(delta),), channels_first=False)
    noisy = NoisyNetwork(model, [site], niw=[delta[None]], sigma=[0], law="gaussian", generator=torch.Generator())
    ones = torch.ones(len(x), 1).to(weight)

    def shifted(delta: Tensor) -> Tensor:
        return loss(torch.func.functional_call(noisy, {"niw": delta[None]}, (x, ones)), y).mean()

    return shifted, delta


def _multiply(shifted: Callable, delta: Tensor, tangent: Tensor) -> Tensor:
    """<H> tangent, forward over reverse."""
    return torch.func.jvp(torch.func.grad(shifted), (delta,), (tangent,))[1]


@contextmanager
def _measuring(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():  # no graph of the parameters beside the derivatives in delta
            yield
    finally:
        for module, training in modes.items():
            module.training = training

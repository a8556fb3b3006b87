"""The local curvature <H>: the Hessian of the loss with respect to what a node is added to, mean over samples."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nin.model.evaluating import evaluating
from nin.model.nodes import NoisyNetwork
from nin.model.sites import find_site
from nin.probes.curvature.lanczos import Mode, lanczos
from nin.support.arguments import check_count
from nin.support.threads import threads

DENSE_LIMIT = 256  # above this many units top_mode goes matrix-free: some 20 products instead of d of them
AT_ONCE = 8  # directions in one vectorised product: the memory of 16 gradient passes


Loss = Callable[[Tensor, Tensor], Tensor]


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
    curvature = LocalHessian(model, layer, x, y, loss=loss, at=at, batch_size=batch_size)
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
    curvature = LocalHessian(model, layer, x, y, loss=loss, at=at, batch_size=batch_size)
    if 2 * count >= curvature.d:
        raise ValueError(
            f"count={count} at both ends is too much for d={curvature.d} units; take the eigenvalues of local_hessian."
        )
    modes = lanczos(curvature.product, curvature.d, like=curvature.delta, count=2 * count, which="BE")
    return modes[: count - 1 : -1], modes[:count]


def top_mode(model: nn.Module, layer: str, x: Tensor, y: Tensor, *, loss: Loss) -> Mode:
    """Return the algebraically largest eigenvalue of <H> and its eigenvector, sign fixed by a positive largest entry.

    Dense up to DENSE_LIMIT units, else Lanczos (scipy's eigsh) on exact Hessian-vector products.
    """
    curvature = LocalHessian(model, layer, x, y, loss=loss)
    if curvature.d > DENSE_LIMIT:
        return lanczos(curvature.product, curvature.d, like=curvature.delta)[0]
    hessian = (curvature @ torch.eye(curvature.d).to(curvature.delta)).double()
    with threads(1):  # on more, LAPACK rounds differently
        values, vectors = torch.linalg.eigh(hessian)
    return Mode.of(values[-1], vectors[:, -1], hessian @ vectors[:, -1], like=curvature.delta)


def sharpness(model: nn.Module, x: Tensor, y: Tensor, *inputs: Tensor, loss: Loss) -> Mode:
    """The largest eigenvalue of the Hessian of mean_i ell(f(x_i), y_i) in all parameters of a model, and its mode.

    Gradient descent of rate eta is stable where eta lam < 2. Lanczos on exact Hessian-vector products; vector (p,) runs
    through model.named_parameters(). inputs are further arguments of the model: sharpness(noisy, x, y, eps, loss=loss)
    counts the noise injection weights too, under the noise eps. Autograd drops the kinks of ReLU.
    Raises ValueError for a model without parameters.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if not parameters:
        raise ValueError("model has no parameters, and no Hessian in them.")
    like = torch.nn.utils.parameters_to_vector(parameters.values())

    def total(values: dict[str, Tensor]) -> Tensor:
        return loss(torch.func.functional_call(model, values, (x, *inputs)), y).mean()

    with evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        _, pull_back = torch.func.vjp(torch.func.grad(total), parameters)

        def product(v: Tensor) -> Tensor:
            parts = v.split([parameter.numel() for parameter in parameters.values()])
            pairs = zip(parameters.items(), parts, strict=True)
            (column,) = pull_back({name: part.view_as(parameter) for (name, parameter), part in pairs})
            return torch.cat([part.flatten() for part in column.values()])  # derivatives may not be contiguous

        return lanczos(product, len(like), like=like)[0]


class LocalHessian:
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
        # no graph of the parameters beside the derivatives in delta; attention's other kernels lack the second one
        with evaluating(self.model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            for x, y in zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True):
                _, pull_back = torch.func.vjp(torch.func.grad(partial(self._shifted_loss, x, y)), self.delta)
                product = torch.vmap(lambda v, pull_back=pull_back: pull_back(v)[0], chunk_size=AT_ONCE)
                total += len(x) / len(self.x) * product(columns)
        return total

    def product(self, v: Tensor) -> Tensor:
        """<H> v."""
        return (self @ v[None])[0]

    def _shifted_loss(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        ones = torch.ones(len(x), 1).to(delta)
        return self.loss(torch.func.functional_call(self.noisy, {"niw": delta.view(self.shape)}, (x, ones)), y).mean()

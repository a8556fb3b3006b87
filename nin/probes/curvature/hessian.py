"""The local curvature <H>: the Hessian of the loss in the values that a node is added to, averaged over samples."""

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

DENSE_LIMIT = 256  # with more units top_mode is matrix-free: about 20 Hessian-vector products instead of d
AT_ONCE = 8  # directions per vectorised product: the memory of 16 gradient passes

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

    This is the exact Hessian, at delta = 0, of delta -> mean_i ell(f(x_i; z_i + delta), y_i) with one shift shared by
    all samples; it takes d gradient passes. Autograd omits the delta functions at the kinks of ReLU. The model is
    measured in eval mode and not changed.

    loss        loss(outputs, y) -> the mean or the per-sample losses, which are averaged
    at          where a node would be added, as in `nin.inject`; None: z is the pre-activation of a linear layer, or the
                flattened input of a convolution
    batch_size  samples per batch (None: all); batches are weighted by their size; bounds the memory
    Source: arXiv 2210.13599, the curvature that sets the decay rate of the NIW.
    Raises ValueError for an unknown layer, listing the candidates, and for batch_size < 1.
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
    """The `count` algebraically largest and the `count` smallest eigenvalues of <H>, each list outermost first.

    Lanczos (ARPACK through scipy's eigsh) on exact Hessian-vector products, without a d x d matrix. Each Mode carries
    its residual. Other arguments and errors as in `local_hessian`; also raises ValueError unless 2 count < d.
    """
    check_count("count", count)
    curvature = LocalHessian(model, layer, x, y, loss=loss, at=at, batch_size=batch_size)
    if 2 * count >= curvature.d:
        raise ValueError(
            f"count={count} at both ends is too many for d={curvature.d} units; use the eigenvalues of local_hessian."
        )
    modes = lanczos(curvature.product, curvature.d, like=curvature.delta, count=2 * count, which="BE")
    return modes[: count - 1 : -1], modes[:count]


def top_mode(model: nn.Module, layer: str, x: Tensor, y: Tensor, *, loss: Loss) -> Mode:
    """The algebraically largest eigenvalue of <H> and its eigenvector, whose largest entry is positive.

    Dense up to DENSE_LIMIT units, above it Lanczos (scipy's eigsh) on exact Hessian-vector products.
    """
    curvature = LocalHessian(model, layer, x, y, loss=loss)
    if curvature.d > DENSE_LIMIT:
        return lanczos(curvature.product, curvature.d, like=curvature.delta)[0]
    hessian = (curvature @ torch.eye(curvature.d).to(curvature.delta)).double()
    with threads(1):  # on more, LAPACK rounds differently
        values, vectors = torch.linalg.eigh(hessian)
    return Mode.of(values[-1], vectors[:, -1], hessian @ vectors[:, -1], like=curvature.delta)


def sharpness(model: nn.Module, x: Tensor, y: Tensor, *inputs: Tensor, loss: Loss) -> Mode:
    """The largest eigenvalue of the Hessian of mean_i ell(f(x_i), y_i) in all parameters of a model, as a Mode.

    Gradient descent with learning rate eta is stable if eta lam < 2. Lanczos on exact Hessian-vector products; the
    eigenvector (p,) is ordered as model.named_parameters(). Autograd omits the kinks of ReLU.

    inputs    further arguments of the model: sharpness(noisy, x, y, eps, loss=loss) includes the noise injection
              weights, under the noise eps
    Raises ValueError for a model without parameters.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if not parameters:
        raise ValueError("model has no parameters, hence no Hessian in its parameters.")
    like = torch.nn.utils.parameters_to_vector(parameters.values())

    def total(values: dict[str, Tensor]) -> Tensor:
        return loss(torch.func.functional_call(model, values, (x, *inputs)), y).mean()

    with evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        _, pull_back = torch.func.vjp(torch.func.grad(total), parameters)

        def product(v: Tensor) -> Tensor:
            parts = v.split([parameter.numel() for parameter in parameters.values()])
            pairs = zip(parameters.items(), parts, strict=True)
            (column,) = pull_back({name: part.view_as(parameter) for (name, parameter), part in pairs})
            return torch.cat([part.flatten() for part in column.values()])  # some derivatives are not contiguous

        return lanczos(product, len(like), like=like)[0]


class LocalHessian:
    """<H> as an operator: exact products <H> v, computed batch by batch.

    Reverse over reverse mode gives v <H>, which equals <H> v by symmetry. Forward over reverse is slower here, lacks
    kernels (attention, layer norm), and its level is shared by all threads of a process.
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

    def __matmul__(self, vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """The products of <H> with the rows of a block of vectors."""
        total = torch.zeros_like(vectors)
        # derivatives in delta only, no graph of the parameters; only the math kernel of attention has second ones
        with evaluating(self.model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            for x, y in zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True):
                _, pull_back = torch.func.vjp(torch.func.grad(partial(self._shifted_loss, x, y)), self.delta)
                product = torch.vmap(lambda v, pull_back=pull_back: pull_back(v)[0], chunk_size=AT_ONCE)
                total += len(x) / len(self.x) * product(vectors)  # (k, d)
        return total

    def product(self, v: Tensor) -> Tensor:
        """<H> v."""
        return (self @ v[None])[0]

    def _shifted_loss(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        ones = torch.ones(len(x), 1).to(delta)
        return self.loss(torch.func.functional_call(self.noisy, {"niw": delta.view(self.shape)}, (x, ones)), y).mean()

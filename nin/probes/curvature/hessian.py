"""The local curvature <H>: the Hessian of the loss in the values that a node is added to, averaged over samples."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.functional import call_with
from nin.model.independence import batch_statistics, check_independent, check_repeats
from nin.model.layers import weight_like
from nin.model.nodes import NoisyNetwork
from nin.model.sites import find_site
from nin.model.views import Forward, Inputs, targeted, viewed
from nin.probes.curvature.differentiable import Loss, check_finite, check_mean, check_samples, twice_differentiable
from nin.probes.curvature.lanczos import Mode, lanczos
from nin.probes.curvature.perceptron import in_closed_form, perceptron_hessian
from nin.support.arguments import check_choice, check_count
from nin.support.memory import check_memory, kept_of
from nin.support.precision import widened
from nin.support.threads import threads

DENSE_LIMIT = 256  # with more units top_mode is matrix-free: about 20 Hessian-vector products instead of d
Part = tuple[Tensor, Tensor, tuple[Tensor, ...]]  # samples, targets, further inputs
GRAPHS = 6  # times what a forward pass keeps: what a Hessian-vector product in the parameters takes, measured
AT_ONCE = 8  # directions per vectorised product
OF_SHIFT, OF_DIRECTION = 3.0, 2.25  # the same for products in a shift: once, and for each direction at once


def local_hessian(
    model: nn.Module,
    layer: str,
    x: Inputs,
    y: Inputs,
    *,
    loss: Loss,
    at: str | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> Float[Tensor, "d d"]:
    """<H> = mean_i d^2 ell_i / dz_i dz_i^T at the pre-activation z of a layer, without noise.

    This is the exact Hessian, at delta = 0, of delta -> mean_i ell(f(x_i; z_i + delta), y_i) with one shift shared by
    all samples; it takes d gradient passes (less for `nin.model.networks.MLP`: `python -m benchmarks hessians`) and
    3 d^2 numbers of memory. Autograd omits the delta functions at the kinks of ReLU. The model is not changed.

    x, y        tensors with one row for each sample, or sequences or mappings of them: model(x), model(*x), model(**x)
    loss        loss(outputs, y) -> the mean or the per-sample losses, which are averaged
    forward     forward(model, x) -> outputs, in place of model(x), such as lambda model, x: model(**x).logits
    at          where a node would be added, as in `nin.inject`; None: z is the pre-activation of a linear layer, or the
                flattened input of a convolution
    batch_size  samples per batch (None: all); batches are weighted by their size; bounds the memory
    Source: arXiv 2210.13599, the curvature that sets the decay rate of the NIW.
    Raises ValueError for an unknown layer, listing the candidates, batch_size < 1, an empty batch, parameters that are
    not finite, a model that draws in eval mode, and for a batch_size with a model whose samples see each other or with
    a loss that is not a mean over samples (one that ignores targets must return a loss for each sample), for d too
    large for the memory: use `extremes`, and for a batch too large for it.
    """
    curvature = LocalHessian(model, layer, x, y, loss=loss, at=at, batch_size=batch_size, forward=forward)
    check_memory(
        f"the Hessian of layer={layer!r}, d = {curvature.d},",
        3 * curvature.delta.element_size() * curvature.d**2,
        "use extremes, which needs products with vectors alone",
        device=curvature.delta.device,
    )
    return curvature.dense()


def extremes(
    model: nn.Module,
    layer: str,
    x: Inputs,
    y: Inputs,
    *,
    loss: Loss,
    count: int = 1,
    at: str | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> tuple[list[Mode], list[Mode]]:
    """The `count` algebraically largest and the `count` smallest eigenvalues of <H>, each list outermost first.

    Lanczos (ARPACK through scipy's eigsh) on exact Hessian-vector products, without a d x d matrix: tens of products at
    each end, of two gradient passes each. Each Mode carries its residual. Other arguments and errors as in
    `local_hessian`; also raises ValueError unless 2 count < d.
    """
    check_count("count", count)
    curvature = LocalHessian(model, layer, x, y, loss=loss, at=at, batch_size=batch_size, forward=forward)
    if 2 * count >= curvature.d:
        raise ValueError(
            f"count={count} at both ends is too many for d={curvature.d} units; use the eigenvalues of local_hessian."
        )
    curvature.check_memory(1)
    top = lanczos(curvature.product, curvature.d, like=curvature.delta, count=count)
    bottom = lanczos(curvature.product, curvature.d, like=curvature.delta, count=count, below=top[-1].lam)
    return top[::-1], bottom


def top_mode(
    model: nn.Module,
    layer: str,
    x: Inputs,
    y: Inputs,
    *,
    loss: Loss,
    at: str | None = None,
    forward: Forward | None = None,
) -> Mode:
    """The algebraically largest eigenvalue of <H> and its eigenvector, whose largest entry is positive.

    Dense up to DENSE_LIMIT units, above it Lanczos (scipy's eigsh) on exact Hessian-vector products. Arguments as for
    `local_hessian`.
    """
    curvature = LocalHessian(model, layer, x, y, loss=loss, at=at, forward=forward)
    if curvature.d > DENSE_LIMIT:
        curvature.check_memory(1)
        return lanczos(curvature.product, curvature.d, like=curvature.delta)[0]
    hessian = widened(curvature.dense())
    with threads(1):  # on more, LAPACK rounds differently
        values, vectors = torch.linalg.eigh(hessian)
    return Mode.of(values[-1], vectors[:, -1], hessian @ vectors[:, -1], like=curvature.delta)


def sharpness(
    model: nn.Module,
    x: Inputs,
    y: Inputs,
    *inputs: Tensor,
    loss: Loss,
    batch_norm: Literal["running", "batch"] | str = "running",
    frozen: bool = False,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> Mode:
    """The largest eigenvalue of the Hessian of mean_i ell(f(x_i), y_i) in the trainable parameters, as a Mode.

    Gradient descent with learning rate eta is stable if eta lam < 2. Lanczos on exact Hessian-vector products; the
    eigenvector (p,) is ordered as model.named_parameters(). Autograd omits the kinks of ReLU. The model is in eval
    mode, without dropout, and is not changed.

    x, y, loss, forward   as in `local_hessian`
    inputs      further arguments of the model: sharpness(noisy, x, y, eps, loss=loss) includes the noise injection
                weights, under the noise eps
    batch_norm  "running" (default): the running statistics, as in evaluation; "batch": the statistics of x, hence the
                loss that is trained on a batch x
    frozen      whether parameters with requires_grad=False count too
    batch_size  samples at a time (None: all), which bounds the memory: about six times what a forward pass keeps
    Takes about 20 products, of two gradient passes each. Raises ValueError for a model without such parameters, with
    parameters that are not finite, one that draws in eval mode, an empty batch, one too large for the memory, and for a
    batch_size with batch_norm="batch" or with a loss that is not a mean over samples.
    """
    check_choice("batch_norm", batch_norm, ("running", "batch"))
    if inputs and not (forward is None and isinstance(x, Tensor)):
        raise ValueError(
            "inputs: further arguments are for model(x, *inputs); put all of them into x, or into forward."
        )
    (model, x), (loss, y) = viewed(model, forward, x), targeted(loss, y)
    check_samples(x, y)
    if batch_size is not None:
        check_count("batch_size", batch_size)
        if batch_norm == "batch":
            raise ValueError(f"batch_size={batch_size} would give each part its own statistics; use None with 'batch'.")
    named = dict(model.named_parameters()) if frozen else {n: p for n, p in model.named_parameters() if p.requires_grad}
    parameters = {name: parameter.detach() for name, parameter in named.items()}
    if not parameters:
        raise ValueError("model has no trainable parameters, hence no Hessian in them; frozen=True counts all.")
    check_finite(parameters)
    check_repeats(model, (x, *inputs))
    like = torch.nn.utils.parameters_to_vector(parameters.values())
    sizes = [parameter.numel() for parameter in parameters.values()]
    size = batch_size or len(x)
    parts = [(x[i : i + size], y[i : i + size], tuple(z[i : i + size] for z in inputs)) for i in range(0, len(x), size)]

    def total(x: Tensor, y: Tensor, inputs: tuple[Tensor, ...], values: dict[str, Tensor]) -> Tensor:
        return len(y) * loss(call_with(model, values, (x, *inputs)), y).mean()

    def pulled(part: Part) -> Callable[[dict[str, Tensor]], tuple[dict[str, Tensor]]]:
        return torch.func.vjp(torch.func.grad(partial(total, *part)), parameters)[1]

    with evaluating(model), twice_differentiable(model):
        leaves = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
        most = min(size, len(x))
        needed = kept_of(
            lambda n: call_with(model, leaves, tuple(z[:n] for z in (x, *inputs))), most, model.parameters()
        )
    check_memory(
        f"the Hessian of the loss over {most} samples at a time",
        GRAPHS * needed,
        "pass a smaller batch_size" if batch_norm == "running" else "use fewer samples",
        device=like.device,
    )
    statistics = batch_statistics(model) if batch_norm == "batch" else nullcontext()
    with evaluating(model), statistics, torch.no_grad(), twice_differentiable(model):
        if len(parts) > 1:
            check_mean([model(x, *z) for x, _, z in parts], [y for _, y, _ in parts], loss)
        whole = pulled(parts[0]) if len(parts) == 1 else None  # kept; the graphs of many parts would not fit

        def product(v: Tensor) -> Tensor:
            pairs = zip(parameters.items(), v.split(sizes), strict=True)
            direction = {name: part.view_as(parameter) for (name, parameter), part in pairs}
            found = torch.zeros_like(v)
            for part in parts:
                (column,) = (whole or pulled(part))(direction)
                found += torch.cat([piece.flatten() for piece in column.values()])  # some are not contiguous
            return found / len(x)

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
        x: Inputs,
        y: Inputs,
        *,
        loss: Loss,
        at: str | None = None,
        batch_size: int | None = None,
        forward: Forward | None = None,
    ) -> None:
        if batch_size is not None:
            check_count("batch_size", batch_size)
        (model, x), (loss, y) = viewed(model, forward, x), targeted(loss, y)
        check_samples(x, y)
        check_finite(dict(model.named_parameters()))
        check_repeats(model, x)
        self.model, self.count, self.loss = model, len(x), loss
        self.parts = list(zip(*(values.split(batch_size or len(x)) for values in (x, y)), strict=True))
        if len(self.parts) > 1:
            check_independent(model, x)
            with evaluating(model), torch.no_grad():
                check_mean([model(part) for part, _ in self.parts], [targets for _, targets in self.parts], loss)
        site = find_site(model, layer, at=at, example=x[:2], batch_axis=0)  # one shift for all samples and tokens
        self.closed = partial(perceptron_hessian, model, layer, x, y) if in_closed_form(model, layer, at, x) else None
        self.delta = torch.zeros(site.shape).to(weight_like(model, layer)).flatten()
        self.d, self.shape = len(self.delta), (1, *site.shape)
        self.noisy = NoisyNetwork(
            model,
            [site],
            niw=[self.delta.view(self.shape)],
            sigma=[0],
            law="gaussian",
            generator=torch.Generator(),
            calls="same",
        )

    def check_memory(self, vectors: int) -> None:
        """ValueError if products with so many vectors do not fit into memory; what a few samples keep is measured."""
        with evaluating(self.model), twice_differentiable(self.model):
            (x, y), delta = self.parts[0], self.delta.clone().requires_grad_()
            # raises for gradient checkpoints, which would leave hooks below; two samples, which a batch norm may need
            torch.func.grad(partial(self._shifted_loss, x[:2], y[:2]))(self.delta)
            needed = kept_of(lambda n: self._shifted_loss(x[:n], y[:n], delta), len(x), self.model.parameters())
        check_memory(
            f"the Hessian of the loss over {len(x)} samples at a time",
            (OF_SHIFT + OF_DIRECTION * min(vectors, AT_ONCE)) * needed,
            "pass a smaller batch_size, or fewer samples",
            device=self.delta.device,
        )

    def __matmul__(self, vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """The products of <H> with the rows of a block of vectors."""
        total = torch.zeros_like(vectors)
        # derivatives in delta only, no graph of the parameters
        with evaluating(self.model), torch.no_grad(), twice_differentiable(self.model):
            for x, y in self.parts:
                _, pull_back = torch.func.vjp(torch.func.grad(partial(self._shifted_loss, x, y)), self.delta)
                product = torch.vmap(lambda v, pull_back=pull_back: pull_back(v)[0], chunk_size=AT_ONCE)
                total += len(x) / self.count * product(vectors)  # (k, d)
        return total

    def dense(self) -> Float[Tensor, "d d"]:
        """<H> itself, in closed form where there is one; ValueError if its products do not fit into memory."""
        if self.closed:
            with twice_differentiable(self.model), threads(1):  # on more, long sums round differently
                found = self.closed(loss=self.loss)
            if found is not None:
                return found
        self.check_memory(self.d)
        return self @ torch.eye(self.d).to(self.delta)

    def product(self, v: Tensor) -> Tensor:
        """<H> v."""
        return (self @ v[None])[0]

    def _shifted_loss(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        with self.noisy.using(1.0):  # the same shift for all samples
            return self.loss(call_with(self.noisy, {"niw": delta.view(self.shape)}, (x,)), y).mean()

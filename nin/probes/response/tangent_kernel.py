"""The interaction kernel Theta(x, x') = grad f(x) . grad f(x'), the empirical neural tangent kernel (2405.04074)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jacrev, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from nin.model.evaluating import evaluating
from nin.model.functional import call_with, trainable
from nin.model.independence import check_independent
from nin.model.views import Forward, Inputs, check_tensor, viewed
from nin.support.arguments import check_choice, check_count

OUTPUTS = ("trace", "full")
CHUNK_BYTES = 2**28  # of Jacobians in memory at a time; twice that for two different sets of samples


@dataclass(frozen=True)
class KernelEstimate:
    """An estimate of a kernel or its trace and its standard error over random directions."""

    value: Float[Tensor, "..."]
    stderr: Float[Tensor, "..."]


def kernel(
    model: nn.Module,
    x: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Literal["trace", "full"] | str = "trace",
    chunk: int | None = None,
    forward: Forward | None = None,
) -> Float[Tensor, "n m"] | Float[Tensor, "n C m C"]:
    """Theta(x_i, x'_j) = sum_p df(x_i)/dtheta_p df(x'_j)/dtheta_p over all trainable parameters, exact (equation (2)).

    x        a tensor with one row for each sample, or a sequence or mapping of them: model(x), model(*x), model(**x)
    x2       the second set of samples; None: x again
    forward  forward(model, x) -> outputs, in place of model(x), such as lambda model, x: model(**x).logits
    outputs  for a network with C outputs: "trace", sum_c Theta_cc (n, m), or "full", Theta_cd (n, C, m, C)
    chunk    samples whose Jacobians are in memory at a time, C x parameters numbers each; None: what fits into 256 MiB
    The model is in eval mode: batch norm uses its running statistics, and dropout is off. It is not changed.
    Raises ValueError for a model without trainable parameters, samples of different shapes, outputs that are not (n,)
    or (n, C, ...), and a model that draws in eval mode or whose samples see each other, naming the module.
    """
    return sum(_by_layer(*_viewed(model, forward, x, x2), outputs, chunk, whole=True).values())


def kernel_by_layer(
    model: nn.Module,
    x: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Literal["trace", "full"] | str = "trace",
    chunk: int | None = None,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """The contribution of each layer's parameters to `kernel`, by the layer's dotted name ("": the model itself)."""
    return _by_layer(*_viewed(model, forward, x, x2), outputs, chunk, whole=False)


def kernel_trace(
    model: nn.Module,
    x: Inputs,
    *,
    probes: int = 32,
    generator: torch.Generator | None = None,
    forward: Forward | None = None,
) -> KernelEstimate:
    """tr Theta = sum_i Theta(x_i, x_i), over samples and outputs, without Jacobians: the mean of |J^T s|^2, s = +-1.

    One backward pass per probe (Hutchinson 1990). generator: a CPU generator; None: one with seed 0.
    """
    check_count("probes", probes, minimum=2)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    model, x = viewed(model, forward, x)
    check_independent(model, x)
    with evaluating(model):
        f, parameters = function_of(model)
        values, pull = vjp(lambda p: f(p, x), parameters)
        squares = []
        for _ in range(probes):
            signs = 2.0 * torch.randint(2, values.shape, generator=generator) - 1
            (gradient,) = pull(signs.to(values))
            squares.append(sum(part.double().square().sum() for part in gradient.values()))
    return _mean(torch.stack(squares))


def kernel_sketch(
    model: nn.Module,
    x: Inputs,
    *,
    probes: int = 256,
    generator: torch.Generator | None = None,
    forward: Forward | None = None,
) -> KernelEstimate:
    """Theta (n, n), traced over outputs, without Jacobians: the mean of (J g)(J g)^T over Gaussian directions g.

    Two backward passes per probe. With one output the error of an entry is sqrt((Theta_ii Theta_jj + Theta_ij^2) /
    probes), on the diagonal sqrt(2 / probes) relative to it; stderr estimates this error from the probes.
    generator: a CPU generator; None: one with seed 0.
    """
    check_count("probes", probes, minimum=2)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    model, x = viewed(model, forward, x)
    check_independent(model, x)
    total = square = 0.0
    with evaluating(model):
        f, parameters = function_of(model)
        for _ in range(probes):
            drawn = {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in parameters.items()}
            direction = {name: value.to(parameters[name].device) for name, value in drawn.items()}
            moved = along(lambda p: f(p, x), parameters, direction)[1].double()
            outer = moved @ moved.T  # (n, n)
            total, square = total + outer, square + outer.square()
    mean = total / probes
    return KernelEstimate(mean, ((square / probes - mean**2) / (probes - 1)).clamp(min=0).sqrt())


def along(
    f: Callable[[Mapping[str, Tensor]], Tensor], parameters: dict[str, Tensor], direction: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """f and its derivative J v along a direction v, as the derivative in u of the linear map u -> (J^T u) . v."""
    values, pull = vjp(f, parameters)
    _, push = vjp(lambda u: pull(u)[0], torch.zeros_like(values))
    return values, push(direction)[0]


def _viewed(
    model: nn.Module, forward: Forward | None, x: Inputs, x2: Inputs | None
) -> tuple[nn.Module, Tensor, Tensor | None]:
    sets = (x,) if x2 is None else (x, x2)
    model, *tensors = viewed(model, forward, *sets)
    return model, tensors[0], None if x2 is None else tensors[1]


def _mean(values: Tensor) -> KernelEstimate:
    return KernelEstimate(values.mean(), values.std() / math.sqrt(len(values)))


def function_of(model: nn.Module) -> tuple[Callable[[Mapping[str, Tensor], Tensor], Tensor], dict[str, Tensor]]:
    """f(parameters, x) -> (n, C), and the trainable parameters."""
    parameters = trainable(model)
    if not parameters:
        raise ValueError("model has no trainable parameters (requires_grad): its kernel is zero everywhere.")

    def f(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the only attention kernel that can be vmapped and differentiated twice
            values = call_with(model, parameters, (x,))
        if not isinstance(values, Tensor) or values.shape[:1] != (len(x),):
            check_tensor(values)
            raise ValueError(
                f"model returned {tuple(values.shape)} for {len(x)} samples; the kernel needs (n,) or (n, outputs)."
            )
        return values.flatten(1) if values.dim() > 1 else values[:, None]

    return f, parameters


def _by_layer(
    model: nn.Module, x: Tensor, x2: Tensor | None, outputs: str, chunk: int | None, *, whole: bool
) -> dict[str, Tensor]:
    check_choice("outputs", outputs, OUTPUTS)
    if chunk is not None:
        check_count("chunk", chunk)
    if x2 is not None and x2.shape[1:] != x.shape[1:]:
        raise ValueError(f"x2 of shape {tuple(x2.shape)} must have samples like x, of shape {tuple(x.shape[1:])}.")
    check_independent(model, x)
    with evaluating(model), torch.no_grad():
        f, parameters = function_of(model)
        classes = f(parameters, x[:1]).shape[1]
        size = classes * sum(p.numel() * p.element_size() for p in parameters.values())
        chunk = max(CHUNK_BYTES // size, 1) if chunk is None else chunk

        recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())

        def jacobian(part: Tensor) -> dict[str, Tensor]:
            if recurrent:  # torch cannot vmap these
                return _one_by_one(f, parameters, part)
            one = vmap(jacrev(lambda p, sample: f(p, sample[None])[0]), in_dims=(None, 0))
            return {name: value.flatten(2) for name, value in one(parameters, part).items()}  # (n, C, parameters)

        same = x2 is None and len(x) <= chunk
        others = x if x2 is None else x2
        rows = [
            _block(left, jacobian, others, chunk, outputs, same=same, whole=whole)
            for left in map(jacobian, x.split(chunk))
        ]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


@torch.enable_grad()
def _one_by_one(f: Callable[..., Tensor], parameters: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The Jacobian (n, C, parameters) by name, one backward pass for each sample and output."""
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    rows = []
    for sample in x:
        outputs = f(leaves, sample[None])[0]
        options = {"retain_graph": True, "materialize_grads": True}
        rows.append([torch.autograd.grad(output, list(leaves.values()), **options) for output in outputs])
    return {
        name: torch.stack([torch.stack([gradient[place].flatten() for gradient in row]) for row in rows])
        for place, name in enumerate(leaves)
    }


def _block(
    left: Mapping[str, Tensor],
    jacobian: Callable[[Tensor], Mapping[str, Tensor]],
    x2: Tensor,
    chunk: int,
    outputs: str,
    *,
    same: bool,
    whole: bool,
) -> dict[str, Tensor]:
    """The rows of the kernel for the samples of `left`, by layer, against all of x2."""
    blocks: dict[str, list[Tensor]] = {}
    for right in [left] if same else map(jacobian, x2.split(chunk)):
        found: dict[str, Tensor] = {}
        for name in left:
            layer = "" if whole else name.rpartition(".")[0]
            a, b = left[name], right[name]
            if outputs == "trace":
                block = a.flatten(1) @ b.flatten(1).T  # (n, m)
            else:
                block = torch.einsum("icp,jdp->icjd", a, b)  # (n, C, m, C)
            found[layer] = found[layer] + block if layer in found else block
        for layer, block in found.items():
            blocks.setdefault(layer, []).append(block)
    axis = 1 if outputs == "trace" else 2
    return {layer: torch.cat(parts, axis) for layer, parts in blocks.items()}

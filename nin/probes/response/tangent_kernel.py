"""The interaction kernel Theta(x, x') = grad f(x) . grad f(x'), the empirical neural tangent kernel (2405.04074)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from nin.model.evaluating import evaluating
from nin.model.functional import call_with, trainable
from nin.model.independence import check_independent
from nin.model.views import Forward, Inputs, check_tensor, viewed
from nin.probes.response.jacobians import Jacobian, cuts
from nin.support.arguments import check_choice, check_count
from nin.support.memory import check_memory
from nin.support.precision import matching, widened
from nin.support.randomness import check_generator

OUTPUTS = ("trace", "full")


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
    chunk    samples whose Jacobians are in memory at a time; None: all of them, if 1 GiB holds one output of each.
             Jacobians of more than 256 MiB, C x p numbers for each sample, are computed in parts
    Costs (n + m) C backward passes of one sample (x2=None: n C), for Jacobians of more than 1 GiB and "full" several
    times as many, and n m C p multiply-adds for the trace, n m C^2 p for "full".
    The model is in eval mode: batch norm uses its running statistics, and dropout is off. It is not changed.
    Raises ValueError for a model without trainable parameters, samples of different shapes, outputs that are not (n,)
    or (n, C, ...), a kernel that does not fit into memory (8 n m bytes, times C^2 for "full", and the Jacobians), and a
    model that draws in eval mode or whose samples see each other, naming the module.
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
    if generator is not None:
        check_generator(generator)
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
            squares.append(sum(widened(part).square().sum() for part in gradient.values()))
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
    if generator is not None:
        check_generator(generator)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    model, x = viewed(model, forward, x)
    check_independent(model, x)
    total = square = 0.0
    with evaluating(model):
        f, parameters = function_of(model)
        for _ in range(probes):
            drawn = {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in parameters.items()}
            direction = {name: value.to(parameters[name].device) for name, value in drawn.items()}
            moved = widened(along(lambda p: f(p, x), parameters, direction)[1])
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
    if not all(map(len, tensors)):
        raise ValueError(f"x and x2 have {', '.join(str(len(part)) for part in tensors)} samples; pass at least one.")
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
        recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
        jacobian = Jacobian.of(f, parameters, x[:1], present=model.parameters(), vectorised=not recurrent)
        by = dict.fromkeys(parameters, "") if whole else {name: name.rpartition(".")[0] for name in parameters}
        n, m, alone = len(x), len(x if x2 is None else x2), outputs == "trace"
        size, width = jacobian.cut(n if x2 is None else n + m, chunk, alone=alone)
        _check_memory(jacobian, n, m, size, width, layers=len(set(by.values())), alone=alone, same=x2 is None)
        return (_trace if alone else _full)(jacobian.tried(x[:1]), x, x2, size, width, by)


def _check_memory(
    jacobian: Jacobian, n: int, m: int, size: int, width: int, *, layers: int, alone: bool, same: bool
) -> None:
    """ValueError for a kernel, or for blocks of its Jacobian, that do not fit into memory."""
    C, entries = jacobian.outputs, n * m * layers
    result = 8 * entries if alone else jacobian.like.element_size() * entries * C**2
    whole = same and size >= n and (alone or width == C)
    fewer = "lower n, or use kernel_sketch" if alone else "lower n, or use outputs='trace' or kernel_sketch"
    check_memory(
        f"the kernel of n = {n} and m = {m} samples with C = {C} outputs, in blocks of {size} x {width},",
        result + jacobian.memory(size, width, blocks=1 if whole else 2),
        f"{fewer}, or, for smaller blocks, chunk=1",
        device=jacobian.like.device,
    )


def _trace(
    jacobian: Jacobian, x: Tensor, x2: Tensor | None, size: int, width: int, by: Mapping[str, str]
) -> dict[str, Float[Tensor, "n m"]]:
    """sum_c J_c J_c^T by layer: each row of J is computed once if the rows of one output fit into memory together."""
    others = x if x2 is None else x2
    theta = {layer: torch.zeros(len(x), len(others), dtype=torch.float64) for layer in by.values()}
    for outputs in cuts(jacobian.outputs, width):
        for i in cuts(len(x), size):
            left = jacobian.rows(x[i], outputs)
            for j in cuts(len(others), size):
                if x2 is None and j.start < i.start:
                    continue
                right = left if x2 is None and i == j else jacobian.rows(others[j], outputs)
                for layer, block in _products(left, right, by, lambda a, b: a.flatten(1) @ b.flatten(1).T).items():
                    theta[layer][i, j] += block.cpu().double()
                    if x2 is None and i != j:
                        theta[layer][j, i] += block.T.cpu().double()
    return {layer: matching(total, jacobian.like) for layer, total in theta.items()}


def _full(
    jacobian: Jacobian, x: Tensor, x2: Tensor | None, size: int, width: int, by: Mapping[str, str]
) -> dict[str, Float[Tensor, "n C m C"]]:
    """J J^T by layer; the rows of a block are computed again for each block that they meet."""
    others, C = x if x2 is None else x2, jacobian.outputs
    theta = {layer: jacobian.like.new_empty(len(x), C, len(others), C) for layer in by.values()}
    blocks, against = ([(i, c) for i in cuts(len(z), size) for c in cuts(C, width)] for z in (x, others))
    for place, (i, c) in enumerate(blocks):
        left = jacobian.rows(x[i], c)
        for j, d in against[place:] if x2 is None else against:
            right = left if x2 is None and (i, c) == (j, d) else jacobian.rows(others[j], d)
            for layer, block in _products(left, right, by, partial(torch.einsum, "icp,jdp->icjd")).items():
                theta[layer][i, c, j, d] = block
                if x2 is None:
                    theta[layer][j, d, i, c] = block.permute(2, 3, 0, 1)
    return theta


def _products(
    left: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    by: Mapping[str, str],
    product: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """The product of the rows of two blocks, summed over the parameters of a layer."""
    found: dict[str, Tensor] = {}
    for name, layer in by.items():
        block = product(left[name], right[name])
        found[layer] = found[layer] + block if layer in found else block
    return found

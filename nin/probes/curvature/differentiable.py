"""What exact second derivatives ask of a network, its loss and its samples, and the kernels that provide them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nin.model.functional import naming_derivatives

Loss = Callable[..., Tensor]
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5}  # of gradients, relative to the largest


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Use kernels that have second derivatives: of attention the mathematical one, of recurrent layers not mkldnn's.

    Raises ValueError for an operation that has none.
    """
    with sdpa_kernel(SDPBackend.MATH), naming_derivatives():
        if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
            yield
            return
        before, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, False
        try:
            yield
        finally:
            torch.backends.mkldnn.enabled = before


def check_samples(x: Tensor, y: Tensor) -> None:
    """ValueError for an empty batch, for x and y of different length, and for x that is not finite."""
    if not len(x) or len(x) != len(y):
        raise ValueError(f"x has {len(x)} and y has {len(y)} samples; pass the same number, at least one.")
    if x.is_floating_point() and not x.isfinite().all():
        raise ValueError(f"x holds {int((~x.isfinite()).sum())} values that are not finite.")


def check_finite(parameters: Mapping[str, Tensor]) -> None:
    """ValueError for a parameter that is not finite, naming it."""
    for name, parameter in parameters.items():
        if not parameter.isfinite().all():
            raise ValueError(f"parameter {name!r} is not finite: the network has diverged; measure earlier in the run.")


def check_mean(outputs: Sequence[Tensor], y: Sequence[Tensor], loss: Loss) -> None:
    """ValueError if the loss of all samples is not the mean of those of their batches, weighted by their sizes."""
    if not is_mean(outputs, y, loss):
        raise ValueError(
            f"loss of all {sum(map(len, y))} samples: it is not a mean over samples (it ignores targets, weighs them, "
            "or lets samples see each other), and batches cannot be put together. Return one loss for each sample, or "
            "use batch_size=None."
        )


def is_mean(outputs: Sequence[Tensor], y: Sequence[Tensor], loss: Loss) -> bool:
    """Whether batches of outputs, weighted by their sizes, give the gradient in the outputs that all give together.

    The gradient tells what the value does not: samples of nearly equal losses may have any weights.
    """
    if not all(isinstance(part, Tensor) for part in outputs):
        return True
    count = sum(map(len, y))
    parts = torch.cat([len(t) / count * _in_outputs(f, t, loss) for f, t in zip(outputs, y, strict=True)])
    whole = _in_outputs(torch.cat(list(outputs)), torch.cat(list(y)), loss)
    return bool(((parts - whole).abs() <= ROUNDING.get(whole.dtype, 1e-2) * whole.abs().max()).all())


def _in_outputs(outputs: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The gradient of the mean loss in the outputs; zero for a loss without one."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = outputs.detach().clone().requires_grad_()
        value = loss(leaf, y.clone()).mean()
        return torch.autograd.grad(value, leaf)[0] if value.requires_grad else torch.zeros_like(leaf)

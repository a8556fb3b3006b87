"""What exact second derivatives ask of a network, its loss and its samples, and the kernels that provide them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nin.model.functional import naming_derivatives

Loss = Callable[..., Tensor]


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
    if not all(isinstance(part, Tensor) for part in outputs):
        return
    whole, targets = torch.cat(list(outputs)), torch.cat(list(y))
    value = loss(whole, targets).mean().item()
    mean = sum(len(t) * loss(f, t).mean().item() for f, t in zip(outputs, y, strict=True)) / len(targets)
    if abs(mean - value) > 1e-4 * max(abs(value), abs(mean)):
        raise ValueError(
            f"loss of all {len(targets)} samples is {value:.6g}, and the mean over batches {mean:.6g}: it is not a "
            "mean over samples (it ignores targets, or weighs them), and batches cannot be put together. Return one "
            "loss for each sample, or use batch_size=None."
        )

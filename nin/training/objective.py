"""The loss that runs minimise: one of the papers' by name, or a function of one's own, with its value per sample."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from nin.model.losses import LOSSES, WITH_GRADIENT

OwnLoss = Callable[[Tensor, Tensor], Tensor]
CLOSE = {torch.float64: 1e-7, torch.float32: 1e-4}  # relative: sums of losses in two orders


class Objective:
    """A loss of K networks: `objective(outputs, y)` per sample, `objective.mean(outputs, y)` as it is minimised.

    loss  a name of LOSSES, or loss(outputs, y) -> the losses of the samples, or their mean, of one network. For outputs
          with further axes, such as tokens, the loss of a sample is the mean over them
    """

    def __init__(self, loss: str | OwnLoss) -> None:
        self.own = None if isinstance(loss, str) else loss
        self.name = loss if isinstance(loss, str) else None

    def __call__(self, outputs: Shaped[Tensor, "K batch ..."], y: Shaped[Tensor, "K batch ..."]) -> Tensor:
        """The loss (K, batch) of each sample."""
        if self.name:
            return _over_samples(LOSSES[self.name](outputs, y), 2)
        return torch.stack([self._by_sample(*pair) for pair in zip(outputs, y, strict=True)])

    def mean(self, outputs: Shaped[Tensor, "K batch ..."], y: Shaped[Tensor, "K batch ..."]) -> Float[Tensor, " K"]:
        """The mean loss (K,) of each network; of a loss of one's own exactly the value that it gives."""
        if self.name:
            return self(outputs, y).mean(1)
        return torch.stack([self.own(*pair).mean() for pair in zip(outputs, y, strict=True)])

    def with_gradient(
        self, outputs: Float[Tensor, "K batch outputs"], y: Shaped[Tensor, "K batch ..."]
    ) -> tuple[Float[Tensor, " K"], Float[Tensor, "K batch outputs"]]:
        """The mean losses (K,), and batch times their gradients by the outputs."""
        if self.name:
            losses, gradient = WITH_GRADIENT[self.name](outputs, y)
            return losses.mean(1), gradient
        with torch.enable_grad():
            leaf = outputs.detach().clone().requires_grad_()
            mean = self.mean(leaf, y)
            return mean.detach(), y.shape[1] * torch.autograd.grad(mean.sum(), leaf)[0]

    def check(self, outputs: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> None:
        """ValueError for a loss that cannot be computed, that is not finite, or not a mean over the samples."""
        try:
            whole, parts = self.mean(outputs[None], y[None])[0], self(outputs[None], y[None])[0]
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self}: it cannot be computed from outputs {_kind(outputs)} and targets {_kind(y)}: "
                f"{str(error).splitlines()[0]}. 'cross_entropy' takes integer labels, 'mse' labels or numbers; for "
                "anything else pass loss=, a function (outputs, y) -> losses."
            ) from error
        whole, parts = whole.double(), parts.double()
        if not parts.isfinite().all() and outputs.isfinite().all():
            raise ValueError(
                f"{self}: it is not finite for {int((~parts.isfinite()).sum())} of {len(y)} samples at the start; the "
                "loss of every sample is measured, and none may be empty, as one with only ignored targets is."
            )
        error = (whole - parts.mean()).abs()
        if error > CLOSE.get(outputs.dtype, 1e-4) * max(whole.abs().item(), parts.abs().mean().item()):
            raise ValueError(
                f"{self}: over {len(y)} samples it gives {whole:.6g}, the mean of the samples alone is "
                f"{parts.mean():.6g}. nin.train measures the loss of each sample; return the losses of the samples "
                "(reduction='none', weights and masks included), or record a loop of your own with nin.Record."
            )

    def __str__(self) -> str:
        return f"loss={self.name or getattr(self.own, '__name__', self.own)!r}"

    def _by_sample(self, outputs: Tensor, y: Tensor) -> Float[Tensor, " batch"]:
        """A loss of one's own by sample; one that is a mean is asked about each sample alone."""
        losses = self.own(outputs, y)
        if losses.dim():
            if len(losses) != len(y):
                raise ValueError(f"it returned {tuple(losses.shape)} losses for {len(y)} samples")
            return _over_samples(losses, 1)
        f, t = outputs.unsqueeze(1), y.unsqueeze(1)
        try:
            return torch.vmap(self.own)(f, t)
        except RuntimeError:  # a loss that branches on values
            return torch.stack([self.own(*pair) for pair in zip(f, t, strict=True)])


def _over_samples(losses: Tensor, axes: int) -> Tensor:
    """The mean over all axes after the first `axes`."""
    return losses.flatten(axes).mean(axes) if losses.dim() > axes else losses


def _kind(values: Tensor) -> str:
    return f"of {str(values.dtype).removeprefix('torch.')} and shape {tuple(values.shape)}"

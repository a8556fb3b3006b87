"""The noisy and the clean loss of any network on samples and noise that never change."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nin.model.evaluating import evaluating
from nin.model.independence import batch_statistics, even_parts
from nin.model.losses import accuracy
from nin.model.nodes import NoisyNetwork
from nin.model.noise import draw_noise
from nin.model.views import Forward, Inputs, View, numbered, targeted
from nin.support.precision import widened
from nin.support.randomness import kept_randomness
from nin.training.expected import ratio_error, spread_evenly

SHOWN = 512  # samples of the clean loss, half of `eval_samples` of RunConfig: the record should cost little
GROUPS = 32  # of samples, whose mean losses give the standard error if the loss is a mean
SEED = 0  # of the noise


class FixedSamples:
    """The expected noisy loss on `count` samples with draws +-eps, and the clean loss on the first SHOWN samples.

    As `nin.training.expected`, for one network of any kind and a loss that may be a mean. The network is measured in
    eval mode; batch norms use the statistics of the samples of a pass. The network is not changed.
    """

    def __init__(
        self,
        noisy: NoisyNetwork,
        x: Inputs,
        y: Inputs,
        *,
        loss: Callable[..., Tensor],
        forward: Forward | None = None,
        count: int,
    ) -> None:
        rows, (numbers,) = numbered("x", x)
        self.x, (self.loss, self.y) = numbers, targeted(loss, y)
        if not len(self.x) or len(self.x) != len(self.y):
            raise ValueError(
                f"x has {len(self.x)} and y has {len(self.y)} samples; pass the same number, at least one."
            )
        self.noisy, self.view = noisy, View(noisy, rows, forward)
        self.index = spread_evenly(count, len(self.x))
        generator = torch.Generator().manual_seed(SEED)
        self.draws = [
            draw_noise(count, len(niw), law=law, generator=generator)
            for niw, law in zip(noisy.weights.values(), noisy.laws, strict=True)
        ]
        self.labelled = isinstance(y, Tensor) and y.dim() == 1 and not y.is_floating_point()
        self.start: Float[np.ndarray, " groups"] | None = None
        self.at_start = (np.nan, np.nan)  # the first clean loss, and the same on shuffled targets

    def expected(self) -> tuple[float, float]:
        """The expected noisy loss at the present weights, and the standard error of its ratio to the first one."""
        chunks = torch.arange(len(self.index)).split(even_parts(len(self.index)))
        with self._untouched():
            parts = [self._noisy(chunk) for chunk in chunks]
        mean = float(np.average([value for value, _ in parts], weights=list(map(len, chunks))))
        losses = np.concatenate([groups for _, groups in parts])
        if self.start is None:
            self.start = losses
        return mean, float(ratio_error(losses, self.start)) if len(losses) > 1 else np.nan

    def clean(self) -> tuple[float, float]:
        """The mean loss and the accuracy (NaN unless outputs are classes) without noise."""
        count, device = min(len(self.x), SHOWN), self._device()
        order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))
        first = np.isnan(self.at_start[0])
        loss = right = shuffled = 0.0
        with self._untouched(), self.noisy.using(None):
            for part in torch.arange(count).split(even_parts(count)):
                x, y, others = (
                    values[index.to(values.device)].to(device)
                    for values, index in ((self.x, part), (self.y, part), (self.y, order[part]))
                )
                outputs = self.view(x)
                loss += len(x) * widened(self.loss(outputs, y)).mean().item()
                if first:
                    shuffled += len(x) * widened(self.loss(outputs, others)).mean().item()
                classes = self.labelled and isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1
                right += widened(accuracy(outputs, y)).sum().item() if classes else np.nan
        if first:
            self.at_start = loss / count, shuffled / count
        return loss / count, right / count

    def _device(self) -> torch.device:
        return next(iter(self.noisy.weights.values())).device

    def shown(self) -> tuple[Tensor, Tensor]:
        """The samples of the clean loss and their targets, as tensors."""
        return self.x[:SHOWN].to(self._device()), self.y[:SHOWN].to(self._device())

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.noisy))
            stack.enter_context(batch_statistics(self.noisy))
            stack.enter_context(torch.no_grad())
            stack.enter_context(kept_randomness())
            yield

    def _noisy(self, chunk: Int[Tensor, " chunk"]) -> tuple[float, Float[np.ndarray, " groups"]]:
        """The loss of some samples averaged over +-eps, and the same of groups of them."""
        device = self._device()
        x, y = (values[self.index[chunk].to(values.device)].to(device) for values in (self.x, self.y))
        scaled = [sigma * draws[chunk] for sigma, draws in zip(self.noisy.sigmas, self.draws, strict=True)]
        whole, groups = [], []
        for sign in (1.0, -1.0):
            with self.noisy.using({layer: sign * eps for layer, eps in zip(self.noisy.layers, scaled, strict=True)}):
                outputs = self.view(x)
            value, parts = self._losses(outputs, y)
            whole.append(value)
            groups.append(parts)
        return float(np.mean(whole)), np.mean(groups, axis=0)

    def _losses(self, outputs: Any, y: Tensor) -> tuple[float, Float[np.ndarray, " groups"]]:
        """The mean loss, and the loss of each sample, or of groups of samples if the loss is a mean."""
        loss = self.loss(outputs, y)
        if loss.dim():
            by_sample = widened(loss.detach())
            by_sample = by_sample.flatten(1).mean(1) if by_sample.dim() > 1 else by_sample
            return by_sample.mean().item(), by_sample.cpu().numpy()
        if not isinstance(outputs, Tensor) or len(outputs) != len(y):
            return loss.item(), np.full(1, loss.item())
        groups = max(1, min(GROUPS, len(y) // 2))
        f, t = (values[: len(y) // groups * groups].unflatten(0, (groups, -1)) for values in (outputs, y))
        try:
            parts = torch.vmap(self.loss)(f, t)
        except RuntimeError:  # a loss that branches on values
            parts = torch.stack([self.loss(*pair) for pair in zip(f, t, strict=True)])
        return loss.item(), widened(parts).cpu().numpy()

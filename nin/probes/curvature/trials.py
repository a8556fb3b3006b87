"""Independent trials of the first training steps of a noisy network: batches, judging samples and noise, drawn once."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from nin.model.functional import naming_derivatives
from nin.model.layer_weights import by_layer
from nin.model.nodes import NoisyNetwork
from nin.model.noise import draw_noise
from nin.model.views import Forward, Inputs, targeted, viewed
from nin.probes.curvature.differentiable import is_mean
from nin.support.arguments import check_count, check_number
from nin.support.precision import matching
from nin.support.randomness import check_generator

Loss = Callable[..., Tensor]
Gradient = dict[str, Tensor]  # by the name of the parameter
Sigmas = tuple[float, ...]  # one for each layer with nodes


@dataclass(frozen=True)
class Samples:
    """Samples x (n, ...), y (n, ...), and for each layer eps / sigma (n, nodes)."""

    x: Tensor
    y: Tensor
    noise: tuple[Float[Tensor, "n _"], ...]


@dataclass(frozen=True)
class Trial:
    """The batches of one run's first steps, and other samples with noise +-eps that judge the result."""

    batches: tuple[Samples, ...]
    judges: Samples

    def judging(self, sigmas: Sigmas) -> Samples:
        """The judges; without noise only the first half, because the second is the same."""
        if any(sigmas):
            return self.judges
        half = slice(len(self.judges.x) // 2)
        return Samples(self.judges.x[half], self.judges.y[half], tuple(noise[half] for noise in self.judges.noise))


class Trials:
    """K trials of `steps` steps each, and the losses of the network with any parameters and noise scale on them.

    All samples and noise are drawn here, from `generator`, and are the same for all learning rates and noise scales
    (common random numbers). The batches of a trial are cut from permutations of the data. Its judges are drawn from the
    samples that are in none of its batches, or from all samples if fewer than `judges` are left; each is used with
    noise eps and -eps.
    Everything runs on a copy of the network in eval mode, without dropout, whose parameters hold the present values;
    the network itself is never written to. A batch norm in training mode uses the statistics of its batch, as it does
    when the network trains; in eval mode its running ones, which are not those of the data before training.
    Raises ValueError for a `chunk` with a batch norm in training mode: each part would have its own statistics.
    """

    def __init__(
        self,
        noisy: NoisyNetwork,
        x: Inputs,
        y: Inputs,
        *,
        loss: Loss,
        batch_size: int,
        generator: torch.Generator,
        trials: int,
        judges: int,
        steps: int = 1,
        chunk: int | None = None,
        forward: Forward | None = None,
    ) -> None:
        if not isinstance(noisy, NoisyNetwork):
            raise ValueError(f"noisy is a {type(noisy).__name__}; pass nin.inject(model, layer, sigma=...).")
        self.network = copy.deepcopy(noisy).eval()
        _keep_batch_statistics(noisy, self.network, chunk)
        (self.view, x), (self.loss, y) = viewed(self.network, forward, x), targeted(loss, y)
        self.chunk = chunk
        if not len(x) or len(x) != len(y):
            raise ValueError(f"x has {len(x)} and y has {len(y)} samples; pass the same number, at least one.")
        check_count("batch_size", batch_size)
        if batch_size > len(x):
            raise ValueError(f"batch_size={batch_size} is larger than the {len(x)} samples of x; lower it.")
        check_count("trials", trials, minimum=2)
        check_count("judges", judges)
        check_count("steps", steps)
        if chunk is not None:
            check_count("chunk", chunk)
        check_generator(generator)
        self.parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("noisy has no parameter with requires_grad=True, so that no step changes it.")
        self.start = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._generator = generator
        self.trials = [self._draw(x, y, batch_size, min(judges, len(x)), steps) for _ in range(trials)]

    def sigmas(self, sigma: float | Sequence[float] | Mapping[str, float] | None) -> Sigmas:
        """The noise scale of each layer: that of the network for None, one number for all layers, or one for each."""
        values = self.network.sigmas if sigma is None else by_layer("sigma", sigma, self.network.layers)
        for value in values:
            check_number("sigma", value)
        return tuple(float(value) for value in values)

    @torch.no_grad()
    def restart(self) -> None:
        """Set the parameters to their start."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.start[name])

    @torch.no_grad()
    def mean_loss(self, samples: Samples, sigmas: Sigmas) -> float:
        """The mean loss at the present parameters."""
        return sum(total.item() for total in self._totals(samples, sigmas)) / len(samples.x)

    @torch.enable_grad()
    def gradient(self, samples: Samples, sigmas: Sigmas, names: Iterable[str] | None = None) -> tuple[float, Gradient]:
        """The mean loss at the present parameters, and its gradient in those of these names on which it depends."""
        names = list(self.parameters if names is None else names)
        loss, gradient = 0.0, {}
        for total in self._totals(samples, sigmas):
            loss += total.item() / len(samples.x)
            if not names or not total.requires_grad:
                continue
            inputs = [self.parameters[name] for name in names]
            with naming_derivatives():
                parts = torch.autograd.grad(total, inputs, allow_unused=True)
            for name, part in zip(names, parts, strict=True):
                if part is not None:
                    gradient[name] = gradient.get(name, 0) + part / len(samples.x)
        return loss, gradient

    def _totals(self, samples: Samples, sigmas: Sigmas) -> Iterator[Tensor]:
        """The loss summed over each chunk of samples."""
        size = self.chunk or len(samples.x)
        for begin in range(0, len(samples.x), size):
            part = slice(begin, begin + size)
            eps = [sigma * noise[part] for sigma, noise in zip(sigmas, samples.noise, strict=True)]
            x, y = samples.x[part], samples.y[part]
            with self.network.using(dict(zip(self.network.layers, eps, strict=True))):
                outputs = self.view(x)
            losses = self.loss(outputs, y)
            if not isinstance(losses, Tensor) or (losses.dim() and len(losses) != len(y)):
                what = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
                raise ValueError(f"loss returned {what} for {len(y)} samples; return their mean or one loss for each.")
            if not begin and size < len(samples.x):
                self._check_mean(outputs.detach(), y, losses)
            yield losses.mean() * len(y)

    def _check_mean(self, outputs: Tensor, y: Tensor, losses: Tensor) -> None:
        """ValueError for a loss that changes if each sample counts twice, or is not the mean of those of its halves."""
        if not losses.dim():
            twice = self.loss(torch.cat([outputs, outputs]), torch.cat([y, y])).item()
            changed = np.isfinite(twice) and not np.isclose(twice, losses.item(), rtol=1e-3)
            half = -(-len(y) // 2)
            if changed or (np.isfinite(twice) and not is_mean(outputs.split(half), y.split(half), self.loss)):
                raise ValueError(f"loss is not a mean over samples, so chunk={self.chunk} would change it; use None.")

    def _draw(self, x: Tensor, y: Tensor, batch_size: int, judges: int, steps: int) -> Trial:
        order = torch.cat([self._permutation(len(x)) for _ in range(-(-steps * batch_size // len(x)))])
        batches = order[: steps * batch_size].split(batch_size)
        others = torch.from_numpy(np.setdiff1d(np.arange(len(x)), order[: steps * batch_size].numpy()))
        pool = others if len(others) >= judges else torch.arange(len(x))
        chosen = pool[self._permutation(len(pool))[:judges]]
        judge = self._samples(x, y, chosen)
        return Trial(
            batches=tuple(self._samples(x, y, index) for index in batches),
            judges=Samples(
                torch.cat([judge.x, judge.x]),
                torch.cat([judge.y, judge.y]),
                tuple(torch.cat([eps, -eps]) for eps in judge.noise),
            ),
        )

    def _permutation(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator)

    def _samples(self, x: Tensor, y: Tensor, index: Tensor) -> Samples:
        noise = [
            matching(draw_noise(len(index), len(weights), law=law, generator=self._generator), weights.detach())
            for law, weights in zip(self.network.laws, self.network.weights.values(), strict=True)
        ]
        return Samples(x[index.to(x.device)], y[index.to(y.device)], tuple(noise))


def _keep_batch_statistics(noisy: NoisyNetwork, copied: NoisyNetwork, chunk: int | None) -> None:
    """Let batch norms of the copy use the statistics of a batch where those of the network do."""
    for name, module in noisy.named_modules():
        if not isinstance(module, _BatchNorm) or not module.training:
            continue
        if chunk is not None:
            raise ValueError(
                f"chunk={chunk} would give each part of a batch its own statistics in {name!r}; use None, or put the "
                "network into eval mode for the running ones."
            )
        norm = copied.get_submodule(name)
        norm.training, norm.track_running_stats = True, False

"""K networks trained side by side, one after the other at each step: where a stack cannot be, or is slower."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.independence import batch_statistics, even_parts
from nin.model.nodes import NoisyNetwork
from nin.support.randomness import own_randomness
from nin.training.config import RunConfig
from nin.training.ensemble import noise_of
from nin.training.objective import Objective


class OneByOne:
    """K networks as an `Ensemble` has them, each with its own weights, optimiser state, modes and random numbers.

    Any network can be trained so: with batch norm, dropout or autocast. In training a member has the modes that it came
    with, and draws from its run's stream; evaluated it is in eval mode, and batch norms use the statistics of the
    samples, as in training, without a change to their running ones.
    """

    at_least = 1  # member

    def __init__(
        self, members: Sequence[nn.Module], configs: Sequence[RunConfig], *, device: torch.device | str = "cpu"
    ):
        self.template, self.device = members[0], torch.device(device)
        self.members = [copy.deepcopy(member).to(device) for member in members]
        self._draws = [config.generator("dropout") for config in configs]
        self._autocast = configs[0].autocast

    def chunks(self, count: int) -> list[int]:
        """How many of `count` samples to evaluate at a time, in turn: evenly, so that no statistics are of a rest."""
        return even_parts(count)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def weights(self) -> dict[str, Float[Tensor, "K nodes ..."]]:
        """The noise injection weights by layer, after `backward` with their gradients."""
        if not isinstance(self.template, NoisyNetwork):
            return {}
        stacks = {}
        for layer in self.template.layers:
            held = [member.weights[layer] for member in self.members]
            stacks[layer] = torch.stack([niw.detach() for niw in held])
            if all(niw.grad is not None for niw in held):
                stacks[layer].grad = torch.stack([niw.grad for niw in held])
        return stacks

    @torch.no_grad()
    def __call__(
        self, x: Shaped[Tensor, "K batch ..."], noise: Float[Tensor, "K batch nodes"] | None = None
    ) -> Float[Tensor, "K batch ..."]:
        """Outputs of all members in eval mode; noise is eps, sigma included."""
        outputs = []
        for place, member in enumerate(self.members):
            with evaluating(member), batch_statistics(member):
                outputs.append(self._pass(place, x[place], 0.0 if noise is None else noise[place]))
        return torch.stack(outputs)

    def backward(
        self,
        x: Shaped[Tensor, "K batch ..."],
        y: Shaped[Tensor, "K batch ..."],
        noise: Float[Tensor, "K batch nodes"] | None,
        *,
        loss: Objective,
        scale: Float[Tensor, " K"] | float = 1.0,
    ) -> Float[Tensor, " K"]:
        """Each member's mean loss over its batch; writes the gradients of scale * loss into the parameters' `.grad`."""
        losses = []
        for place, member in enumerate(self.members):
            member.zero_grad(set_to_none=True)
            with own_randomness(int(torch.randint(2**62, (), generator=self._draws[place]))):
                outputs = self._pass(place, x[place], 0.0 if noise is None else noise[place])
                value = loss.mean(outputs[None], y[place][None])[0]
                ((scale[place] if isinstance(scale, Tensor) else scale) * value).backward()
            losses.append(value.detach())
        return torch.stack(losses)

    def clip(self, norm: float, scale: Float[Tensor, " K"]) -> None:
        """Scale each member's gradients down to a norm, that of all its weights together."""
        for member in self.members:
            torch.nn.utils.clip_grad_norm_([p for p in member.parameters() if p.grad is not None], norm)

    def keep(self, members: Int[Tensor, " kept"]) -> None:
        """Keep only the members with these indices."""
        self.members = [self.members[place] for place in members]
        self._draws = [self._draws[place] for place in members]

    def copies(self, configs: Sequence[RunConfig]) -> list[Callable[[], nn.Module]]:
        """For each member a function that builds it as it is now, as a separate module without gradients."""
        with self._without_gradients():
            return [partial(copy.deepcopy, copy.deepcopy(member).cpu()) for member in self.members]

    def _pass(self, place: int, x: Tensor, noise: Tensor | float) -> Tensor:
        member = self.members[place]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            if not isinstance(member, NoisyNetwork):
                outputs = member(x)
            else:
                with member.using(noise_of(member, noise) if isinstance(noise, Tensor) else noise):
                    outputs = member(x)
        torch.clear_autocast_cache()  # of weights: within another such context, torch would keep it when they change
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"network returned {type(outputs).__name__}, not a tensor; wrap it in a module whose forward returns "
                "the part that the loss takes."
            )
        return outputs.float() if self._autocast else outputs

    @contextmanager
    def _without_gradients(self) -> Iterator[None]:
        held = [(p, p.grad) for member in self.members for p in member.parameters()]
        for parameter, _ in held:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in held:
                parameter.grad = gradient

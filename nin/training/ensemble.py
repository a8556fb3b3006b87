"""K networks of one shape trained as one: stacked parameters, one forward pass for all members."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from nin.model.functional import call_with
from nin.model.networks import MLP
from nin.model.nodes import NoisyNetwork
from nin.training.config import RunConfig
from nin.training.objective import Objective
from nin.training.stacked_mlp import StackedMLP, aligned

CHUNK = 128  # samples evaluated at a time: they stay in the cache, and every ensemble sums in the same order


class Ensemble:
    """K networks of one architecture, parameters stacked along a first axis K, ready for any torch.optim optimiser.

    A member is an nn.Module, or a NoisyNetwork when it has a node. MLPs run on batched matrix products
    (`StackedMLP`); any other module runs through torch.func.vmap over functional_call, the slower reference.
    parameters: dict of leaf tensors (K, ...) under the members' own parameter names ("niw" among them); those that a
    member has frozen (requires_grad=False) are among the buffers and are not trained.
    Networks that cannot be stacked are trained by `nin.training.one_by_one.OneByOne`, of the same form.
    """

    at_least = 2  # members: the product of one matrix uses a different kernel than a stack's, and rounds differently

    def __init__(self, members: Sequence[nn.Module], *, device: torch.device | str = "cpu", vectorise: bool = False):
        self.template = members[0]
        state, buffers = stack_module_state(list(members))
        frozen = {name for name, p in self.template.named_parameters() if not p.requires_grad}
        moved = {name: aligned(p.detach().to(device)) for name, p in state.items()}
        self.parameters = {name: p.requires_grad_() for name, p in moved.items() if name not in frozen}
        self.buffers = {name: b.to(device) for name, b in buffers.items()} | {name: moved[name] for name in frozen}
        network = self.template.network if isinstance(self.template, NoisyNetwork) else self.template
        self._names = weight_names(self.template)
        several = len(self._names) > 1
        self._vectorise = vectorise or type(network) is not MLP or bool(frozen) or several
        self._folded: int | None = None
        self._restack()

    def chunks(self, count: int) -> list[int]:
        """How many of `count` samples to evaluate at a time, in turn."""
        return [min(CHUNK, count - begin) for begin in range(0, count, CHUNK)]

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    @property
    def niw(self) -> Float[Tensor, "K nodes ..."] | None:
        """The stacked noise injection weights of the only layer that has nodes; None without a node."""
        return self.parameters.get("niw")

    @property
    def weights(self) -> dict[str, Float[Tensor, "K nodes ..."]]:
        """The stacked noise injection weights by layer, after `backward` with their gradients."""
        return {layer: self.parameters.get(name, self.buffers.get(name)) for layer, name in self._names.items()}

    @torch.no_grad()
    def __call__(
        self, x: Shaped[Tensor, "K batch ..."], noise: Float[Tensor, "K batch nodes"] | None = None
    ) -> Float[Tensor, "K batch outputs"]:
        """Outputs of all members, to be used before the next call overwrites them; noise is eps, sigma included."""
        return self._mlp.forward(x, noise) if self._mlp else self._vmap(x, noise)

    def backward(
        self,
        x: Shaped[Tensor, "K batch ..."],
        y: Shaped[Tensor, "K batch ..."],
        noise: Float[Tensor, "K batch nodes"] | None,
        *,
        loss: str | Objective,
        scale: Float[Tensor, " K"] | float = 1.0,
    ) -> Float[Tensor, " K"]:
        """Each member's mean loss over its batch; writes the gradients of scale * loss into the parameters' `.grad`."""
        objective = loss if isinstance(loss, Objective) else Objective(loss)
        if self._mlp:
            outputs = self._mlp.forward(x, noise, training=True)
            losses, gradient = objective.with_gradient(outputs, y)  # (K,), (K, batch, outputs)
            factor = scale[:, None, None] if isinstance(scale, Tensor) else scale
            self._mlp.backward(gradient.mul_(factor / y.shape[1]))
            return losses
        for parameter in self.parameters.values():
            parameter.grad = None
        losses = objective.mean(self._vmap(x, noise), y)  # (K,)
        (scale * losses).sum().backward()
        return losses.detach()

    def clip(self, norm: float, scale: Float[Tensor, " K"]) -> None:
        """Scale each member's gradients, those of scale * loss, so that the gradient of its loss has at most a norm."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        length = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0) / scale  # (K,)
        for g in gradients:
            g.mul_((norm / (length + 1e-6)).clamp(max=1).view(-1, *[1] * (g.dim() - 1)))

    def fold(self, batch_size: int) -> None:
        """From now on leave the gradients of large weights of an MLP to `descend`: for plain SGD of learning rate 1."""
        self._folded = batch_size
        self._restack()

    def descend(self) -> None:
        """Subtract from folded weights their gradients; their `.grad` is None, and optimisers pass over them."""
        if self._mlp:
            self._mlp.descend()

    def _restack(self) -> None:
        self._mlp = None if self._vectorise else StackedMLP(self.template, self.parameters, folded=self._folded)

    def _vmap(
        self, x: Shaped[Tensor, "K batch ..."], noise: Float[Tensor, "K batch nodes"] | None
    ) -> Float[Tensor, "K batch outputs"]:
        def plain(values: dict, x: Tensor) -> Tensor:
            return call_with(self.template, values, (x,))

        def noisy(values: dict, x: Tensor, noise: Tensor) -> Tensor:
            with self.template.using(noise_of(self.template, noise)):
                return plain(values, x)

        values = self.parameters | self.buffers
        if not isinstance(self.template, NoisyNetwork):
            return vmap(plain)(values, x)
        if noise is None:
            first = next(iter(self.weights.values()))
            noise = first.new_zeros(len(self), x.shape[1], len(self._names) * first.shape[1])
        return vmap(noisy)(values, x, noise)

    @property
    def exact(self) -> bool:
        """Whether a member's numbers are the same to the last bit whichever the other members are, for any width."""
        return self._mlp is not None

    def part(self, members: Int[Tensor, " part"]) -> "Ensemble":
        """An ensemble of the members with these indices, two at least, as they are now, to be evaluated."""
        found = copy.copy(self)
        found.parameters = {name: aligned(p.detach()[members]) for name, p in self.parameters.items()}
        found.buffers = {name: buffer[members] for name, buffer in self.buffers.items()}
        found._restack()
        return found

    def keep(self, members: Int[Tensor, " kept"], optimizer: torch.optim.Optimizer) -> None:
        """Keep only the members with these indices, in the parameters and in the optimiser's state."""
        group_of = {id(old): group for group in optimizer.param_groups for old in group["params"]}
        for group in optimizer.param_groups:
            group["params"] = []
        for name, old in self.parameters.items():
            new = aligned(old.detach()[members]).requires_grad_()
            state = optimizer.state.pop(old, {})
            if state:
                per_member = {key: torch.is_tensor(v) and v.shape == old.shape for key, v in state.items()}
                optimizer.state[new] = {key: v[members] if per_member[key] else v for key, v in state.items()}
            group_of[id(old)]["params"].append(new)
            self.parameters[name] = new
        self.buffers = {name: buffer[members] for name, buffer in self.buffers.items()}
        self._restack()

    def copies(self, configs: Sequence[RunConfig]) -> list[Callable[[], nn.Module]]:
        """For each member, whose config is given, a function that builds it as it is now, as a separate module."""
        state = self.state()
        return [partial(member, self.template, state, place, config) for place, config in enumerate(configs)]

    def state(self) -> dict[str, Shaped[Tensor, "K ..."]]:
        """A detached CPU copy of the stacked parameters and buffers."""
        return {name: p.detach().cpu().clone() for name, p in {**self.parameters, **self.buffers}.items()}


def member(template: nn.Module, state: dict[str, Shaped[Tensor, "K ..."]], index: int, config: RunConfig) -> nn.Module:
    """One member of an ensemble as a separate module, from the ensemble's template, its `state()` and its config.

    The template is that of the first member: sigma and law of the node are those of the config.
    """
    module = copy.deepcopy(template).cpu()
    module.load_state_dict(module.state_dict() | {name: tensor[index] for name, tensor in state.items()})
    if isinstance(module, NoisyNetwork):
        module.sigma, module.law = config.sigma, config.law
    return module


def weight_names(template: nn.Module) -> dict[str, str]:
    """The name of the parameter that holds the noise injection weights, by layer; empty without a node."""
    if not isinstance(template, NoisyNetwork):
        return {}
    names = {id(parameter): name for name, parameter in template.named_parameters()}
    return {layer: names[id(niw)] for layer, niw in template.weights.items()}


def noise_of(noisy: NoisyNetwork, noise: Float[Tensor, "batch _"]) -> Tensor | dict[str, Tensor]:
    """The noise as `NoisyNetwork.using` takes it, from the noise of all layers side by side."""
    if len(noisy.layers) == 1:
        return noise
    return dict(zip(noisy.layers, noise.chunk(len(noisy.layers), dim=-1), strict=True))

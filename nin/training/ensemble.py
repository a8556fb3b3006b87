"""K networks of one shape trained as one: stacked parameters, one forward pass for all members."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from nin.model.functional import call_with
from nin.model.losses import LOSSES, WITH_GRADIENT
from nin.model.networks import MLP
from nin.model.nodes import NoisyNetwork
from nin.training.config import RunConfig
from nin.training.stacked_mlp import StackedMLP, aligned

CHUNK = 128  # samples evaluated at a time: they stay in the cache, and every ensemble sums in the same order


class Ensemble:
    """K networks of one architecture, parameters stacked along a first axis K, ready for any torch.optim optimiser.

    A member is an nn.Module, or a NoisyNetwork when it has a node. MLPs run on batched matrix products
    (`StackedMLP`); any other module runs through torch.func.vmap over functional_call, the slower reference.
    parameters: dict of leaf tensors (K, ...) under the members' own parameter names ("niw" among them); those that a
    member has frozen (requires_grad=False) are among the buffers and are not trained.
    """

    def __init__(self, members: Sequence[nn.Module], *, device: torch.device | str = "cpu", vectorise: bool = False):
        self.template = members[0]
        state, buffers = stack_module_state(list(members))
        frozen = {name for name, p in self.template.named_parameters() if not p.requires_grad}
        moved = {name: aligned(p.detach().to(device)) for name, p in state.items()}
        self.parameters = {name: p.requires_grad_() for name, p in moved.items() if name not in frozen}
        self.buffers = {name: b.to(device) for name, b in buffers.items()} | {name: moved[name] for name in frozen}
        network = self.template.network if isinstance(self.template, NoisyNetwork) else self.template
        self._vectorise = vectorise or not isinstance(network, MLP) or bool(frozen)
        self._restack()

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    @property
    def niw(self) -> Float[Tensor, "K nodes ..."] | None:
        """The stacked noise injection weights; None without a node."""
        return self.parameters.get("niw")

    @torch.no_grad()
    def __call__(
        self, x: Float[Tensor, "K batch ..."], noise: Float[Tensor, "K batch nodes"] | None = None
    ) -> Float[Tensor, "K batch outputs"]:
        """Outputs of all members, to be used before the next call overwrites them; noise is eps, sigma included."""
        return self._mlp.forward(x, noise) if self._mlp else self._vmap(x, noise)

    def backward(
        self,
        x: Float[Tensor, "K batch ..."],
        y: Shaped[Tensor, "K batch ..."],
        noise: Float[Tensor, "K batch nodes"] | None,
        *,
        loss: str,
        scale: Float[Tensor, " K"] | float = 1.0,
    ) -> Float[Tensor, " K"]:
        """Each member's mean loss over its batch; writes the gradients of scale * loss into the parameters' `.grad`."""
        if self._mlp:
            losses, gradient = WITH_GRADIENT[loss](self._mlp.forward(x, noise), y)  # (K, batch), (K, batch, outputs)
            factor = scale[:, None, None] if isinstance(scale, Tensor) else scale
            self._mlp.backward(gradient.mul_(factor / y.shape[1]))
            return losses.mean(1)
        for parameter in self.parameters.values():
            parameter.grad = None
        losses = LOSSES[loss](self._vmap(x, noise), y).mean(1)  # (K,)
        (scale * losses).sum().backward()
        return losses.detach()

    def _restack(self) -> None:
        self._mlp = None if self._vectorise else StackedMLP(self.template, self.parameters)

    def _vmap(
        self, x: Float[Tensor, "K batch ..."], noise: Float[Tensor, "K batch nodes"] | None
    ) -> Float[Tensor, "K batch outputs"]:
        def plain(values: dict, x: Tensor) -> Tensor:
            return call_with(self.template, values, (x,))

        def noisy(values: dict, x: Tensor, noise: Tensor) -> Tensor:
            with self.template.using(noise):
                return plain(values, x)

        values = self.parameters | self.buffers
        if not isinstance(self.template, NoisyNetwork):
            return vmap(plain)(values, x)
        if noise is None:
            noise = x.new_zeros(len(self), x.shape[1], self.niw.shape[1])
        return vmap(noisy)(values, x, noise)

    def keep(self, members: Int[Tensor, " kept"], optimizer: torch.optim.Optimizer) -> None:
        """Keep only the members with these indices, in the parameters and in the optimiser's state."""
        (group,) = optimizer.param_groups
        group["params"] = []
        for name, old in self.parameters.items():
            new = aligned(old.detach()[members]).requires_grad_()
            state = optimizer.state.pop(old, {})
            if state:
                per_member = {key: torch.is_tensor(v) and v.shape == old.shape for key, v in state.items()}
                optimizer.state[new] = {key: v[members] if per_member[key] else v for key, v in state.items()}
            group["params"].append(new)
            self.parameters[name] = new
        self.buffers = {name: buffer[members] for name, buffer in self.buffers.items()}
        self._restack()

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

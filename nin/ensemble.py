"""K networks of one shape trained as one: stacked parameters, one forward pass for all members."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from nin.models import ACTIVATIONS, MLP
from nin.nodes import NoisyNetwork


class Ensemble:
    """K networks of one architecture, parameters stacked along a first axis K, ready for any torch.optim optimiser.

    A member is an nn.Module, or a NoisyNetwork when it has a node. MLPs run on batched matrix products; any other
    module runs through torch.func.vmap over functional_call, the slower reference.
    parameters: dict of leaf tensors (K, ...) under the members' own parameter names ("niw" among them).
    """

    def __init__(self, members: Sequence[nn.Module], *, device: torch.device | str = "cpu", vectorise: bool = False):
        self.template = members[0]
        state, buffers = stack_module_state(list(members))
        self.parameters = {name: p.detach().to(device).requires_grad_() for name, p in state.items()}
        self.buffers = {name: b.to(device) for name, b in buffers.items()}
        self._fast = isinstance(getattr(self.template, "network", self.template), MLP) and not vectorise

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    @property
    def niw(self) -> Float[Tensor, "K nodes d"] | None:
        """The stacked noise injection weights, None without a node."""
        return self.parameters.get("niw")

    def __call__(
        self, x: Float[Tensor, "K batch inputs"], noise: Float[Tensor, "K batch nodes"] | None = None
    ) -> Float[Tensor, "K batch outputs"]:
        """Outputs of all members; noise is eps itself, sigma included, None for no noise."""
        return self._matrix_products(x, noise) if self._fast else self._vmap(x, noise)

    def _matrix_products(self, x: Tensor, noise: Tensor | None) -> Tensor:
        noisy = isinstance(self.template, NoisyNetwork)
        network: MLP = self.template.network if noisy else self.template
        prefix = "network.layers" if noisy else "layers"
        phi = ACTIVATIONS[network.activation]
        for index, layer in enumerate(network.layers):
            weight = self.parameters[f"{prefix}.{index}.weight"].transpose(1, 2)  # (K, in, out)
            bias = self.parameters.get(f"{prefix}.{index}.bias")
            if layer.scale != 1:
                x = layer.scale * x
            x = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)
            if noise is not None and self.template.layer == f"layers.{index}":
                x = torch.baddbmm(x, noise, self.niw)
            if index + 1 < len(network.layers):
                x = phi(x)
        return x

    def _vmap(self, x: Tensor, noise: Tensor | None) -> Tensor:
        def one(parameters: dict, buffers: dict, *inputs: Tensor) -> Tensor:
            return functional_call(self.template, (parameters, buffers), inputs)

        if noise is None and isinstance(self.template, NoisyNetwork):
            noise = x.new_zeros(len(self), x.shape[1], self.niw.shape[1])
        inputs = (x,) if noise is None else (x, noise)
        return vmap(one)(self.parameters, self.buffers, *inputs)

    def keep(self, members: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Drop all members but those of the given indices, from the parameters and from the optimiser's state."""
        (group,) = optimizer.param_groups
        group["params"] = []
        for name, old in self.parameters.items():
            new = old.detach()[members].requires_grad_()
            state = optimizer.state.pop(old, {})
            if state:
                per_member = {key: torch.is_tensor(v) and v.shape == old.shape for key, v in state.items()}
                optimizer.state[new] = {key: v[members] if per_member[key] else v for key, v in state.items()}
            group["params"].append(new)
            self.parameters[name] = new
        self.buffers = {name: buffer[members] for name, buffer in self.buffers.items()}

    def state(self) -> dict[str, Tensor]:
        """A detached CPU copy of the stacked parameters and buffers."""
        return {name: p.detach().cpu().clone() for name, p in {**self.parameters, **self.buffers}.items()}

    def member(self, state: dict[str, Tensor], index: int) -> nn.Module:
        """One member as a module of its own, from a state() of this ensemble."""
        module = copy.deepcopy(self.template).cpu()
        module.load_state_dict({name: tensor[index] for name, tensor in state.items()})
        return module

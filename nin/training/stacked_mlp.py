"""K multilayer perceptrons of one shape as batched matrix products, forward and backward, in memory allocated once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.networks import MLP
from nin.model.nodes import NoisyNetwork

aten = torch.ops.aten
BOUNDARY = 64  # bytes


def _softplus(z: Tensor) -> Tensor:
    """ln(1 + e^z) from functions that round alike in vectors and in what is left over from them; torch's does not."""
    tail = z.abs().neg_().exp_().log1p_()
    return z.relu_().add_(tail)


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {  # h = phi(z) in the place of z
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "softplus": _softplus,
    "linear": lambda z: z,
}
PULL_BACK: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # g phi'(z) in the place of g, from h = phi(z)
    "relu": lambda g, h: aten.threshold_backward.grad_input(g, h, 0, grad_input=g),
    "tanh": lambda g, h: aten.tanh_backward.grad_input(g, h, grad_input=g),
    "softplus": lambda g, h: g.mul_(torch.expm1(-h).neg_()),  # sigmoid(z) = 1 - exp(-softplus(z))
    "linear": lambda g, h: g,
}


def aligned_empty(like: Float[Tensor, "K ..."], *shape: int) -> Float[Tensor, "K ..."]:
    """Memory for K matrices of a shape, each of which begins at a multiple of BOUNDARY bytes.

    MKL chooses its kernel, and with it the rounding, by where a matrix begins. One matrix right after the other would
    make the numbers of a run depend on its place in the ensemble.
    """
    size = math.prod(shape)
    step = BOUNDARY // like.element_size()
    memory = like.new_empty(len(like), -(-size // step) * step)
    return memory[:, :size].unflatten(1, shape) if shape else memory[:, 0]


def aligned(stack: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
    """The same values, each member at a multiple of BOUNDARY bytes: itself where they are already."""
    begins = (stack.data_ptr(), stack.stride(0) * stack.element_size())
    if not any(place % BOUNDARY for place in begins):
        return stack
    return aligned_empty(stack, *stack.shape[1:]).copy_(stack)


@dataclass(frozen=True)
class StackedLayer:
    """z = s x W^T + b + eps W_NI: weight (K, out, in), bias (K, out), scale s, and niw (K, nodes, out) at the node."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    niw: Tensor | None

    def forward(self, x: Tensor, noise: Tensor | None, out: Tensor) -> Tensor:
        start, beta = (out, 0) if self.bias is None else (self.bias.unsqueeze(1), 1)
        torch.baddbmm(start, x, self.weight.mT, beta=beta, alpha=self.scale, out=out)
        if self.niw is not None and noise is not None:
            out.baddbmm_(noise, self.niw)
        return out

    def backward(self, g: Tensor, x: Tensor, noise: Tensor | None) -> None:
        """Write the gradients of the layer's parameters; g = dL/dz (K, batch, out)."""
        weight = self.weight.grad
        torch.baddbmm(weight, g.mT, x, beta=0, alpha=self.scale, out=weight)
        if self.bias is not None:
            torch.sum(g, 1, out=self.bias.grad)
        if self.niw is not None:
            torch.bmm(noise.mT, g, out=self.niw.grad)

    def pull_back(self, g: Tensor, out: Tensor) -> Tensor:
        """dL/dx = s g W (K, batch, in)."""
        return torch.baddbmm(out, g, self.weight, beta=0, alpha=self.scale, out=out)


class StackedMLP:
    """Forward and backward pass of K MLPs, with or without a node, in batched matrix products.

    The backward pass is written out, so that nothing is allocated in a step: every activation has its place, and the
    gradients go straight into the `.grad` of the parameters. On small networks that is several times faster than
    autograd, whose fresh tensors cost page faults and whose weight gradients come out transposed and are copied.
    """

    def __init__(self, template: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        noisy = isinstance(template, NoisyNetwork)
        network: MLP = template.network if noisy else template
        prefix = "network.layers" if noisy else "layers"
        self.activation = network.activation
        self.layers = [
            StackedLayer(
                weight=parameters[f"{prefix}.{index}.weight"],
                bias=parameters.get(f"{prefix}.{index}.bias"),
                scale=layer.scale,
                niw=parameters["niw"] if noisy and template.layer == f"layers.{index}" else None,
            )
            for index, layer in enumerate(network.layers)
        ]
        for parameter in parameters.values():
            parameter.grad = aligned_empty(parameter, *parameter.shape[1:]).zero_()
        self._memory: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # by batch: values and gradients of the layers
        self._x = self._noise = None

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "K batch inputs"], noise: Float[Tensor, "K batch nodes"] | None
    ) -> Float[Tensor, "K batch outputs"]:
        """Outputs, in memory that the next call of this batch size overwrites."""
        x, noise = aligned(x), None if noise is None else aligned(noise)
        self._x, self._noise = x, noise
        values, _ = self._places(x)
        for layer, out in zip(self.layers[:-1], values[:-1], strict=True):
            x = IN_PLACE[self.activation](layer.forward(x, noise, out))
        return self.layers[-1].forward(x, noise, values[-1])

    @torch.no_grad()
    def backward(self, g: Float[Tensor, "K batch outputs"]) -> None:
        """Write the gradients of all parameters for the last forward pass; g = dL/d outputs."""
        g, (values, gradients) = aligned(g), self._places(self._x)
        for index in reversed(range(len(self.layers))):
            below = values[index - 1] if index else self._x
            self.layers[index].backward(g, below, self._noise)
            if index:
                g = PULL_BACK[self.activation](self.layers[index].pull_back(g, gradients[index - 1]), below)

    def _places(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Where the layers' values and gradients (K, batch, width) go for a batch of this size."""
        batch = x.shape[1]
        if batch not in self._memory:
            widths = [layer.weight.shape[1] for layer in self.layers]
            values, gradients = ([aligned_empty(x, batch, width) for width in widths] for _ in range(2))
            self._memory[batch] = values, gradients
        return self._memory[batch]

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
# Weights whose update is folded into the product that gives their gradient, where MKL rounds both ways alike: smaller
# ones gain nothing, vectors have other kernels, and a larger batch is summed in parts, each rounded with the weight.
FOLDED_FROM, SMALLEST_SIDE = 2**14, 8  # numbers of a weight, rows and columns
FOLDED_BATCHES = range(2, 257)


def _softplus(z: Tensor) -> Tensor:
    """ln(1 + e^z) from functions that round equally within and after full SIMD vectors; torch's softplus does not."""
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


def aligned_empty(like: Float[Tensor, " K *_"], *shape: int) -> Float[Tensor, " K *shape"]:
    """Memory for K arrays of a shape, with dtype and device of `like`; each begins at a multiple of BOUNDARY bytes.

    MKL chooses its kernel, and with it the rounding, by the address at which a matrix begins. Matrices stored without
    gaps would make the numbers of a run depend on its place in the ensemble.
    """
    size = math.prod(shape)
    unit = BOUNDARY // like.element_size()  # numbers from one boundary to the next
    padded = math.ceil(size / unit) * unit
    memory = like.new_empty(len(like), padded)  # (K, padded)
    return memory[:, :size].unflatten(1, shape) if shape else memory[:, 0]


def aligned(stack: Float[Tensor, " K *shape"]) -> Float[Tensor, " K *shape"]:
    """The same values with each member at a multiple of BOUNDARY bytes: `stack` itself if its members are there."""
    first, between = stack.data_ptr(), stack.stride(0) * stack.element_size()  # bytes
    if first % BOUNDARY == 0 and between % BOUNDARY == 0:
        return stack
    return aligned_empty(stack, *stack.shape[1:]).copy_(stack)


@dataclass(frozen=True)
class StackedLayer:
    """z = s x W^T + b + eps W_NI, with the fixed scale s; bias and niw are None if the layer has none."""

    weight: Float[Tensor, "K out in"]
    bias: Float[Tensor, "K out"] | None
    scale: float
    niw: Float[Tensor, "K nodes out"] | None

    @property
    def folds(self) -> bool:
        """Whether the update is worth folding into the product, and is then the same to the last bit."""
        outputs, inputs = self.weight.shape[1:]
        large = outputs * inputs >= FOLDED_FROM and min(outputs, inputs) >= SMALLEST_SIDE
        return large and self.weight.device.type == "cpu"

    def forward(
        self,
        x: Float[Tensor, "K batch in"],
        noise: Float[Tensor, "K batch nodes"] | None,
        out: Float[Tensor, "K batch out"],
    ) -> Float[Tensor, "K batch out"]:
        """Write z into `out` and return it."""
        start, beta = (out, 0) if self.bias is None else (self.bias.unsqueeze(1), 1)  # (K, 1, out)
        torch.baddbmm(start, x, self.weight.mT, beta=beta, alpha=self.scale, out=out)  # (K, batch, in) (K, in, out)
        if self.niw is not None and noise is not None:
            out.baddbmm_(noise, self.niw)  # (K, batch, nodes) (K, nodes, out)
        return out

    def backward(
        self,
        g: Float[Tensor, "K batch out"],
        x: Float[Tensor, "K batch in"],
        noise: Float[Tensor, "K batch nodes"] | None,
    ) -> None:
        """Write the gradients of the layer's parameters, given g = dL/dz; of a folded weight there is none."""
        weight = self.weight.grad
        if weight is not None:
            torch.baddbmm(weight, g.mT, x, beta=0, alpha=self.scale, out=weight)  # (K, out, batch) (K, batch, in)
        if self.bias is not None:
            torch.sum(g, 1, out=self.bias.grad)  # (K, out)
        if self.niw is not None:
            torch.bmm(noise.mT, g, out=self.niw.grad)  # (K, nodes, batch) (K, batch, out)

    def descend(self, g: Float[Tensor, "K batch out"], x: Float[Tensor, "K batch in"]) -> None:
        """W <- W - s g^T x, with the rounding of a gradient that is written and subtracted, in one product."""
        self.weight.baddbmm_(g.mT, x, alpha=-self.scale)  # (K, out, batch) (K, batch, in)

    def pull_back(
        self, g: Float[Tensor, "K batch out"], out: Float[Tensor, "K batch in"]
    ) -> Float[Tensor, "K batch in"]:
        """Write dL/dx = s g W into `out` and return it."""
        return torch.baddbmm(out, g, self.weight, beta=0, alpha=self.scale, out=out)  # (K, batch, out) (K, out, in)


class StackedMLP:
    """Forward and backward pass of K MLPs, with or without a node, in batched matrix products.

    The backward pass is written out so that a step allocates nothing: every activation has its own buffer, and the
    gradients go straight into the `.grad` of the parameters. On small networks this is several times faster than
    autograd, whose new tensors cost page faults and whose weight gradients come out transposed and have to be copied.

    folded  batch size of a training whose updates subtract the gradients: those of large weights are then not written,
            `descend` subtracts the products that give them, which saves a fifth of the time of such a product
    """

    def __init__(self, template: nn.Module, parameters: Mapping[str, Tensor], *, folded: int | None = None) -> None:
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
        if folded in FOLDED_BATCHES:
            for layer in self.layers:
                if layer.folds:
                    layer.weight.grad = None
        self._buffers: dict[tuple[int, bool], list[Tensor]] = {}  # batch size, in training or not -> values
        self._gradients: dict[int, list[Tensor]] = {}  # by batch size
        self._x = self._noise = None
        self._left: list[tuple[StackedLayer, Tensor, Tensor]] = []  # of the last backward pass to `descend`

    @torch.no_grad()
    def forward(
        self,
        x: Float[Tensor, "K batch inputs"],
        noise: Float[Tensor, "K batch nodes"] | None,
        *,
        training: bool = False,
    ) -> Float[Tensor, "K batch outputs"]:
        """Outputs, in a buffer that the next such call with this batch size overwrites; `backward` needs training."""
        x, noise = aligned(x), None if noise is None else aligned(noise)
        if training:
            self._x, self._noise = x, noise
        values = self._values(x, training)
        for layer, out in zip(self.layers[:-1], values[:-1], strict=True):
            x = IN_PLACE[self.activation](layer.forward(x, noise, out))  # (K, batch, width)
        return self.layers[-1].forward(x, noise, values[-1])

    @torch.no_grad()
    def backward(self, g: Float[Tensor, "K batch outputs"]) -> None:
        """Write the gradients of all parameters for the last pass in training, given g = dL/d outputs.

        Those of folded weights are left to `descend`, which is to be called before the next pass in training.
        """
        g, values = aligned(g), self._values(self._x, training=True)
        gradients = self._gradients_for(self._x)
        self._left = []
        for index in reversed(range(len(self.layers))):
            layer, below = self.layers[index], values[index - 1] if index else self._x
            layer.backward(g, below, self._noise)
            if layer.weight.grad is None:
                self._left.append((layer, g, below))
            if index:
                g = layer.pull_back(g, gradients[index - 1])  # dL/dh (K, batch, width)
                g = PULL_BACK[self.activation](g, below)  # dL/dz of the layer below

    @torch.no_grad()
    def descend(self) -> None:
        """Subtract the gradients of the folded weights from them, once."""
        for layer, g, below in self._left:
            layer.descend(g, below)
        self._left = []

    def _values(self, x: Float[Tensor, "K batch inputs"], training: bool) -> list[Tensor]:
        """The buffers (K, batch, width) of the layers' values: what is evaluated leaves those of training alone."""
        key = x.shape[1], training
        if key not in self._buffers:
            self._buffers[key] = [aligned_empty(x, x.shape[1], layer.weight.shape[1]) for layer in self.layers]
        return self._buffers[key]

    def _gradients_for(self, x: Float[Tensor, "K batch inputs"]) -> list[Tensor]:
        """The buffers (K, batch, width) of the gradients by the layers' values, the outputs excepted."""
        batch = x.shape[1]
        if batch not in self._gradients:
            self._gradients[batch] = [aligned_empty(x, batch, layer.weight.shape[1]) for layer in self.layers[:-1]]
        return self._gradients[batch]

"""The networks of the papers: the multilayer perceptron, and the two-layer linear net as its smallest case."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from nin.support.arguments import check_choice, check_count, check_kind

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "linear": lambda z: z,
}
INITS = ("he", "ntk")


@torch.no_grad()
def he_initialise(network: nn.Module, generator: torch.Generator | None) -> None:
    """W ~ N(0, 2/fan_in), b = 0 for all linear layers and convolutions, module by module (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, _ConvNd)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)


class ScaledLinear(nn.Linear):
    """z = s W x + b with a fixed scale s: fan_in^(-1/2) in the NTK parameterisation, 1 in nn.Linear."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, scale: float = 1.0) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.scale = scale

    def reset_parameters(self) -> None:
        """Do nothing: MLP.initialise draws the weights."""

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return F.linear(x if self.scale == 1 else self.scale * x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale:.4g}"


class MLP(nn.Module):
    """f(x) = W_L phi(... phi(W_0 x + b_0) ...) + b_L, x (batch, inputs) -> (batch, outputs).

    init "he":  W ~ N(0, 2/fan_in), b = 0                        (He et al. 2015, for every layer, including the last)
    init "ntk": W ~ N(0, 1) times the scale fan_in^(-1/2), b = 0   (Jacot et al. 2018)

    The layers are `layers.0`, `layers.1`, ...: the names to pass to `nin.inject`.
    Weights are drawn in float64 from `generator` (CPU; None: torch's global one) and cast to `dtype`, so
    that float32 and float64 networks of one seed agree up to rounding.
    Raises ValueError for sizes below 1, an unknown activation or init.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        outputs: int,
        *,
        activation: Literal["relu", "tanh", "softplus", "linear"] = "relu",
        init: Literal["he", "ntk"] = "he",
        bias: bool = True,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_kind("widths", widths, Sequence, "a sequence of integers >= 1")
        sizes = [inputs, *widths, outputs]
        for name, size in zip(["inputs", *["widths"] * len(widths), "outputs"], sizes, strict=True):
            check_count(name, size)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("init", init, INITS)
        self.activation = activation
        self.init = init
        self.layers = nn.ModuleList(
            ScaledLinear(fan_in, fan_out, bias=bias, scale=fan_in**-0.5 if init == "ntk" else 1.0)
            for fan_in, fan_out in pairwise(sizes)
        )
        self.to(dtype)
        self.initialise(generator)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None) -> None:
        """Draw all weights again, in the order of the layers; set biases to 0."""
        for layer in self.layers:
            std = 1.0 if self.init == "ntk" else math.sqrt(2 / layer.in_features)
            layer.weight.copy_(std * torch.randn(layer.weight.shape, dtype=torch.float64, generator=generator))
            if layer.bias is not None:
                layer.bias.zero_()

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        phi = ACTIVATIONS[self.activation]
        for layer in self.layers[:-1]:
            x = phi(layer(x))  # (*batch, width)
        return self.layers[-1](x)


def linear_net(
    width: int,
    *,
    inputs: int = 1,
    outputs: int = 1,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
) -> MLP:
    """f(x) = N^(-1/2) v.(u x), N = width: the linear test case of arXiv 2210.13599, all entries N(0, 1).

    With one input the NTK scales are 1 for u and N^(-1/2) for v, so this is an MLP without biases; the node
    of the test case is `inject(net, "layers.0", sigma=..., niw_std=1)`.
    """
    return MLP(inputs, (width,), outputs, activation="linear", init="ntk", bias=False, dtype=dtype, generator=generator)

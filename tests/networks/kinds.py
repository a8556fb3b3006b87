"""A kind of network, a row of docs/networks.md: how it is built, what it is asked about, and where its node sits."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

RELU = 1e-5  # step of finite differences between the kinks of many ReLUs
Inputs = Tensor | Mapping[str, Tensor]


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, vocabulary: int, seed: int = 0) -> Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def mean_cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean over samples and, where outputs are (n, tokens, classes), over tokens."""
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.flatten())


def seeded(network: nn.Module) -> nn.Module:
    """The network in float64 with weights of its own: matrices N(0, 1.4 / fan in), scales near 1, biases near 0."""
    generator = torch.Generator().manual_seed(0)
    network = network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            drawn = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            one = parameter.dim() == 1 and bool((parameter == 1).all())  # of a norm
            fan = parameter[0].numel() if parameter.dim() > 1 else 70
            parameter.copy_(one + 1.2 * drawn / max(fan, 1) ** 0.5)
    return after_training(network)


@torch.no_grad()
def after_training(network: nn.Module) -> nn.Module:
    """The network with running statistics as if it had seen batches."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        drawn = torch.rand(buffer.shape, dtype=torch.float64, generator=generator)
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * drawn)
        if name.endswith("running_var"):
            buffer.copy_(1 + drawn)
        if name.endswith("num_batches_tracked"):
            buffer.fill_(1)
    return network


@torch.no_grad()
def centred(network: nn.Module, head: str, x: Tensor) -> nn.Module:
    """The network with the bias of its head moved so that the mean output is 0, and not one class is always first."""
    network.get_submodule(head).bias -= network.eval()(x).mean(0)
    return network.train()


@dataclass(frozen=True)
class Kind:
    """One row.

    layer, at, axis, calls   where the node goes, as in `nin.inject`; axis: of the layer's values, that of the samples
    neurons, neuron_axis     a layer of neurons, and the axis of its values that counts them
    twin       the same function of the same parameters without what wraps it (a compiler, a checkpoint, half precision)
    forward    model, x -> outputs, where these are not model(x)
    blocks, readout, stem    of `residual_ledger`, for a residual stream with a linear readout
    tolerance  relative, of the errors: rounding in float64 unless the network computes in less
    step       of finite differences; larger where a network rounds to float32 whatever its weights are
    around     what must hold while the network exists, such as a process group
    """

    name: str
    build: Callable[[], nn.Module]
    x: Inputs
    y: Tensor
    layer: str
    at: str | None = None
    axis: int = 0
    calls: str = "once"
    neurons: str = ""
    neuron_axis: int | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = mean_cross_entropy
    twin: Callable[[nn.Module], nn.Module] = copy.deepcopy
    forward: Callable[[nn.Module, Any], Tensor] | None = None
    blocks: tuple[str, ...] = ()
    readout: Callable[[nn.Module, Tensor], Tensor] | None = None
    stem: str | None = None
    tolerance: float = 1e-6
    step: float = 1e-4
    around: Callable[[], AbstractContextManager] = nullcontext

    def __str__(self) -> str:
        return self.name

    def call(self, network: nn.Module, x: Inputs) -> Tensor:
        """The outputs, (n, ...)."""
        return network(x) if self.forward is None else self.forward(network, x)

    def convolution(self, network: nn.Module) -> bool:
        return isinstance(network.get_submodule(self.layer), _ConvNd)

    def place(self, network: nn.Module) -> str:
        """Where `nin.inject` puts a node if `at` is None."""
        return self.at or ("input" if self.convolution(network) else "preactivation")

    @property
    def exact(self) -> Inputs:
        """The inputs of the twin, in its precision."""
        return self.x.double() if self.floating else self.x

    @property
    def floating(self) -> bool:
        """Whether inputs are numbers; else they are tokens, or several."""
        return isinstance(self.x, Tensor) and self.x.is_floating_point()

    @property
    def images(self) -> bool:
        return isinstance(self.x, Tensor) and self.x.dim() == 4 and self.x.shape[-1] == self.x.shape[-2]


def rows_of(x: Inputs, index: Any) -> Inputs:
    """Some samples."""
    return x[index] if isinstance(x, Tensor) else {name: part[index] for name, part in x.items()}


def count_of(x: Inputs) -> int:
    return len(x) if isinstance(x, Tensor) else len(next(iter(x.values())))

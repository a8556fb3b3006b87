"""Networks for scale detection: one-dimensional convolutions, trained or constant (arXiv 2210.01506)."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from nin.support.arguments import check_choice, check_count, check_number
from nin.support.progress import ProgressBar
from nin.support.randomness import kept_randomness
from nin.support.threads import threads
from studies.scale_detection.task import ScaleTask

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "linear": nn.Identity}


class ScaledConv1d(nn.Conv1d):
    """z = (C_in F)^(-1/2) W * x, stride F, without bias: a convolution in the NTK parameterisation.

    Blocks do not overlap, so it is one matrix product, and one batched product for a stack of networks.
    """

    def __init__(self, in_channels: int, out_channels: int, F: int) -> None:
        super().__init__(in_channels, out_channels, F, stride=F, bias=False)

    def forward(self, x: Float[Tensor, "batch C_in L"]) -> Float[Tensor, "batch C_out sites"]:
        (F,) = self.kernel_size
        blocks = x.unflatten(-1, (-1, F)).transpose(1, 2).flatten(2)  # (batch, sites, C_in F)
        return (blocks @ (self.weight.flatten(1) / math.sqrt(self.in_channels * F)).T).mT


class ScaleNet(nn.Module):
    """f(x) = C^(-1/2) v . <phi(W_K * ... phi(W_1 * x))>, x (batch, 1, L) -> (batch,), without biases.

    K convolutions of filter F = stride, mean over the remaining sites, linear readout; all weights N(0, 1). The
    activation of layer k, "relu", "tanh" or "linear", is the module `activations.{k-1}`.
    """

    def __init__(
        self,
        depth: int,
        channels: int,
        *,
        F: int = 2,
        activation: str = "relu",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, count in (("depth", depth), ("channels", channels)):
            check_count(name, count)
        check_count("F", F, minimum=2)
        check_choice("activation", activation, ACTIVATIONS)
        sizes = [1] + [channels] * depth
        with kept_randomness():  # torch's layers draw from the global generator when they are made
            self.convolutions = nn.ModuleList(ScaledConv1d(a, b, F) for a, b in itertools.pairwise(sizes))
        self.activations = nn.ModuleList(ACTIVATIONS[activation]() for _ in range(depth))
        self.readout = nn.Parameter(torch.randn(channels, generator=generator))
        for convolution in self.convolutions:
            nn.init.normal_(convolution.weight, generator=generator)

    def forward(self, x: Float[Tensor, "batch 1 L"]) -> Float[Tensor, " batch"]:
        for convolution, phi in zip(self.convolutions, self.activations, strict=True):
            x = phi(convolution(x))
        return x.mean(-1) @ self.readout / math.sqrt(len(self.readout))


def constant_net(
    depth: int,
    F: int,
    *,
    stride: int = 1,
    activation: str = "relu",
    rectify_input: bool = False,
    dimensions: int = 1,
) -> nn.Sequential:
    """Convolutions of one channel whose F^dimensions weights are all 1/F^dimensions, circular at stride 1.

    Layers are named conv1, act1, conv2, ...; rectify_input puts a ReLU, `act0`, before the first. float64.
    """
    check_count("depth", depth)
    check_count("F", F)
    check_choice("activation", activation, ACTIVATIONS)
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[dimensions]
    around = {"padding": "same", "padding_mode": "circular"} if stride == 1 else {}
    layers: dict[str, nn.Module] = {"act0": nn.ReLU()} if rectify_input else {}
    with kept_randomness():
        for k in range(1, depth + 1):
            layers[f"conv{k}"] = kind(1, 1, F, stride=stride, bias=False, dtype=torch.float64, **around)
            nn.init.constant_(layers[f"conv{k}"].weight, F**-dimensions)
            layers[f"act{k}"] = ACTIVATIONS[activation]()
    return nn.Sequential(OrderedDict(layers))


@dataclass(frozen=True, kw_only=True)
class ScaleRecipe:
    """How a ScaleNet is trained: Adam on the hinge loss (1 - y f)_+ plus penalty times the sum of W^2 / fan_in.

    The paper has F = stride = 2, ReLU, hinge loss, an L2 penalty and 1000 channels; the other values train 32
    channels to zero test error on two cores in seconds.
    """

    depth: int = 6
    channels: int = 32
    activation: str = "relu"
    penalty: float = 1e-3
    n_train: int = 512
    n_test: int = 400
    lr: float = 0.01
    batch_size: int = 32
    epochs: int = 150

    def __post_init__(self) -> None:
        check_number("penalty", self.penalty)
        check_number("lr", self.lr, exclusive=True)
        for name in ("n_train", "n_test", "batch_size"):
            check_count(name, getattr(self, name), minimum=2)
        check_count("epochs", self.epochs, minimum=0)


def fit_scale(task: ScaleTask, recipe: ScaleRecipe, *, seeds: Sequence[int], progress: bool = False) -> list[ScaleNet]:
    """Train one network per seed, which sets its weights, pairs and batches: all at once, as stacked parameters.

    Adam updates every weight separately, so each network trains as it would alone. Raises ValueError if a class has
    too few pairs, or a batch is larger than the training set.
    """
    if recipe.batch_size > recipe.n_train:
        raise ValueError(f"batch_size={recipe.batch_size} is larger than n_train={recipe.n_train}.")
    pairs = torch.stack([task.split(recipe.n_train, recipe.n_test, seed=seed)[0] for seed in seeds])
    x, y = task.images(pairs), task.labels(pairs)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    options = {"activation": recipe.activation}
    nets = [ScaleNet(recipe.depth, recipe.channels, generator=g, **options) for g in generators]
    parameters, _ = stack_module_state(nets)
    optimizer = torch.optim.Adam(parameters.values(), lr=recipe.lr)

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        hinge = (1 - y * functional_call(nets[0], weights, x)).relu().mean()
        squares = [w.square().sum() / (len(w) if w.dim() == 1 else w[0].numel()) for w in weights.values()]
        return hinge + recipe.penalty * sum(squares)

    members = torch.arange(len(nets))[:, None]
    with threads(1):
        for _ in ProgressBar(range(recipe.epochs), progress=progress, desc="scale detection", unit="epoch"):
            order = torch.stack([torch.randperm(recipe.n_train, generator=g) for g in generators])
            for rows in order.split(recipe.batch_size, 1):
                optimizer.zero_grad()
                vmap(loss)(parameters, x[members, rows], y[members, rows]).sum().backward()
                optimizer.step()
    for k, net in enumerate(nets):
        net.load_state_dict({name: values[k].detach() for name, values in parameters.items()})
    return nets

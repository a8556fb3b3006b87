"""The networks of runs, built from their configs, and the curvature at their nodes at the start."""

import threading
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from nin.model.data import Dataset
from nin.model.injection import inject
from nin.model.losses import LOSSES
from nin.model.networks import MLP, linear_net
from nin.model.noise import draw_noise
from nin.model.sites import linear_layers
from nin.probes.curvature import Mode, top_mode
from nin.support.precision import matching, widened
from nin.training.config import DTYPES, RunConfig
from nin.training.ensemble import CHUNK, Ensemble

Factory = Callable[[], nn.Module]
# Threads of one process build their networks one at a time: a factory draws from torch's global generator, and a
# measurement puts the network into eval mode.
_one_at_a_time = threading.Lock()
# <H> is expensive and the groups of a sweep share it: the top modes, kept as long as their data exist.
_modes: WeakKeyDictionary[Dataset, dict[tuple, Mode]] = WeakKeyDictionary()


def build(config: RunConfig, data: Dataset, factory: Factory | None = None) -> nn.Module:
    """The network of a run, without a node: that of the config, or of a user-defined factory.

    The factory is called with torch's global generator seeded from the config and restored afterwards.
    Raises ValueError for a module that cannot be trained in an ensemble.
    """
    dtype, generator = DTYPES[config.dtype], config.generator("weights")
    if factory is not None:
        with _one_at_a_time, torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            network = factory().to(dtype)
        _check_vmap(network)
        return network
    inputs = data.x_train[0].numel()
    if config.network == "linear":
        return linear_net(*config.widths, inputs=inputs, outputs=data.classes, dtype=dtype, generator=generator)
    return MLP(
        inputs,
        config.widths,
        data.classes,
        activation=config.activation,
        init=config.init,
        dtype=dtype,
        generator=generator,
    )


def members(
    configs: Sequence[RunConfig], data: Dataset, factory: Factory | None = None, *, device: torch.device | str = "cpu"
) -> tuple[list[nn.Module], list[Mode | None]]:
    """Build the network of each run, and measure the top mode of <H> at its node (None without a node) on a device."""
    networks: dict[int, nn.Module] = {}
    modes: dict[int, Mode | None] = {}
    stack = []
    for config in configs:
        if config.seed not in networks:
            network = build(config, data, factory)
            networks[config.seed] = network
            with _one_at_a_time:
                modes[config.seed] = _known_mode(config, network, data, factory, device) if config.nodes else None
        stack.append(with_node(config, networks[config.seed], data, factory))
    return stack, [modes[config.seed] for config in configs]


def _check_vmap(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            raise ValueError(
                f"network: its module {name!r} is a {type(module).__name__}, which couples samples or draws its own "
                "noise and cannot be trained in an ensemble; use LayerNorm or GroupNorm, or train it in your own loop."
            )


def layer_name(config: RunConfig, network: nn.Module) -> str:
    """The dotted name of the layer that a run's node feeds; ValueError for an index that the network does not have."""
    names = linear_layers(network)
    if isinstance(config.layer, str):
        return config.layer
    if config.layer >= len(names):
        known = f"0 to {len(names) - 1}: {', '.join(names)}"
        raise ValueError(f"layer={config.layer} is not in the model; its linear layers are {known}.")
    return names[config.layer]


def with_node(config: RunConfig, network: nn.Module, data: Dataset, factory: Factory | None = None) -> nn.Module:
    """The network of a run with the node of its config, if it has one."""
    if not config.nodes:
        return network
    default = 1.0 if factory is None and config.network == "linear" else None
    return inject(
        network,
        layer_name(config, network),
        sigma=config.sigma,
        nodes=config.nodes,
        niw_std=default if config.niw_std is None else config.niw_std,
        example=data.x_train[:2].to(DTYPES[config.dtype]),
        law=config.law,
        generator=config.generator("niw"),
    )


def _known_mode(
    config: RunConfig, network: nn.Module, data: Dataset, factory: Factory | None, device: torch.device | str
) -> Mode:
    if factory is not None:  # it may build a different network at each call
        return _top_mode(config, network, data, factory, device)
    known = _modes.setdefault(data, {})
    shape = config.replace(sigma=1.0, lr=1.0, niw_std=None, law="gaussian", resample="epoch"), str(device)
    if shape not in known:
        known[shape] = _top_mode(config, network, data, factory, device)
    return known[shape]


def _top_mode(
    config: RunConfig, network: nn.Module, data: Dataset, factory: Factory | None, device: torch.device | str
) -> Mode:
    x, y = data.x_train[: config.eval_samples], data.y_train[: config.eval_samples]
    if factory is None and config.network == "linear" and config.loss == "mse" and data.classes == 1:
        readout = network.layers[1].weight.detach()[0].cpu().double()  # <H> = v v^T / N, of rank one
        return Mode(lam=float(readout @ readout) / len(readout), vector=None, residual=0.0)
    dtype = DTYPES[config.dtype]
    x, y = (part.to(dtype).to(device) if part.is_floating_point() else part.to(device) for part in (x, y))
    mode = top_mode(network.to(device), layer_name(config, network), x, y, loss=LOSSES[config.loss])
    network.cpu()
    return mode


def kappa_avg(ensemble: Ensemble, configs: Sequence[RunConfig], data: Dataset) -> Float[np.ndarray, " K"]:
    """kappa_avg = eta W.E[dL/dW] / |W|^2 at W = W_NI for each of K runs (K,): the initial rate of fall of |W_NI|.

    E[dL/dW] = E[eps dl/dz(z + eps W)] (eq. (4)) over eval_samples training samples and curvature_pairs antithetic draws
    +-eps for each, which cancel the random walk <eps g>. To lowest order in sigma, kappa_avg is
    eta sigma^2 W.<H>W / |W|^2 for smooth networks; for ReLU networks, whose autograd Hessian lacks the kinks, it is the
    curvature that matters. NaN without a node and for W_NI = 0.
    """
    if ensemble.niw is None:
        return np.full(len(configs), np.nan)
    first = configs[0]
    x, y = data.x_train[: first.eval_samples], data.y_train[: first.eval_samples]
    generators = [config.generator("curvature") for config in configs]
    pull = torch.zeros(len(configs), dtype=torch.float64)
    for _ in range(first.curvature_pairs):
        draws = [
            config.sigma * draw_noise(len(x), config.nodes, law=config.law, generator=generator)
            for config, generator in zip(configs, generators, strict=True)
        ]
        eps = matching(torch.stack(draws), x)  # (K, samples, nodes)
        for part_x, part_y, part_eps in zip(x.split(CHUNK), y.split(CHUNK), eps.split(CHUNK, dim=1), strict=True):
            inputs = part_x.expand(len(configs), *part_x.shape)  # (K, chunk, d)
            labels = part_y.expand(len(configs), *part_y.shape)  # (K, chunk, ...)
            for noise in (part_eps, -part_eps):
                ensemble.backward(inputs, labels, noise, loss=first.loss, scale=float(len(part_x)))
                pull += (ensemble.niw.detach() * ensemble.niw.grad).flatten(1).sum(1).cpu().double()  # (K,)
    pull = pull.numpy() / (2 * first.curvature_pairs * len(x))
    square = widened(ensemble.niw.detach()).square().flatten(1).sum(1).cpu().numpy()  # (K,)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([config.lr for config in configs]) * pull / square

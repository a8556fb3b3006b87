"""The networks of runs, built from their configs, and the curvature at their nodes at the start."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.model.independence import statistics_of
from nin.model.injection import inject
from nin.model.losses import LOSSES
from nin.model.networks import MLP, linear_net
from nin.model.nodes import NoisyNetwork
from nin.model.sites import linear_layers
from nin.probes.curvature import Mode, top_mode
from nin.support.precision import matching, widened
from nin.support.randomness import kept_randomness, own_randomness
from nin.training.batches import draw_for_layers
from nin.training.config import DTYPES, RunConfig
from nin.training.objective import Objective
from nin.training.updates import Stack

Factory = Callable[[], nn.Module]
# <H> is expensive and the groups of a sweep share it: the top modes, kept as long as their data exist.
_modes: WeakKeyDictionary[Dataset, dict[tuple, list[Mode]]] = WeakKeyDictionary()


def build(config: RunConfig, data: Dataset, factory: Factory | None = None) -> nn.Module:
    """The network of a run, without a node: that of the config, or of a user-defined factory.

    The factory is called with the global generators seeded from the config and restored afterwards.
    Raises ValueError for a factory that does not return a new nn.Module, and without one for samples that are not rows.
    """
    dtype, generator = DTYPES[config.dtype], config.generator("weights")
    if factory is not None:
        with own_randomness(generator.initial_seed()):
            network = factory()
        if not isinstance(network, nn.Module) or isinstance(network, NoisyNetwork):
            raise ValueError(
                f"network={factory!r} returned a {type(network).__name__}; it must return an nn.Module without a node, "
                "which nin.train adds."
            )
        return network.to(dtype)
    if data.x_train.dim() != 2 or not data.x_train.is_floating_point():
        raise ValueError(
            f"data: x_train is {data.x_train.dtype} {tuple(data.x_train.shape)}, but network={config.network!r} takes "
            "rows (n, d) of real numbers; pass a network of your own, or data.x_train.flatten(1)."
        )
    inputs = data.x_train.shape[1]
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
    configs: Sequence[RunConfig],
    data: Dataset,
    factory: Factory | None = None,
    *,
    objective: Objective | None = None,
    device: torch.device | str = "cpu",
) -> tuple[list[nn.Module], list[list[Mode]]]:
    """Build the network of each run, and measure the top modes of <H> at its nodes on a device, one for each layer.

    Without a node, and with curvature_pairs=0, there are no modes.
    """
    objective = objective or Objective(configs[0].loss)
    networks: dict[int, nn.Module] = {}
    modes: dict[int, list[Mode]] = {}
    stack = []
    for config in configs:
        if config.seed not in networks:
            network = build(config, data, factory)
            if any(network is other for other in networks.values()):
                raise ValueError(f"network={factory!r} returned the same module twice; it must build a new one.")
            networks[config.seed] = network
            measured = config.nodes and config.curvature_pairs
            with kept_randomness():  # one thread at a time: a measurement puts the network into eval mode
                found = _top_modes(config, network, data, factory, objective, device) if measured else []
            modes[config.seed] = found
        stack.append(with_node(config, networks[config.seed], data, factory))
    return stack, [modes[config.seed] for config in configs]


def layer_names(config: RunConfig, network: nn.Module) -> tuple[str, ...]:
    """The dotted names of the layers that a run's nodes feed; ValueError for an index beyond the network's layers."""
    names, found = linear_layers(network), []
    for layer in config.layers:
        if isinstance(layer, int) and layer >= len(names):
            known = f"0 to {len(names) - 1}: {', '.join(names)}"
            raise ValueError(f"layer={layer} is not in the model; its linear layers are {known}.")
        found.append(names[layer] if isinstance(layer, int) else layer)
    return tuple(found)


def with_node(config: RunConfig, network: nn.Module, data: Dataset, factory: Factory | None = None) -> nn.Module:
    """The network of a run with the node of its config, if it has one."""
    if not config.nodes:
        return network
    default = 1.0 if factory is None and config.network == "linear" else None
    return inject(
        network,
        layer_names(config, network),
        sigma=config.sigma,
        nodes=config.nodes,
        niw_std=default if config.niw_std is None else config.niw_std,
        example=cast(data.x_train[:2], DTYPES[config.dtype]),
        law=config.law,
        generator=config.generator("niw"),
    )


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Real numbers in this dtype; integers, such as labels and tokens, as they are."""
    return values.to(dtype) if values.is_floating_point() else values


def _top_modes(
    config: RunConfig,
    network: nn.Module,
    data: Dataset,
    factory: Factory | None,
    objective: Objective,
    device: torch.device | str,
) -> list[Mode]:
    """The top mode at each layer with a node; with batch norm, the statistics are those of the samples, held fixed."""
    # a factory may build a different network at each call, and a loss of one's own has no name to be known by
    known = _modes.setdefault(data, {}) if factory is None and objective.name else {}
    shape = config.replace(sigma=1.0, lr=1.0, niw_std=None, law="gaussian", resample="epoch"), str(device)
    if shape in known:
        return known[shape]
    if factory is None and config.network == "linear" and objective.name == "mse" and data.classes == 1:
        readout = network.layers[1].weight.detach()[0].cpu().double()  # <H> = v v^T / N, of rank one
        known[shape] = [Mode(lam=float(readout @ readout) / len(readout), vector=None, residual=0.0)]
        return known[shape]
    parts = data.x_train[: config.eval_samples], data.y_train[: config.eval_samples]
    x, y = (cast(part, DTYPES[config.dtype]).to(device) for part in parts)
    network = network.to(device)
    with statistics_of(network, x):
        modes = [
            top_mode(network, name, x, y, loss=objective.own or LOSSES[objective.name])
            for name in layer_names(config, network)
        ]
    network.cpu()
    known[shape] = modes
    return modes


def kappa_avg(
    ensemble: Stack, configs: Sequence[RunConfig], data: Dataset, objective: Objective | None = None
) -> Float[np.ndarray, " K"]:
    """kappa_avg = eta W.E[dL/dW] / |W|^2 at W = W_NI for each of K runs (K,): the initial rate of fall of |W_NI|.

    E[dL/dW] = E[eps dl/dz(z + eps W)] (eq. (4)) over eval_samples training samples and curvature_pairs antithetic draws
    +-eps for each, which cancel the random walk <eps g>. To lowest order in sigma, kappa_avg is
    eta sigma^2 W.<H>W / |W|^2 for smooth networks; for ReLU networks, whose autograd Hessian lacks the kinks, it is the
    curvature that matters. NaN without a node, for W_NI = 0, and if curvature_pairs is 0.
    """
    first = configs[0]
    if not first.nodes or not first.curvature_pairs:
        return np.full(len(configs), np.nan)
    objective = objective or Objective(first.loss)
    like = next(iter(ensemble.weights.values()))
    x, y = data.x_train[: first.eval_samples], data.y_train[: first.eval_samples]
    generators = [config.generator("curvature") for config in configs]
    pull = torch.zeros(len(configs), dtype=torch.float64)
    for _ in range(first.curvature_pairs):
        draws = [
            config.sigma * draw_for_layers(config, len(x), generator)
            for config, generator in zip(configs, generators, strict=True)
        ]
        eps = matching(torch.stack(draws), like)  # (K, samples, nodes)
        sizes = ensemble.chunks(len(x))
        for part_x, part_y, part_eps in zip(x.split(sizes), y.split(sizes), eps.split(sizes, dim=1), strict=True):
            inputs = part_x.expand(len(configs), *part_x.shape)  # (K, chunk, d)
            labels = part_y.expand(len(configs), *part_y.shape)  # (K, chunk, ...)
            for noise in (part_eps, -part_eps):
                ensemble.backward(inputs, labels, noise, loss=objective, scale=float(len(part_x)))
                for niw in ensemble.weights.values():
                    pull += (niw.detach() * niw.grad).flatten(1).sum(1).cpu().double()  # (K,)
    pull = pull.numpy() / (2 * first.curvature_pairs * len(x))
    weights = ensemble.weights.values()
    square = sum(widened(niw.detach()).square().flatten(1).sum(1).cpu() for niw in weights).numpy()  # (K,)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([config.lr for config in configs]) * pull / square

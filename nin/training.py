"""Training an ensemble of runs at once with an ordinary optimiser."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nin.arguments import check_count
from nin.batches import StackedBatches
from nin.config import DTYPES, RunConfig
from nin.data import Dataset, load_data
from nin.ensemble import Ensemble
from nin.losses import LOSSES
from nin.models import MLP, linear_net
from nin.nodes import inject, linear_layers
from nin.noise_average import kappa_avg
from nin.probes.curvature import Mode, top_mode
from nin.recording import Recorder
from nin.trajectories import Trajectories

ONE_THREAD_BELOW = 2**21  # multiply-adds of the largest product; `make bench` prints the step times behind the number
MAY_DIFFER = ("sigma", "seed", "niw_std", "law", "resample", "lr")


def train(
    configs: RunConfig | Sequence[RunConfig],
    *,
    data: Dataset | None = None,
    network: Callable[[], nn.Module] | None = None,
    snapshots: Sequence[int] = (),
    device: str = "auto",
    progress: bool = False,
) -> Trajectories:
    """Train runs that differ in sigma, seed, NIW scale, law, resampling or lr as one ensemble, and record them.

    configs    the runs, or one run; all other fields must agree
    data       the user's own Dataset in place of config.dataset
    network    factory of the user's own network in place of config.network, called once for each seed with torch's
               global generator seeded from the config and restored afterwards; it runs through torch.func.vmap
    snapshots  steps at which networks are kept; those of the end always are
    device     "auto": cuda where there is one, else cpu
    progress   a bar on stderr

    With SGD the loss of member k is scaled by lr_k under torch.optim.SGD of learning rate 1, which trains members of
    different lr and gives each the trajectory it has alone; with weight decay, or Adam, all lr must agree.
    A run whose noisy loss is not finite is recorded as divergent at that step and leaves the ensemble.

    At step 0: lambda_H is the top eigenvalue of the local Hessian <H> without noise, kappa_H = lr sigma^2 lambda_H, and
    kappa_avg = lr W.E[dL/dW] / |W|^2 the rate per step at which |W_NI| starts to fall, from antithetic noise.
    noise_output is n = v.W_NI / sqrt N in the linear net, else the projection of W_NI on the top mode of <H> at
    step 0; its norm where there are several nodes.

    Raises ValueError for no configs, configs that cannot be stacked, a batch larger than the data, an unknown layer.
    """
    configs = (configs,) if isinstance(configs, RunConfig) else tuple(configs)
    _check_stackable(configs)
    first = configs[0]
    for step in snapshots:
        check_count("snapshots", step, minimum=0)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    data = load_data(first.dataset, n_train=first.n_train) if data is None else data
    if first.batch_size > len(data.x_train):
        raise ValueError(f"batch_size={first.batch_size} is larger than the training set of {len(data.x_train)}.")
    data = data.to(DTYPES[first.dtype], device)

    members, modes = _members(configs, data, network)
    alive = _at_least_two(torch.arange(len(configs)))
    ensemble = Ensemble([members[run] for run in alive], device=device)
    with _threads(ensemble, first.batch_size):
        return _train(configs, data, ensemble, alive, Recorder(configs, data, modes), set(snapshots), progress)


def _train(
    configs: Sequence[RunConfig],
    data: Dataset,
    ensemble: Ensemble,
    alive: Tensor,
    recorder: Recorder,
    snapshots: set[int],
    progress: bool,
) -> Trajectories:
    first, feed = configs[0], StackedBatches(configs, data)
    kappa = kappa_avg(ensemble, [configs[run] for run in alive], data)[: len(configs)]
    optimizer, scale = _optimizer(configs, ensemble)
    scale = scale.to(data.x_train)
    for step in tqdm(range(first.steps + 1), disable=not progress, desc=f"{len(configs)} runs", unit="step"):
        if step in snapshots or step == first.steps:
            recorder.keep_networks(step, ensemble, alive)
        x, y, noise = feed.next(alive)
        loss = ensemble.backward(x, y, noise, loss=LOSSES[first.loss], scale=scale[alive])
        healthy = loss.isfinite().cpu()
        recorder.diverged_at[alive[~healthy].numpy()] = step
        if recorder.due(step):
            recorder.record(step, loss, ensemble, alive)
        if step == first.steps:
            break
        optimizer.step()
        if not healthy.all():
            members = _at_least_two(healthy.nonzero().squeeze(1))
            if len(members) == 0:
                break
            ensemble.keep(members, optimizer)
            alive = alive[members]
    return recorder.trajectories(kappa)


@contextmanager
def _threads(ensemble: Ensemble, batch: int) -> Iterator[None]:
    """One thread where the largest product of a step is small: more would only wait for each other."""
    before = torch.get_num_threads()
    if batch * max(p.numel() for p in ensemble.parameters.values()) < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _at_least_two(members: Tensor) -> Tensor:
    """A lone member twice: the product of one matrix takes another kernel than a stack's, and rounds differently."""
    return members.repeat(2) if len(members) == 1 else members


def _check_stackable(configs: Sequence[RunConfig]) -> None:
    if not configs:
        raise ValueError("configs is empty: pass at least one RunConfig.")
    for config in configs:
        if not isinstance(config, RunConfig):
            raise ValueError(f"configs holds a {type(config).__name__}, expected RunConfig.")
    differ = [f.name for f in dataclasses.fields(RunConfig) if len({getattr(c, f.name) for c in configs}) > 1]
    not_allowed = [name for name in differ if name not in MAY_DIFFER]
    if not_allowed:
        raise ValueError(
            f"configs cannot be stacked: they differ in {', '.join(not_allowed)}. One ensemble may differ in "
            f"{', '.join(MAY_DIFFER)}; call train once for each other value."
        )
    first = configs[0]
    if "lr" in differ and (first.optimizer != "sgd" or first.weight_decay):
        raise ValueError(
            f"configs cannot be stacked: they differ in lr with optimizer={first.optimizer!r}, "
            f"weight_decay={first.weight_decay}; only plain SGD, momentum included, may. Call train once for each lr."
        )


def _members(
    configs: Sequence[RunConfig], data: Dataset, factory: Callable[[], nn.Module] | None
) -> tuple[list[nn.Module], list[Mode | None]]:
    """Build the network of each run, and the top mode of <H> at its node (None without a node)."""
    networks: dict[int, nn.Module] = {}
    modes: dict[int, Mode | None] = {}
    members = []
    for config in configs:
        if config.seed not in networks:
            network = _network(config, data, factory)
            networks[config.seed] = network
            modes[config.seed] = _top_mode(config, network, data, factory) if config.nodes else None
        members.append(_with_node(config, networks[config.seed], factory))
    return members, [modes[config.seed] for config in configs]


def _network(config: RunConfig, data: Dataset, factory: Callable[[], nn.Module] | None) -> nn.Module:
    dtype, generator = DTYPES[config.dtype], config.generator("weights")
    if factory is not None:
        with torch.random.fork_rng(devices=[]):
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


def _check_vmap(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            raise ValueError(
                f"network: its module {name!r} is a {type(module).__name__}, which couples samples or draws its own "
                "noise and cannot be trained in an ensemble; use LayerNorm or GroupNorm, or train it in your own loop."
            )


def _layer_name(config: RunConfig, network: nn.Module) -> str:
    names = linear_layers(network)
    if isinstance(config.layer, str):
        return config.layer
    if config.layer >= len(names):
        known = f"0 to {len(names) - 1}: {', '.join(names)}"
        raise ValueError(f"layer={config.layer} is not in the model; its linear layers are {known}.")
    return names[config.layer]


def _with_node(config: RunConfig, network: nn.Module, factory: Callable | None) -> nn.Module:
    if not config.nodes:
        return network
    default = 1.0 if factory is None and config.network == "linear" else None
    return inject(
        network,
        _layer_name(config, network),
        sigma=config.sigma,
        nodes=config.nodes,
        niw_std=default if config.niw_std is None else config.niw_std,
        law=config.law,
        generator=config.generator("niw"),
    )


def _top_mode(config: RunConfig, network: nn.Module, data: Dataset, factory: Callable | None) -> Mode:
    x, y = data.x_train[: config.eval_samples], data.y_train[: config.eval_samples]
    if factory is None and config.network == "linear" and config.loss == "mse" and data.classes == 1:
        readout = network.layers[1].weight.detach()[0].double()  # <H> = v v^T / N, of rank one
        return Mode(lam=float(readout @ readout) / len(readout), vector=None, residual=0.0)
    network = network.to(x.device)
    mode = top_mode(network, _layer_name(config, network), x, y, loss=LOSSES[config.loss])
    network.cpu()
    return mode


def _optimizer(configs: Sequence[RunConfig], ensemble: Ensemble) -> tuple[torch.optim.Optimizer, Tensor]:
    """The optimiser, and the factor (K,) of each member's loss."""
    first, parameters = configs[0], list(ensemble.parameters.values())
    ones = torch.ones(len(configs), dtype=torch.float64)
    if first.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=first.lr, weight_decay=first.weight_decay), ones
    if first.weight_decay:
        sgd = torch.optim.SGD(parameters, lr=first.lr, momentum=first.momentum, weight_decay=first.weight_decay)
        return sgd, ones
    sgd = torch.optim.SGD(parameters, lr=1.0, momentum=first.momentum)
    return sgd, torch.tensor([c.lr for c in configs], dtype=torch.float64)

"""Train an ensemble of runs at once with an ordinary optimiser."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nin.model.data import Dataset, load_data
from nin.support.arguments import check_count
from nin.support.precision import matching
from nin.support.progress import ProgressBar
from nin.support.threads import threads, threads_for
from nin.training.batches import StackedBatches
from nin.training.config import DTYPES, RunConfig
from nin.training.ensemble import Ensemble, member
from nin.training.recorder import EARLY, Recorder
from nin.training.stacking import check_stackable
from nin.training.start import kappa_avg, members
from nin.training.trajectories import Trajectories
from nin.training.twins import twins


def train(
    configs: RunConfig | Sequence[RunConfig],
    *,
    data: Dataset | None = None,
    network: Callable[[], nn.Module] | None = None,
    snapshots: Sequence[int] = (),
    observe: Callable[[int, int, nn.Module], None] | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Trajectories:
    """Train runs that differ in sigma, seed, NIW scale, law, resampling or lr as one ensemble, and record them.

    configs    the runs, or one run; all other fields must agree
    data       a user-defined Dataset in place of config.dataset
    network    factory of a user-defined network in place of config.network, called once for each seed with torch's
               global generator seeded from the config and restored afterwards; the network runs under torch.func.vmap
    snapshots  steps at which networks are kept; the final networks are always kept
    observe    called at the snapshots with the index of a run, the step and a copy of its network, for each run whose
               noisy loss is finite there; only the final networks are then kept
    device     "auto": cuda if available, else cpu
    progress   whether to show a bar on stderr

    With SGD, the loss of member k is scaled by lr_k and torch.optim.SGD has learning rate 1, so that members of
    different lr train together and each follows the trajectory it has alone. With weight decay, or Adam, all lr must
    agree. A run whose noisy loss is not finite is recorded as divergent at that step and leaves the ensemble.

    At step 0: lambda_H is the top eigenvalue of the local Hessian <H> without noise, kappa_H = lr sigma^2 lambda_H, and
    kappa_avg = lr W.E[dL/dW] / |W|^2 is the rate per step at which |W_NI| starts to fall, from antithetic noise.
    noise_output is n = v.W_NI / sqrt N in the linear net, else the projection of W_NI on the top mode of <H> at
    step 0; for several nodes, the norm of the projections.

    Raises ValueError for no configs, configs that cannot be stacked, a batch larger than the data, or an unknown layer.
    """
    configs = (configs,) if isinstance(configs, RunConfig) else tuple(configs)
    check_stackable(configs)
    first = configs[0]
    for step in snapshots:
        check_count("snapshots", step, minimum=0)
    device = find_device(device)
    data = load_data(first.dataset, n_train=first.n_train) if data is None else data
    if first.batch_size > len(data.x_train):
        raise ValueError(
            f"batch_size={first.batch_size} is larger than the training set of {len(data.x_train)}; lower it."
        )
    added, twin_of = twins(configs)
    stack, modes = members([*configs, *added], data, network, device=device)
    data = data.to(DTYPES[first.dtype], device)
    alone = _at_least_two(torch.arange(len(configs)))
    ensemble = Ensemble([stack[run] for run in alone], device=device)
    largest = first.batch_size * max(p.numel() for p in ensemble.parameters.values())
    with threads(threads_for(largest)):
        kappa = kappa_avg(ensemble, [configs[run] for run in alone], data)[: len(configs)]
        alive = _at_least_two(torch.arange(len(stack)))
        ensemble = Ensemble([stack[run] for run in alive], device=device)
        recorder = Recorder([*configs, *added], data, modes, twin_of=twin_of)
        _train(recorder, data, ensemble, alive, set(snapshots), observe, progress)
        return recorder.trajectories(kappa)


def find_device(device: str) -> torch.device:
    """The device with this name; "auto": cuda if available, else cpu."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def _train(
    recorder: Recorder,
    data: Dataset,
    ensemble: Ensemble,
    alive: Int[Tensor, " K"],
    snapshots: set[int],
    observe: Callable[[int, int, nn.Module], None] | None,
    progress: bool,
) -> None:
    """Train runs and twins, a twin for the first EARLY steps, and record them."""
    configs, first, runs = recorder.configs, recorder.first, recorder.runs
    feed = StackedBatches(configs, data)
    feed.keep(alive)
    optimizer, scale = make_optimizer(configs, ensemble)
    scale = matching(scale, data.x_train)[alive]
    bar = {"total": first.steps, "progress": progress, "desc": f"{runs} runs", "unit": "step"}
    for step in ProgressBar(range(first.steps + 1), **bar):
        if step == first.steps or (step in snapshots and observe is None):
            recorder.keep_networks(step, ensemble, alive)
        x, y, noise = feed.next()
        loss = ensemble.backward(x, y, noise, loss=first.loss, scale=scale)  # (K,)
        finite = np.isfinite(loss.numpy(force=True))
        recorder.diverged_at[alive.numpy()[~finite]] = step
        if step in snapshots and observe is not None:
            _show(observe, step, ensemble, configs, alive, finite & (alive.numpy() < runs))
        if recorder.due(step):
            recorder.record(step, loss, ensemble, alive)
        if step == first.steps:
            break
        optimizer.step()
        stay = finite & ((alive.numpy() < runs) | (step < EARLY))
        if stay.all():
            continue
        if not stay.any():
            break
        left = _at_least_two(torch.from_numpy(stay.nonzero()[0]))
        ensemble.keep(left, optimizer)
        alive, scale = alive[left], scale[left]
        feed.keep(alive)


def _show(
    observe: Callable[[int, int, nn.Module], None],
    step: int,
    ensemble: Ensemble,
    configs: Sequence[RunConfig],
    alive: Int[Tensor, " K"],
    shown: Bool[np.ndarray, " K"],
) -> None:
    """Call observe once for each run that is to be shown; a lone run has two places in the ensemble."""
    state, place_of = ensemble.state(), dict(zip(alive.tolist(), range(len(alive)), strict=True))
    for run, place in place_of.items():
        if shown[place]:
            observe(run, step, member(ensemble.template, state, place, configs[run]))


def _at_least_two(members: Int[Tensor, " members"]) -> Int[Tensor, " at_least_two"]:
    """A lone member twice: the product of one matrix uses a different kernel than a stack's, and rounds differently."""
    return members.repeat(2) if len(members) == 1 else members


def make_optimizer(
    configs: Sequence[RunConfig], ensemble: Ensemble
) -> tuple[torch.optim.Optimizer, Float[Tensor, " runs"]]:
    """The optimiser, and the factor (runs,) by which the loss of each run is multiplied."""
    first, parameters = configs[0], list(ensemble.parameters.values())
    ones = torch.ones(len(configs), dtype=torch.float64)
    if first.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=first.lr, weight_decay=first.weight_decay), ones
    if first.weight_decay:
        sgd = torch.optim.SGD(parameters, lr=first.lr, momentum=first.momentum, weight_decay=first.weight_decay)
        return sgd, ones
    sgd = torch.optim.SGD(parameters, lr=1.0, momentum=first.momentum)
    return sgd, torch.tensor([c.lr for c in configs], dtype=torch.float64)

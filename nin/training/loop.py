"""Train an ensemble of runs at once with an ordinary optimiser."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from nin.model.data import load_data
from nin.model.dataset import Dataset
from nin.support.arguments import check_function, check_kind, check_steps
from nin.support.devices import find_device
from nin.support.numerics import own_numerics
from nin.support.precision import matching
from nin.support.progress import ProgressBar
from nin.support.threads import threads, threads_for
from nin.training.batches import StackedBatches
from nin.training.config import DTYPES, RunConfig
from nin.training.ensemble import Ensemble
from nin.training.expected import spread_evenly
from nin.training.objective import Objective, OwnLoss
from nin.training.one_by_one import OneByOne
from nin.training.operations import largest_product
from nin.training.recorder import EARLY, Recorder
from nin.training.stacking import check_stackable
from nin.training.start import build, cast, kappa_avg, members, with_node
from nin.training.together import why_alone
from nin.training.trajectories import Trajectories
from nin.training.twins import twins
from nin.training.updates import Stack, Updates

CHECKED = 64  # samples on which a network and a loss are tried before training
LABELS = 256  # of which a sample is tried as well


@own_numerics()
def train(
    configs: RunConfig | Sequence[RunConfig],
    *,
    data: Dataset | object | None = None,  # other types must reach our own errors
    network: Callable[[], nn.Module] | None = None,
    loss: OwnLoss | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    snapshots: Sequence[int] = (),
    observe: Callable[[int, int, nn.Module], None] | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Trajectories:
    """Train runs that differ in sigma, seed, NIW scale, law, resampling or lr as one ensemble, and record them.

    configs    the runs, or one run; all other fields must agree
    data       a user-defined Dataset in place of config.dataset; `Dataset.from_torch` makes one of torch's
    network    factory of a user-defined network in place of config.network, called once for each seed, and once more to
               try it, with the global generators of torch, NumPy and Python seeded from the config and restored
               afterwards: network() -> nn.Module, from a tensor of samples to a tensor
    loss       loss(outputs, y) -> the losses of the samples, or their mean, in place of config.loss
    augment    augment(x) -> x of the same number, applied to every batch in training and to nothing that is measured;
               what it draws from the global generators of torch, NumPy and Python follows from the run's seed
    snapshots  steps at which networks are kept; the final networks are always kept
    observe    called at the snapshots with the index of a run, the step and a copy of its network, for each run whose
               noisy loss is finite there; only the final networks are then kept
    device     "auto": cuda if available, else cpu
    progress   whether to show a bar on stderr

    With SGD, members of different lr train together, and each follows the trajectory it has alone. With weight decay,
    or Adam, all lr must agree. A run whose noisy loss is not finite is recorded as divergent at that step and leaves
    the ensemble. Networks that cannot be stacked (batch norm, dropout, autocast, operations that torch.func.vmap lacks)
    and, on a CPU, those that a stack would slow down (more than 10^8 multiply-adds for a batch) are trained one after
    the other, to the same tables; `Trajectories.alone` says why. Measured, they are in eval mode, and batch norms use
    the statistics of the samples.

    The numbers of a run do not depend on the other runs: to the last bit for the networks of configs, and for one's own
    where the values of every layer in a batch, |B| x width numbers, fill whole cache lines of 64 bytes (|B| or width a
    multiple of 16, in float64 of 8). Elsewhere the last bits may depend on the place in the ensemble, up to 3e-7, and
    on the number of threads (seen once: 1e-16, in float64, 33 members on two).
    Autocast, inference mode, default dtype and the precision of products are the config's, not the caller's, and are
    restored.

    At step 0: lambda_H is the top eigenvalue of the local Hessian <H> without noise (of several layers the largest),
    kappa_H = lr sigma^2 lambda_H, and kappa_avg = lr W.E[dL/dW] / |W|^2 is the rate per step at which |W_NI| starts to
    fall, from antithetic noise; both are NaN for Adam, whose steps are not lr times the gradient. noise_output is
    n = v.W_NI / sqrt N in the linear net, else the projection of W_NI on the top mode of <H> at step 0; for several
    nodes and layers, the norm of the projections.

    Raises ValueError for no configs, configs that cannot be stacked, a batch larger than the data, an unknown layer, a
    network that does not return a tensor, and a loss that is not a mean over the samples.
    """
    configs = check_stackable((configs,) if isinstance(configs, RunConfig) else configs)
    first = configs[0]
    snapshots = check_steps("snapshots", snapshots, last=first.steps)
    check_own(data, network, loss, augment)
    if observe is not None:
        check_function("observe", observe, "(run, step, network) -> None")
    device = find_device(device)
    data = load_data(first.dataset, n_train=first.n_train) if data is None else data.trainable()
    if first.batch_size > len(data.x_train):
        raise ValueError(
            f"batch_size={first.batch_size} is larger than the training set of {len(data.x_train)}; lower it."
        )
    objective = Objective(first.loss if loss is None else loss)
    plain = build(first, data, network)
    alone = check_run(first, plain, data, objective, device)
    added, twin_of = twins(configs)
    runs = [*configs, *added]
    least = (Ensemble if alone is None else OneByOne).at_least
    chosen = _at_least(least, torch.arange(len(configs)))
    largest = largest_product(plain, cast(data.x_train[:2], DTYPES[first.dtype]).cpu())
    few = threads_for(first.batch_size * largest * (len(chosen) if alone is None else 1))
    with threads(few):
        made, modes = members(runs, data, network, objective=objective, device=device)
    data = data.to(DTYPES[first.dtype], device)

    def stack(chosen: Int[Tensor, " K"]) -> Stack:
        picked = [made[run] for run in chosen]
        if alone is None:
            return Ensemble(picked, device=device)
        return OneByOne(picked, [runs[run] for run in chosen], device=device)

    ensemble = stack(chosen)
    with threads(few):
        kappa = kappa_avg(ensemble, [configs[run] for run in chosen], data, objective)[: len(configs)]
        alive = _at_least(least, torch.arange(len(runs)))
        ensemble = stack(alive)
        recorder = Recorder(runs, data, modes, twin_of=twin_of, objective=objective, alone=alone)
        _train(recorder, StackedBatches(runs, data, augment), ensemble, alive, set(snapshots), observe, progress)
        return recorder.trajectories(kappa)


def check_own(
    data: Dataset | object | None,
    network: Callable[[], nn.Module] | None,
    loss: OwnLoss | None,
    augment: Callable[[Tensor], Tensor] | None,
) -> None:
    """Raise ValueError for data or functions of one's own, as `train` takes them, that are neither None nor such."""
    if data is not None:
        what = "a nin.Dataset (nin.Dataset.from_torch makes one of torch's), or None for the data set of the config"
        check_kind("data", data, Dataset, what)
    if isinstance(network, nn.Module):
        raise ValueError(
            f"network={type(network).__name__}(...) is a module; pass a factory, a function () -> nn.Module that "
            "builds a new one for each seed."
        )
    if network is not None:
        check_function("network", network, "() -> nn.Module")
    if loss is not None:
        check_function("loss", loss, "(outputs, y) -> losses; one by name is RunConfig(loss=...)")
    if augment is not None:
        check_function("augment", augment, "x -> x of the same number")


def check_run(
    config: RunConfig, network: nn.Module, data: Dataset, objective: Objective, device: torch.device | None = None
) -> str | None:
    """Try the network, its nodes and the loss on some samples; why runs are trained one after the other, or None.

    Raises ValueError for a layer that takes no node, for a network that does not return a tensor with a row for each
    sample, and as `Objective.check` does.
    """
    index = _samples_to_try(data)
    x, y = (cast(part[index], DTYPES[config.dtype]).cpu() for part in (data.x_train, data.y_train))
    try:
        outputs = OneByOne([with_node(config, network, data)], [config])(x[None])[0]
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"network={type(network).__name__}(...) cannot be run on samples x_train of {x.dtype} and shape "
            f"{tuple(x.shape)}: {' '.join(str(error).split())}"
        ) from error
    if outputs.shape[:1] != (len(x),):
        raise ValueError(
            f"network returned {tuple(outputs.shape)} for {len(x)} samples; the first axis must count the samples."
        )
    objective.check(outputs, y)
    return why_alone(config, network, x, device)


def _samples_to_try(data: Dataset) -> Int[Tensor, " count"]:
    """Numbers of samples spread evenly, and of the first with each label: a loss may weigh a rare one otherwise."""
    spread = spread_evenly(min(CHECKED, len(data.x_train)), len(data.x_train))
    if data.y_train.is_floating_point():
        return spread
    labels = data.y_train.reshape(len(data.y_train), -1)
    _, first = np.unique(labels.numpy(force=True), return_index=True)
    return torch.cat([spread, torch.from_numpy(first[:LABELS] // labels.shape[1])]).unique()


def _train(
    recorder: Recorder,
    feed: StackedBatches,
    ensemble: Stack,
    alive: Int[Tensor, " K"],
    snapshots: set[int],
    observe: Callable[[int, int, nn.Module], None] | None,
    progress: bool,
) -> None:
    """Train runs and twins, a twin for the first EARLY steps, and record them."""
    configs, first, runs = recorder.configs, recorder.first, recorder.runs
    feed.keep(alive)
    updates = Updates([configs[run] for run in alive], ensemble)
    like = torch.empty((), dtype=DTYPES[first.dtype], device=feed.data.x_train.device)
    title = f"{runs} runs one by one" if recorder.alone else f"{runs} runs"
    bar = {"total": first.steps, "progress": progress, "desc": title, "unit": "step"}
    for step in ProgressBar(range(first.steps + 1), **bar):
        if step == first.steps or (step in snapshots and observe is None):
            recorder.keep_networks(step, ensemble, alive)
        x, y, noise = feed.next()
        scale = matching(updates.scale, like)
        loss = ensemble.backward(x, y, noise, loss=recorder.loss, scale=scale)  # (K,)
        finite = np.isfinite(loss.numpy(force=True))
        recorder.diverged_at[alive.numpy()[~finite]] = step
        if step in snapshots and observe is not None:
            _show(observe, step, ensemble, configs, alive, finite & (alive.numpy() < runs))
        if recorder.due(step):
            recorder.record(step, loss, ensemble, alive)
        if step == first.steps:
            break
        updates.step(step)
        stay = finite & ((alive.numpy() < runs) | (step < EARLY))
        if stay.all():
            continue
        if not stay.any():
            break
        left = _at_least(ensemble.at_least, torch.from_numpy(stay.nonzero()[0]))
        updates.keep(left)
        alive = alive[left]
        feed.keep(alive)


def _show(
    observe: Callable[[int, int, nn.Module], None],
    step: int,
    ensemble: Stack,
    configs: Sequence[RunConfig],
    alive: Int[Tensor, " K"],
    shown: Bool[np.ndarray, " K"],
) -> None:
    """Call observe once for each run that is to be shown; a lone run has two places in the ensemble."""
    copies = ensemble.copies([configs[run] for run in alive])
    place_of = dict(zip(alive.tolist(), range(len(alive)), strict=True))
    for run, place in place_of.items():
        if shown[place]:
            observe(run, step, copies[place]())


def _at_least(least: int, members: Int[Tensor, " members"]) -> Int[Tensor, " at_least"]:
    """A lone member as often as a stack needs it."""
    return members.repeat(least) if len(members) == 1 else members

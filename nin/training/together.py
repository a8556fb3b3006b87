"""Can the runs of a network be trained as one, with stacked weights, and does it pay? If not, why."""

import re
import threading
import warnings

import torch
from torch import Tensor, nn
from torch.func import vmap

from nin.model.functional import call_with
from nin.model.independence import check_independent
from nin.model.networks import MLP
from nin.model.nodes import NoisyNetwork
from nin.support.precision import widened
from nin.support.randomness import kept_randomness
from nin.training.config import RunConfig
from nin.training.operations import operations

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative: stacked products round differently
# Multiply-adds of a network for one batch, above which, on a CPU, a stack's arithmetic costs more than its fewer calls
# save: grouped convolutions, weights that leave the cache (`python -m benchmarks stacked_networks`).
SLOWER_FROM = 10**8
LACKING = r"batching rule for (\S+?)\. "  # in torch's warning
_one_at_a_time = threading.Lock()  # the threads of a process share the filters of warnings


def why_alone(config: RunConfig, network: nn.Module, x: Tensor, device: torch.device | None = None) -> str | None:
    """Why runs of this network are trained one after the other, in a clause; None if they are stacked.

    They can be if the network is the same function in training as in evaluation (no batch norm, no dropout), leaves its
    buffers alone, and gives under torch.func.vmap what it gives alone. It pays if vmap has a rule for every operation
    and, on a CPU, up to SLOWER_FROM multiply-adds for a batch. Both ways round differently, so a count decides and not
    a clock, for any number of runs: the numbers of a run depend neither on the other runs nor on a machine's load.
    Asked with the samples x; nothing is changed. device: where it is trained; None: a CPU.
    """
    if config.autocast:
        return "autocast acts on one network at a time"
    network = network.network if isinstance(network, NoisyNetwork) else network
    if type(network) is MLP:
        return None
    with torch.no_grad(), kept_randomness():
        modes = {module: module.training for module in network.modules()}
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        try:
            trained = [network(x) for _ in range(2)]
            changed = [name for name, b in network.named_buffers() if not torch.equal(b, buffers[name])]
            network.eval()
            evaluated = network(x)
        finally:
            for module, mode in modes.items():
                module.training = mode
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])
        if changed:
            return f"its buffer {changed[0]!r} changes in training"
        if _apart(*trained):
            return "it draws random numbers in training"
        if _apart(trained[0], evaluated):
            return "it is another function in training than in evaluation"
        try:
            check_independent(network, x)
        except ValueError:
            return "it mixes the samples of a batch"
        try:
            values = {name: torch.stack([p, p]) for name, p in [*network.named_parameters(), *network.named_buffers()]}
            with _one_at_a_time, warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                stacked = vmap(lambda values: call_with(network, values, (x,)))(values)
        except Exception as error:  # operations that vmap refuses, Python that branches on values
            return f"torch.func.vmap cannot run it ({str(error).strip().splitlines()[0].rstrip('.')})"
        if _apart(stacked[1], trained[0]):
            return "torch.func.vmap changes what it computes"
        if lacking := [found for warning in told for found in re.findall(LACKING, str(warning.message))]:
            return f"torch.func.vmap has no rule for its operation {lacking[0]}, and takes it apart"
        return _slower(config, network, x) if device is None or device.type == "cpu" else None


def _slower(config: RunConfig, network: nn.Module, x: Tensor) -> str | None:
    some = x[:2]
    count = operations(network, some).total * config.batch_size // len(some)
    if count <= SLOWER_FROM:
        return None
    return f"its {count:.2g} multiply-adds for a batch take longer in a stack (from {SLOWER_FROM:.0e})"


def _apart(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return True
    tolerance = CLOSE.get(a.dtype, 1e-2) * widened(a).abs().max().item()
    return not bool(((widened(a) - widened(b)).abs() <= tolerance).all())

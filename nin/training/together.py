"""Can the runs of a network be trained as one, with stacked weights? If not, why."""

import torch
from torch import Tensor, nn
from torch.func import vmap

from nin.model.functional import call_with
from nin.model.independence import check_independent
from nin.model.networks import MLP
from nin.model.nodes import NoisyNetwork
from nin.support.precision import widened
from nin.training.config import RunConfig

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative: stacked products round differently


def why_alone(config: RunConfig, network: nn.Module, x: Tensor) -> str | None:
    """Why runs of this network must be trained one after the other, in a clause; None if they can be stacked.

    They can be if the network is the same function in training as in evaluation (no batch norm, no dropout), leaves its
    buffers alone, and gives under torch.func.vmap what it gives alone. Asked with the samples x; nothing is changed.
    """
    if config.autocast:
        return "autocast acts on one network at a time"
    network = network.network if isinstance(network, NoisyNetwork) else network
    if type(network) is MLP:
        return None
    with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
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
            stacked = vmap(lambda values: call_with(network, values, (x,)))(values)
        except Exception as error:  # operations without a batching rule, Python that branches on values
            return f"torch.func.vmap cannot run it ({str(error).strip().splitlines()[0].rstrip('.')})"
    return "torch.func.vmap changes what it computes" if _apart(stacked[1], trained[0]) else None


def _apart(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return True
    tolerance = CLOSE.get(a.dtype, 1e-2) * widened(a).abs().max().item()
    return not bool(((widened(a) - widened(b)).abs() <= tolerance).all())

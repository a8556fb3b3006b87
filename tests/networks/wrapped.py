"""Networks that something wraps: adapters, a compiler, checkpoints, less precision, other processes."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from feedforward import X, Y, mlp
from kinds import Kind, seeded
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint


class LoRA(nn.Module):
    """A frozen linear layer and a trained product of two thin matrices, as in peft."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.base_layer = base.requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(base.in_features, rank, False), nn.Linear(rank, base.out_features, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 2.0 * self.lora_B(self.lora_A(x))


class Checkpointed(nn.Module):
    """A linear layer, and the rest under a checkpoint while gradients are needed."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first, self.rest = nn.Linear(5, 6), nn.Sequential(nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.reentrant is None or not torch.is_grad_enabled():
            return self.rest(h)
        return checkpoint(self.rest, h, use_reentrant=self.reentrant)


class Autocast(nn.Module):
    """Multiplies in bfloat16; the weights are float32."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(x).to(x.dtype)


class Plain(nn.Module):
    """The same without autocast."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Inside(nn.Module):
    """A network as the only module of another, as in DDP."""

    def __init__(self, module: nn.Module, name: str = "module") -> None:
        super().__init__()
        self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        (module,) = self.children()
        return module(x)


def lora() -> nn.Module:
    network = mlp()
    network[2] = LoRA(network[2])
    return seeded(network)


def without_checkpoint(network: nn.Module) -> nn.Module:
    twin = copy.deepcopy(network)
    twin.reentrant = None
    return twin


def in_place() -> nn.Module:
    network = seeded(mlp())
    network.compile(backend="eager")
    return network


def sharded() -> nn.Module:
    return fully_shard(seeded(mlp()), mesh=distributed.device_mesh.init_device_mesh("cpu", (1,)))


@contextmanager
def one_process() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def unwrapped(network: nn.Module) -> nn.Module:
    """The network before it was compiled or sharded."""
    twin = mlp().double()
    whole = getattr(network, "_orig_mod", network)
    with torch.no_grad():
        for ours, theirs in zip(twin.parameters(), whole.parameters(), strict=True):
            ours.copy_(theirs.full_tensor() if hasattr(theirs, "full_tensor") else theirs)
    return twin


KINDS = [
    Kind("LoRA", lora, X, Y, "2", neurons="2"),
    Kind("torch.compile", lambda: torch.compile(seeded(mlp()), backend="eager"), X, Y, "_orig_mod.2",
         neurons="_orig_mod.2", twin=lambda network: Inside(unwrapped(network), "_orig_mod")),
    Kind("module.compile", in_place, X, Y, "2", neurons="2", twin=unwrapped),
    Kind("checkpoint, reentrant", lambda: seeded(Checkpointed(True)), X, Y, "rest.1", neurons="first",
         twin=without_checkpoint),
    Kind("checkpoint, not reentrant", lambda: seeded(Checkpointed(False)), X, Y, "rest.1", neurons="first",
         twin=without_checkpoint),
    Kind("float32", lambda: seeded(mlp()).float(), X.float(), Y, "0", neurons="0",
         twin=lambda network: copy.deepcopy(network).double(), tolerance=5e-3),
    Kind("autocast", lambda: seeded(Autocast()).float(), X.float(), Y, "inner.0", neurons="inner.0",
         twin=lambda network: Plain(copy.deepcopy(network.inner)).double(), tolerance=5e-2),
    Kind("bfloat16", lambda: seeded(mlp()).bfloat16(), X.bfloat16(), Y, "0", neurons="0",
         twin=lambda network: copy.deepcopy(network).double(), tolerance=5e-2),
    Kind("DDP", lambda: DistributedDataParallel(seeded(mlp())), X, Y, "module.2", neurons="module.2",
         twin=lambda network: Inside(copy.deepcopy(network.module)), around=one_process),
    Kind("FSDP", sharded, X, Y, "2", neurons="2", twin=unwrapped, around=one_process),
]  # fmt: skip

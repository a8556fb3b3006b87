"""One forward pass with noise: the hooks that add it, the draws, and the pass that a checkpoint repeats in backward."""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from inspect import unwrap
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nin.model.passing import Noise, tensors
from nin.model.recomputation import Calls, checkpointed, in_backward
from nin.support.precision import matching

if TYPE_CHECKING:
    from nin.model.nodes import NoisyNetwork


@dataclass
class Passing:
    """What a noisy network knows of its calls, not of itself; copies begin without it.

    given    the noise of `using`; active: the pass that is going on
    repeats  calls that backward will repeat, and the hooks (again) that stay for them
    """

    given: Noise | None = None
    active: "Shift | None" = None
    repeats: Calls = field(default_factory=Calls)
    again: list[RemovableHandle] = field(default_factory=list)


class Shift:
    """A forward pass of a noisy network: each layer with nodes gets its noise, drawn (noise=None) or given.

    The hooks live for one pass, so that the network itself is not changed. Only where a checkpoint inside the network
    holds a layer, an inert hook stays until backward has computed that layer again.
    """

    def __init__(self, noisy: "NoisyNetwork", noise: Noise | None) -> None:
        self.noisy, self.counts = noisy, [0] * len(noisy.sites)
        self.given = None if noise is None else _by_layer(noise, noisy.layers)
        self.drawn: list[list[Tensor]] = []  # by call, then by layer
        self.checkpointed = False

    def call(self, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """The output of the network under the noise."""
        noisy = self.noisy
        self.inputs = [t.shape for t in tensors(inputs[0] if inputs else keywords) if t.dim()]
        self.trains = torch.is_grad_enabled()
        passing = noisy._passing
        outer, passing.active = passing.active, self
        weights = noisy.weights
        hooks = [
            _hook(noisy.network, site.layer, site.at, lambda values, index=index: self.add(index, values, weights))
            for index, site in enumerate(noisy.sites)
        ]
        try:
            with _own_kernels(noisy.network):
                output = noisy.network(*inputs, **keywords)
        finally:
            passing.active = outer
            for hook in hooks:
                hook.remove()
            Again.renew(noisy, needed=self.checkpointed)
        for site, count in zip(noisy.sites, self.counts, strict=True):
            if not count:
                _refuse_calls(site.layer, count)
        return output

    def add(self, index: int, values: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """The values of a layer with its noise."""
        noisy, site = self.noisy, self.noisy.sites[index]
        call = self.counts[index]
        self.counts[index] += 1
        if call and noisy.calls == "once":
            _refuse_calls(site.layer, call + 1)
        rows, niw = site.count(values), weights[site.layer]
        samples = {size for shape in self.inputs for size in shape[: site.batch_axis + 1]}
        if samples and rows not in samples and not isinstance(self._noise(index), float):
            return site.add(values, niw.new_zeros(min(samples), len(niw)), niw)  # which says what does not fit
        where = None if torch.compiler.is_compiling() else checkpointed(_owner())
        if where is None and self.trains and not torch.is_grad_enabled() and niw.requires_grad and self.given is None:
            raise ValueError(
                f"layer={site.layer!r} runs under torch.no_grad inside the network, so that its noise injection "
                "weights would get no gradient. Inject into a layer that is trained."
            )
        if where is not None and in_backward() and self.given is None:
            return site.add(values, noisy._passing.repeats.find(index, values, site.layer), niw)
        eps = matching(self._eps(index, call, rows), niw)
        if where is not None:
            noisy._passing.repeats.remember(index, values, eps)
            self.checkpointed |= where == "inside"
        return site.add(values, eps, niw)

    def _noise(self, index: int) -> Tensor | float | None:
        return None if self.given is None else self.given[self.noisy.layers[index]]

    def _eps(self, index: int, call: int, rows: int) -> Float[Tensor, "batch nodes"]:
        each = self.noisy.calls == "each"
        if self.given is None:
            while len(self.drawn) <= (call if each else 0):
                self.drawn.append(self.noisy.draws(rows))
            return self.drawn[call if each else 0][index]
        layer, noise = self.noisy.layers[index], self._noise(index)
        nodes = len(self.noisy.weights[layer])
        if not isinstance(noise, Tensor):
            return torch.full((rows, nodes), float(noise))
        if each and noise.dim() == 3 and call < len(noise):
            noise = noise[call]
        if noise.shape != (rows, nodes):
            at = f" at {layer!r}" if len(self.noisy.sites) > 1 else ""
            expected = "(calls, batch, nodes), with" if each else "(batch, nodes) ="
            raise ValueError(f"noise{at} has shape {tuple(noise.shape)}, expected {expected} {(rows, nodes)}.")
        return noise


class Again:
    """A hook for a layer that backward computes again under gradient checkpointing; it does nothing otherwise.

    Copies of the network have it without its node, where it never does anything.
    """

    def __init__(self, noisy: "NoisyNetwork | None", index: int) -> None:
        self.noisy = None if noisy is None else weakref.ref(noisy)
        self.index = index

    @classmethod
    def renew(cls, noisy: "NoisyNetwork", *, needed: bool) -> None:
        """Let the hooks stay where they are needed, and remove them when no call waits for its backward pass."""
        again = noisy._passing.again
        if needed and not again:
            again += [_hook(noisy.network, s.layer, s.at, cls(noisy, index)) for index, s in enumerate(noisy.sites)]
        elif again and not needed and not noisy._passing.repeats.waiting:
            for hook in again:
                hook.remove()
            again.clear()

    def __call__(self, values: Tensor) -> Tensor:
        noisy = None if self.noisy is None else self.noisy()
        if noisy is None or noisy._passing.active is not None or not in_backward():
            return values
        if checkpointed(_owner()) != "inside":
            return values
        site = noisy.sites[self.index]
        eps = noisy._passing.repeats.find(self.index, values, site.layer)
        return site.add(values, eps, noisy.weights[site.layer])

    def __reduce__(self) -> tuple:
        return Again, (None, self.index)


@contextmanager
def no_hooks_left(noisy: "NoisyNetwork") -> Iterator[None]:
    """After the context no hook waits in the network, because nobody will call backward on its outputs again."""
    try:
        yield
    finally:
        noisy._passing.repeats = Calls()
        Again.renew(noisy, needed=False)


class _Output:
    """A forward hook that passes the output of a layer through a function."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return self.change(output)


class _Input(_Output):
    """A forward pre-hook that passes the first input of a layer through a function."""

    def __call__(self, module: nn.Module, inputs: tuple) -> tuple:
        return self.change(inputs[0]), *inputs[1:]


@cache
def _owner() -> CodeType:
    """The code of `Shift.call`, also where a type checker has wrapped it."""
    return unwrap(Shift.call).__code__


def _hook(network: nn.Module, layer: str, at: str, change: Any) -> RemovableHandle:
    module = network.get_submodule(layer)
    if at == "preactivation":
        return module.register_forward_hook(_Output(change))
    return module.register_forward_pre_hook(_Input(change))


@contextmanager
def _own_kernels(network: nn.Module) -> Iterator[None]:
    """Without gradients, keep attention off the fast path, which does not call the layers that a node is hooked to."""
    attention = not torch.is_grad_enabled() and any(isinstance(m, nn.MultiheadAttention) for m in network.modules())
    if not attention or torch.compiler.is_compiling():
        yield
        return
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _by_layer(noise: Noise, layers: tuple[str, ...]) -> dict[str, Tensor | float]:
    """Noise that was given, by layer; a tensor for one layer, a number for all."""
    if isinstance(noise, (int, float)):
        return dict.fromkeys(layers, float(noise))
    if len(layers) == 1 and isinstance(noise, Tensor):
        noise = {layers[0]: noise}
    if not isinstance(noise, Mapping) or set(noise) != set(layers):
        what = sorted(noise) if isinstance(noise, Mapping) else type(noise).__name__
        raise ValueError(f"noise={what} must map each of the layers {', '.join(layers)} to (batch, nodes).")
    return dict(noise)


def _refuse_calls(layer: str, count: int) -> None:
    often = "never called" if not count else f"called {'twice' if count == 2 else f'{count} times'}"
    more = "pass calls='same' for the same noise in all its calls, or calls='each' for new noise in each."
    less = "a module whose weight is used without calling it cannot take a node."
    raise ValueError(f"layer={layer!r} was {often} in one forward pass: {less if not count else more}")

"""The outputs of a network's layers, read while a forward pass computes them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.layers import check_hookable
from nin.support.randomness import kept_randomness

SILENT = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "Flatten", "Identity", "Unflatten")  # change no distance


def watched_layers(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules to watch, by name; None: all without children, except those that change no distance between samples.

    Raises ValueError for a name that is not in the model, and lists the names that are; and for a layer that a compiled
    module holds, which skips hooks.
    """
    found = _named_layers(model, layers)
    check_hookable(model, found)
    return found


def _named_layers(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    modules = {name: module for name, module in model.named_modules() if name}
    if layers is None:
        leaves = {name: module for name, module in modules.items() if not any(module.children())}
        return {name: module for name, module in leaves.items() if type(module).__name__ not in SILENT}
    if isinstance(layers, str):
        raise ValueError(f"layers={layers!r} must be a sequence of names: layers=[{layers!r}].")
    for name in layers:
        if name not in modules:
            raise ValueError(f"layers names {name!r}, which is not in the model; there are: {', '.join(modules)}.")
    return {name: modules[name] for name in layers}


@contextmanager
def watching(
    model: nn.Module, layers: Sequence[str] | None, see: Callable[[str, Tensor], Any]
) -> Iterator[Callable[[Tensor], dict[str, Any]]]:
    """Yield a function run(x) that passes x through the model and returns {name: see(name, output)} for the layers.

    The model runs in eval mode without gradients. `see` is called as soon as a layer has computed its output, before an
    in-place layer can overwrite it, in the order of the calls; the second output of a layer that is called twice is
    named "name#2". With layers=None, outputs that are not floating-point tensors with one row per sample are skipped,
    and the model's own output comes last, as "output", unless it is the output of a watched layer.
    The model is not changed. Raises ValueError for a named layer that is never called or has another kind of output.
    """
    watcher = _Watcher(model, layers, see)
    with ExitStack() as stack:
        for name, module in watcher.modules.items():
            stack.callback(module.register_forward_hook(partial(watcher.hook, name)).remove)
        with evaluating(model), torch.no_grad(), kept_randomness():
            yield watcher.run


class _Watcher:
    """The state of one forward pass: how often each layer was called, and what `see` returned for its outputs."""

    def __init__(self, model: nn.Module, layers: Sequence[str] | None, see: Callable[[str, Tensor], Any]) -> None:
        self.model, self.see, self.all = model, see, layers is None
        self.modules = watched_layers(model, layers)

    def run(self, x: Tensor) -> dict[str, Any]:
        self.rows, self.calls, self.seen, self.last = len(x), Counter(), {}, None
        output = self.model(x)
        if self.all and output is not self.last:
            self.look("output", output)
        if not self.all and (missing := [name for name in self.modules if name not in self.calls]):
            raise ValueError(f"layer {missing[0]!r} is not called in a forward pass: it has no output to measure.")
        self.last = None  # do not keep an output beyond the pass
        return self.seen

    def hook(self, name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        self.look(name, output)

    def look(self, name: str, output: object) -> None:
        self.calls[name] += 1
        if isinstance(output, Tensor) and output.is_floating_point() and output.shape[:1] == (self.rows,):
            self.last = output
            called = name if self.calls[name] == 1 else f"{name}#{self.calls[name]}"
            self.seen[called] = self.see(called, output)
        elif not self.all:
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer {name!r} gives {what} for {self.rows} samples, not one row of numbers per sample.")

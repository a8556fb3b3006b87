"""The outputs of a network's layers, seen as they are made."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nin.model.evaluating import evaluating

SILENT = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "Flatten", "Identity", "Unflatten")  # change no distance


def watched_layers(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules to watch by name; None: all without children, but those that change no distance between samples.

    Raises ValueError for a name that is not in the model, with those that are.
    """
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
    model: nn.Module, layers: Sequence[str] | None, see: Callable[[str, Tensor], None]
) -> Iterator[Callable[[Tensor], None]]:
    """Give a function that runs the model in eval mode, without gradients, and calls see(name, output) on the way.

    Outputs come in the order of the calls, at once, before a layer in place overwrites them; the second output of a
    layer that is called twice is named "name#2". With layers=None the model's own output comes last, as "output", where
    no layer made it; what is no floating-point tensor with one row a sample is then passed over.
    The model is left as it was. Raises ValueError for a named layer that is never called or has no such output.
    """
    chosen = watched_layers(model, layers)
    calls: dict[str, int] = {}
    last: list[object] = [None]
    rows = [0]

    def hook(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def look(module: nn.Module, inputs: tuple, output: object) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, Tensor) and output.is_floating_point() and output.shape[:1] == (rows[0],):
                last[0] = output
                see(name if calls[name] == 1 else f"{name}#{calls[name]}", output)
            elif layers is not None:
                what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"layer {name!r} gives {what} for {rows[0]} samples, not one row of numbers a sample.")

        return look

    def run(x: Tensor) -> None:
        calls.clear()
        rows[0] = len(x)
        output = model(x)
        if layers is None and output is not last[0]:
            hook("output")(model, (), output)
        if layers is not None and (missing := [name for name in chosen if name not in calls]):
            raise ValueError(f"layer {missing[0]!r} is not called in a forward pass: it has no output to measure.")

    handles = [module.register_forward_hook(hook(name)) for name, module in chosen.items()]
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield run
    finally:
        for handle in handles:
            handle.remove()

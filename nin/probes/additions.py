"""What residual blocks add to their stream, seen as it is added."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from nin.probes.watching import watched_layers


class Additions:
    """Hooks on the blocks that keep what each adds in a pass: its output minus its input, or its output alone."""

    def __init__(self, model: nn.Module, names: Sequence[str], adds: str) -> None:
        self.names, self.adds = names, adds
        self.inputs: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}
        self.handles = []
        for name, module in watched_layers(model, names).items():
            if adds == "difference":  # the input is kept before a block overwrites it
                self.handles.append(module.register_forward_pre_hook(partial(self._before, name)))
            self.handles.append(module.register_forward_hook(partial(self._after, name)))

    def _before(self, name: str, module: nn.Module, inputs: tuple) -> None:
        if not inputs or not isinstance(inputs[0], Tensor):
            raise ValueError(f"block {name!r} is not given a tensor; name its branch, with adds='output'.")
        self.inputs.setdefault(name, inputs[0].clone())

    def _after(self, name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if name in self.found:
            raise ValueError(f"block {name!r} is called twice in a forward pass: what it adds is not one entry.")
        if not isinstance(output, Tensor):
            raise ValueError(f"block {name!r} gives {type(output).__name__}, not a tensor.")
        if self.adds == "output":
            self.found[name] = output.clone()
            return
        before = self.inputs[name]
        if before.shape != output.shape:
            raise ValueError(
                f"block {name!r} turns {tuple(before.shape)} into {tuple(output.shape)}: what it adds is its output "
                "minus its input, of one shape. Leave it to the stem, or name branches (adds='output')."
            )
        self.found[name] = output - before

    def parts(self) -> list[Tensor]:
        """Stem and blocks of the pass, in the order of the names, forgotten here."""
        missing = [name for name in self.names if name not in self.found]
        if missing:
            raise ValueError(f"block {missing[0]!r} is not called in a forward pass: it adds nothing.")
        parts = [self.found[name] for name in self.names]
        if self.adds == "difference":
            parts.insert(0, self.inputs[self.names[0]])
        self.found, self.inputs = {}, {}
        return parts

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

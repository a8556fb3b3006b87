"""Values by the layer they belong to: noise injection weights, and arguments given for one layer or for each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class LayerWeights(nn.Module, Mapping):
    """Noise injection weights by the dotted name of their layer."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._layers = tuple(weights)
        for layer, tensor in weights.items():
            self.register_parameter(_entry(layer), parameter(tensor))

    def __getitem__(self, layer: str) -> Tensor:
        if layer not in self._layers:
            raise KeyError(f"{layer!r} has no node; layers with nodes: {', '.join(self._layers)}")
        return self._parameters[_entry(layer)]  # under functional_call a plain tensor, which get_parameter refuses

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def by_layer(name: str, value: Any, layers: Sequence[str]) -> tuple[Any, ...]:
    """The value of an argument for each layer: one value for all, a sequence in their order, or a mapping by layer.

    Raises ValueError for a sequence of another length, and for a mapping of other layers.
    """
    if isinstance(value, Mapping):
        if set(value) != set(layers):
            raise ValueError(f"{name}={dict(value)!r} must have a value for each of the layers {', '.join(layers)}.")
        return tuple(value[layer] for layer in layers)
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * len(layers)
    if len(values) != len(layers):
        raise ValueError(f"{name}={value!r} has {len(values)} values for {len(layers)} layers; give one, or one each.")
    return values


def parameter(tensor: Tensor) -> nn.Parameter:
    """The tensor itself if it is a parameter, which is then shared; else a new one."""
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)


def _entry(layer: str) -> str:
    return layer.replace(".", "/")

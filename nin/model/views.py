"""Networks that take or return more than a tensor, seen as functions of one tensor of samples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from nin.support.arguments import check_function, check_kind

Inputs = Shaped[Tensor, "_ ..."] | Sequence[Any] | Mapping[str, Any]
Forward = Callable[[nn.Module, Any], Any]


def check_model(model: nn.Module | object) -> None:
    """ValueError unless this is an nn.Module."""
    check_kind("model", model, nn.Module, "an nn.Module: a network, not its class")


class Rows:
    """The samples of nested sequences and mappings of tensors (n, ...): called with numbers, it gives these samples.

    Anything that is not a tensor with a first axis, such as use_cache=False, belongs to all samples. A tensor that all
    samples share, such as a mask of tokens (tokens, tokens), is not among them: forward adds it.
    """

    def __init__(self, values: Sequence[Any] | Mapping[str, Any]) -> None:
        self.values = values

    def __call__(self, index: Int[Tensor, " n"]) -> Any:
        def take(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[index.to(value.device)].to(index.device) if value.dim() else value
            return _map(take, value)

        return take(self.values)


def numbered(name: str, *inputs: Inputs) -> tuple[Rows | None, list[Tensor]]:
    """Sets of samples as tensors: tensors as they are, with None; others as numbers of rows, with what gives the rows.

    Raises ValueError for sets that differ in structure, and for tensors of one set that differ in length.
    """
    if all(isinstance(value, Tensor) for value in inputs):
        return None, list(inputs)
    lengths = [_length(name, value) for value in inputs]
    joined = inputs[0] if len(inputs) == 1 else _joined(name, inputs)
    starts = [sum(lengths[:place]) for place in range(len(lengths))]
    device = next(tensor.device for _, tensor in _leaves(name, inputs[0]) if tensor.dim())
    numbers = [torch.arange(start, start + n, device=device) for start, n in zip(starts, lengths, strict=True)]
    return Rows(joined), numbers


def viewed(model: nn.Module, forward: Forward | None, *inputs: Inputs) -> tuple[Any, ...]:
    """A network that is a function of one tensor of samples, and the sets of samples as tensors.

    forward  forward(model, x) -> outputs; None: model(x), model(*x) for a sequence x, or model(**x) for a mapping
    The result shares modules, parameters, buffers, names and modes with the model; it is the model where nothing needs
    to be done. Raises ValueError as `numbered` does.
    """
    check_model(model)
    if forward is not None:
        check_function("forward", forward, "(model, x) -> outputs")
    rows, tensors = numbered("x", *inputs)
    return (model if forward is None and rows is None else View(model, rows, forward), *tensors)


def moved(model: nn.Module, forward: Forward | None, x: Tensor) -> nn.Module:
    """As `viewed`, for samples whose values a probe changes: ValueError unless they are a tensor of real numbers."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = f"of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(
            f"x is {what}: its values cannot be moved by small amounts. Pass the tensor of real numbers that is moved, "
            "for tokens their embeddings, and everything else by forward, for example "
            "lambda model, e: model(inputs_embeds=e).logits."
        )
    return viewed(model, forward, x)[0]


def targeted(loss: Callable[..., Tensor], y: Inputs) -> tuple[Callable[..., Tensor], Tensor]:
    """A loss(outputs, targets) and its targets as a tensor; y may be a mapping, such as of labels and weights."""
    check_function("loss", loss, "(outputs, y) -> the mean or the per-sample losses")
    rows, (numbers,) = numbered("y", y)

    def checked(outputs: Any, targets: Tensor) -> Tensor:
        value = loss(outputs, targets if rows is None else rows(targets))
        if not isinstance(value, Tensor):
            raise ValueError(f"loss returned {type(value).__name__}; it must return a tensor: the mean, or the losses.")
        return value

    return checked, numbers


class View(nn.Module):
    """A network under another forward pass. It holds what the network holds, under the same names."""

    def __init__(self, model: nn.Module, rows: Rows | None = None, forward: Forward | None = None) -> None:
        super().__init__()
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers
        self.__dict__["seen"] = model  # not a child, whose names would begin with its own
        self.rows, self.calling = rows, forward

    @property
    def training(self) -> bool:
        return self.seen.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "seen" in self.__dict__:
            self.seen.training = mode

    def forward(self, x: Tensor) -> Any:
        given = x if self.rows is None else self.rows(x)
        if self.calling is not None:
            return self.calling(self.seen, given)
        if isinstance(given, Tensor):
            return self.seen(given)
        return self.seen(**given) if isinstance(given, Mapping) else self.seen(*given)


def origin(module: nn.Module) -> nn.Module:
    """The network that a view shows; any other module itself."""
    return module.seen if isinstance(module, View) else module


def check_tensor(outputs: Any) -> None:
    """ValueError for outputs of a network that are not a tensor."""
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model returned {type(outputs).__name__}, not a tensor; say which part is meant, for example "
            "forward=lambda model, x: model(x).logits."
        )


def _map(take: Callable[[Any], Any], value: Any) -> Any:
    """The function of each entry of a sequence or mapping; anything else as it is."""
    if isinstance(value, Mapping):
        return {key: take(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(take(entry) for entry in value)
    return value


def _leaves(name: str, value: Any) -> list[tuple[str, Tensor]]:
    """The tensors of nested sequences and mappings, and where they are."""
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [leaf for key, entry in value.items() for leaf in _leaves(f"{name}[{key!r}]", entry)]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [leaf for place, entry in enumerate(value) for leaf in _leaves(f"{name}[{place}]", entry)]
    return []


def _length(name: str, value: Any) -> int:
    lengths = {place: len(tensor) for place, tensor in _leaves(name, value) if tensor.dim()}
    if not lengths:
        raise ValueError(f"{name} is a {type(value).__name__} without tensors; pass tensors with one row per sample.")
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{place} {count}" for place, count in lengths.items())
        raise ValueError(f"{name}: {found} samples; all its tensors need the same number of rows.")
    return next(iter(lengths.values()))


def _joined(name: str, inputs: Sequence[Any]) -> Any:
    """The rows of several sets behind one another."""
    first = inputs[0]
    if isinstance(first, Tensor) and all(isinstance(value, Tensor) for value in inputs):
        if len({value.shape[1:] for value in inputs}) > 1:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            raise ValueError(f"{name}: sets of samples of shapes {shapes}; all samples need one shape.")
        return torch.cat(inputs) if first.dim() else first
    if isinstance(first, Mapping) and all(isinstance(v, Mapping) and v.keys() == first.keys() for v in inputs):
        return {key: _joined(f"{name}[{key!r}]", [value[key] for value in inputs]) for key in first}
    alike = all(type(value) is type(first) for value in inputs)
    if isinstance(first, Sequence) and alike and all(len(value) == len(first) for value in inputs):
        return tuple(_joined(f"{name}[{n}]", entries) for n, entries in enumerate(zip(*inputs, strict=True)))
    if alike and all(value == first for value in inputs):
        return first
    raise ValueError(f"{name}: the sets of samples differ in structure; pass the same kinds of inputs in all of them.")

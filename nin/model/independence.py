"""Is a network a function of each sample alone? Refuse, by the name of a module, one that draws or mixes samples."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nin.model.evaluating import evaluating
from nin.model.passing import tensors
from nin.support.randomness import kept_randomness

PASS = 256  # samples whose statistics a batch norm uses where a network is measured
CLOSE = {torch.float64: 1e-7, torch.float32: 1e-3}  # relative: batches of two sizes are rounded differently


def check_repeats(model: nn.Module, x: Any) -> None:
    """ValueError if two calls of a model in eval mode differ, naming the first module that draws. Two samples are used.

    x   the samples, or a tuple of several inputs. The model, its gradients and torch's random state stay as they are.
    """
    first = _first(x, [0, 1])
    if (name := _differs(model, first, first, row=slice(None))) is not None:
        raise ValueError(
            f"{_named(model, name)} draws random numbers in eval mode, so that two passes differ and no derivative "
            "of the network is defined. Switch its noise off, or fix its draws."
        )


def check_independent(model: nn.Module, x: Any) -> None:
    """As `check_repeats`, and ValueError if the output of a sample depends on the other samples of its batch."""
    check_repeats(model, x)
    if _count(x) < 2:
        return
    if (name := _differs(model, _first(x, [0, 1]), _first(x, [0, 0]), row=slice(0, 1))) is not None:
        raise ValueError(
            f"{_named(model, name)} mixes the samples of a batch in eval mode (as BatchNorm without running statistics "
            "does), so that the output of a sample is not a function of that sample. Give it running statistics."
        )


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norms use the statistics of the batch, as in training, and leave their running statistics alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracked) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracked


def even_parts(count: int) -> list[int]:
    """Sizes of the fewest passes of at most PASS samples, as equal as can be: a rest has no statistics of its own."""
    passes = -(-count // PASS)
    return [(place + 1) * count // passes - place * count // passes for place in range(passes)]


@contextmanager
def statistics_of(model: nn.Module, x: Any) -> Iterator[None]:
    """The running statistics of batch norms are those of the samples x inside the context, and as before afterwards.

    The statistics of an untrained network are not those of its data yet; with these it is, in eval mode, the function
    of a sample that training on x begins with. Norms that keep no running statistics are left alone.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        yield
        return
    names = ("running_mean", "running_var", "num_batches_tracked")
    before = [[getattr(norm, name).clone() for name in names] for norm in norms]
    settings = [(norm.training, norm.momentum) for norm in norms]
    try:
        with evaluating(model), torch.no_grad(), kept_randomness():
            counts: dict[nn.Module, int] = {}  # of values, for each channel
            hooks = [norm.register_forward_pre_hook(partial(_count_values, counts)) for norm in norms]
            for norm in norms:
                norm.training, norm.momentum = True, 1.0  # the statistics of this batch, without those before
            try:
                model(*x) if isinstance(x, tuple) else model(x)
            finally:
                for hook in hooks:
                    hook.remove()
            for norm, (training, momentum) in zip(norms, settings, strict=True):
                norm.training, norm.momentum = training, momentum
                if norm in counts:  # training divides by n, running statistics by n - 1
                    norm.running_var.mul_((counts[norm] - 1) / counts[norm])
        yield
    finally:
        for norm, values, (training, momentum) in zip(norms, before, settings, strict=True):
            norm.training, norm.momentum = training, momentum
            with torch.no_grad():
                for name, value in zip(names, values, strict=True):
                    getattr(norm, name).copy_(value)


def _count_values(counts: dict[nn.Module, int], norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    counts[norm] = inputs[0].numel() // inputs[0].shape[1]


def _differs(model: nn.Module, a: Any, b: Any, *, row: slice) -> str | None:
    """The name of the first module whose outputs differ between two passes ("" for the model itself), or None."""
    with evaluating(model), torch.no_grad(), kept_randomness():
        (one, entries), (other, others) = _outputs(model, a), _outputs(model, b)
    if not any(_apart(left, right, row) for left, right in zip(one[""], other[""], strict=True)):
        return None
    for name, values in one.items():
        if any(_apart(left, right, row) for left, right in zip(values, other.get(name, ()), strict=False)):
            entered = zip(entries.get(name, ()), others.get(name, ()), strict=False)
            return name.rpartition(".")[0] if any(_apart(left, right, row) for left, right in entered) else name
    return ""


def _outputs(model: nn.Module, x: Any) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """The tensors that leave and that enter every module, in the order in which they return; the model is ""."""
    seen: dict[str, list[Tensor]] = {}
    entered: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            if name not in seen:
                seen[name], entered[name] = list(tensors(output)), list(tensors(inputs))

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    try:
        output = model(*x) if isinstance(x, tuple) else model(x)
    finally:
        for hook in hooks:
            hook.remove()
    seen[""] = list(tensors(output if isinstance(output, (Tensor, Mapping, tuple, list)) else vars(output)))
    return seen, entered


def _apart(a: Tensor, b: Tensor, row: slice) -> bool:
    if not a.is_floating_point() or a.shape != b.shape or not a.dim():
        return False
    a, b = a[row].nan_to_num(), b[row].nan_to_num()
    size = max(a.abs().max().item(), b.abs().max().item()) if a.numel() else 0.0
    return (a - b).abs().max().item() > CLOSE.get(a.dtype, 1e-2) * size if a.numel() else False


def _first(x: Any, index: list[int]) -> Any:
    if isinstance(x, Tensor):
        return x[[i if i < len(x) else 0 for i in index]] if len(x) else x
    if isinstance(x, tuple):
        return tuple(_first(value, index) for value in x)
    return type(x)((key, _first(value, index)) for key, value in x.items()) if isinstance(x, Mapping) else x


def _count(x: Any) -> int:
    return min((len(t) for t in tensors(x) if t.dim()), default=0)


def _named(model: nn.Module, name: str) -> str:
    return f"model: its module {name!r} ({type(model.get_submodule(name)).__name__})" if name else "model"

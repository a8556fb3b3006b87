"""Call a probe, any function (model, x, y) -> table, on a network and check that it changed nothing."""

import copy
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from nin.model.nodes import NoisyNetwork
from nin.support.randomness import own_randomness

Probe = Callable[[nn.Module, Tensor, Tensor], pd.DataFrame]


OWN_COLUMNS = ("run", "step", "failure")  # that a sweep adds to the table of a probe


class ProbeError(ValueError):
    """Raised for a probe that changes its network or does not return a table."""


def ask(name: str, probe: Probe, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> pd.DataFrame:
    """Call a probe on a network and check that it changed nothing.

    The probe gets copies of the network (without its node, in eval mode) and of the probe set. It returns a DataFrame
    of numbers, text or truth values whose columns have unique names other than run, step and failure. The seed fixes
    what the probe draws from the global generators of torch, NumPy and Python, which are restored afterwards. Gradients
    are enabled during the call.
    Raises ProbeError for a probe that changed the network, naming the changes, or that returned anything else; errors
    of the probe itself pass through.
    """
    model = model.network if isinstance(model, NoisyNetwork) else model
    before = copy.deepcopy(model).eval()
    given = copy.deepcopy(before)
    own_x, own_y = x.clone(), y.clone()
    with own_randomness(seed), torch.enable_grad():
        table = probe(given, own_x, own_y)
    changed = _differences(before, given)
    changed += [n for n, a, b in (("x", x, own_x), ("y", y, own_y)) if not torch.equal(a, b)]
    if changed:
        raise ProbeError(f"probe {name!r} changed what it was given: {', '.join(changed)}. Let it work on a copy.")
    return _checked(name, table)


def _differences(before: nn.Module, after: nn.Module) -> list[str]:
    """The changes of a network: names of parameters, buffers and modules, modes, gradients, hooks."""
    found = []
    tensors = [dict([*m.named_parameters(), *m.named_buffers()]) for m in (before, after)]
    modules = [dict(m.named_modules()) for m in (before, after)]
    for kind, (old, new) in (("tensor", tensors), ("module", modules)):
        found += [f"{kind} {name!r} {'added' if name in new else 'gone'}" for name in sorted(set(old) ^ set(new))]
    for name, old in tensors[0].items():
        new = tensors[1].get(name)
        if new is None:
            continue
        if old.shape != new.shape or old.dtype != new.dtype or not torch.equal(old.nan_to_num(), new.nan_to_num()):
            found.append(name)
        if old.requires_grad != new.requires_grad:
            found.append(f"requires_grad of {name}")
        if new.grad is not None:
            found.append(f"gradient of {name}")
    for name, old in modules[0].items():
        new = modules[1].get(name)
        if new is None:
            continue
        where = f" of {name!r}" if name else ""
        if new.training:
            found.append(f"train mode{where}")
        if _hooks(old) != _hooks(new):
            found.append(f"hooks{where}")
    return found


def _hooks(module: nn.Module) -> list[int]:
    """The number of hooks of each kind that a module has."""
    return [len(value) for name, value in sorted(vars(module).items()) if name.endswith("_hooks")]


def _checked(name: str, table: Any) -> pd.DataFrame:
    """The table of a probe with a fresh index; ProbeError if it is not one that can be stored."""
    if not isinstance(table, pd.DataFrame):
        raise ProbeError(
            f"probe {name!r} returned {type(table).__name__}, not a pandas DataFrame; "
            "for one number: pd.DataFrame({'quantity': ['rank'], 'value': [3.0]})."
        )
    if not all(isinstance(column, str) for column in table.columns) or not table.columns.is_unique:
        raise ProbeError(f"probe {name!r} returned columns {list(table.columns)}; each needs a unique name.")
    if taken := [column for column in OWN_COLUMNS if column in table.columns]:
        raise ProbeError(f"probe {name!r} returned a column {taken[0]!r}, which the sweep adds; give it another name.")
    try:
        pa.Table.from_pandas(table, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ProbeError(f"probe {name!r} returned a table that cannot be stored: {what}.") from None
    return table.reset_index(drop=True)

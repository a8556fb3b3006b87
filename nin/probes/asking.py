"""Call a probe, any function (model, x, y) -> table, on a network and check that it changed nothing."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from nin.model.nodes import NoisyNetwork
from nin.support.arguments import check_function
from nin.support.randomness import own_randomness

Probe = Callable[[nn.Module, Tensor, Tensor], pd.DataFrame]


PLAIN = ("string", "integer", "floating", "mixed-integer-float", "boolean", "date", "datetime", "empty")  # of pandas
OWN_COLUMNS = ("run", "step", "failure")  # that a sweep adds to the table of a probe


class ProbeError(ValueError):
    """Raised for a probe that changes its network or does not return a table."""


def check_probes(probes: Mapping[str, Probe] | object) -> None:
    """ValueError unless these are functions by name, at least one."""
    if not isinstance(probes, Mapping) or not probes:
        raise ValueError(f"probes={probes!r} must map names to functions, as in {{'rank': rank}}.")
    for name, probe in probes.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"probes: the name {name!r} must be text.")
        check_function(f"probes[{name!r}]", probe, "(model, x, y) -> DataFrame")


def ask(name: str, probe: Probe, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> pd.DataFrame:
    """Call a probe on a network and check that it changed nothing.

    The probe gets copies of the network (without its node, in eval mode) and of the probe set. It returns a DataFrame
    of numbers, text or truth values whose columns have unique names other than run, step and failure. The seed fixes
    what the probe draws from the global generators of torch, NumPy and Python, which are restored afterwards; other
    threads that call nin wait until then, so a probe must not wait for such threads. Gradients are enabled during the
    call.
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
    for column in table.columns:
        _check_column(name, table[column])
    try:
        pa.Table.from_pandas(table, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ProbeError(f"probe {name!r} returned a table that cannot be stored: {what}.") from None
    return table.reset_index(drop=True)


def _check_column(name: str, column: pd.Series) -> None:
    """ProbeError for a column of Python objects, or of texts and numbers together, which no table keeps as they are."""
    inferred = pd.api.types.infer_dtype(column, skipna=True) if column.dtype == object else ""
    if column.dtype.kind == "c" or inferred not in ("", *PLAIN):
        kinds = sorted({type(value).__name__ for value in column})
        raise ProbeError(
            f"probe {name!r} returned a column {column.name!r} of {', '.join(kinds)}; it must hold numbers, texts, or "
            "truth values."
        )

"""Fingerprints of user-defined functions, so that their stored results are found again."""

import hashlib
import inspect
import pickle
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType
from typing import Any

from torch import nn


def dotted_name(function: Callable) -> str:
    """module.name of a function, of the function in a functools.partial, or of a callable object's class."""
    function = function.func if isinstance(function, partial) else function
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def sources(code: Iterable[Any]) -> bytes:
    """The concatenated source text of functions and classes, without those whose source Python cannot find."""
    found = b""
    for thing in code:
        try:
            found += inspect.getsource(thing).encode()
        except (OSError, TypeError):
            continue  # typed at a prompt
    return found


def fingerprint(name: str, function: Callable) -> dict[str, str]:
    """The dotted name of a function, and a sha256 of its source (else its bytecode) and of everything bound to it.

    Bound are the arguments of a functools.partial, defaults, variables of an enclosing function, and the state of a
    callable object. The functions that it calls are not covered: after a change in one of them, rename the function.
    Raises ValueError, with `name` as the name of the argument, if something bound cannot be pickled.
    """
    bound: list[Any] = []
    inner = function
    while isinstance(inner, partial):
        bound += [inner.args, sorted(inner.keywords.items())]
        inner = inner.func
    if inspect.isfunction(inner):
        text = sources([inner]) or inner.__code__.co_code + repr(_constants(inner.__code__)).encode()
        enclosed = [cell.cell_contents for cell in inner.__closure__ or ()]
        bound += [inner.__defaults__, sorted((inner.__kwdefaults__ or {}).items())]
        bound += [fingerprint(name, value) if inspect.isfunction(value) else value for value in enclosed]
    else:
        text = sources([type(inner)])
        bound.append(inner)
    try:
        state = pickle.dumps(bound)
    except Exception as error:
        raise ValueError(
            f"{name} is bound to something that cannot be pickled ({error}), so its results could not be found "
            "again; bind only numbers and tensors, by functools.partial or as the fields of a class with __call__."
        ) from None
    return {"name": dotted_name(function), "sha256": hashlib.sha256(text + state).hexdigest()}


def _constants(code: CodeType) -> list:
    """Names and constants of bytecode; a nested function as its own bytecode, since its repr holds an address."""
    inside = [[c.co_code, _constants(c)] if inspect.iscode(c) else c for c in code.co_consts]
    return [code.co_names, *inside]


def identity(factory: Callable[[], nn.Module], network: nn.Module) -> dict[str, str]:
    """The identity of a network factory: its dotted name, and a hash of its code and of a network it built.

    The hash covers the source of the factory and of the network's user-defined modules, if Python can find it, and the
    network's structure and initial weights.
    """
    digest = hashlib.sha256(repr(network).encode())
    own = {type(module) for module in network.modules() if not type(module).__module__.startswith("torch.")}
    function = getattr(factory, "func", factory)  # functools.partial
    digest.update(sources([function, *sorted(own, key=lambda cls: cls.__qualname__)]))
    for key, tensor in network.state_dict().items():
        digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return {"name": dotted_name(factory), "sha256": digest.hexdigest()}

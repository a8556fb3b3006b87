"""Checks of arguments at the public boundary: each error names the argument, the value and what is allowed."""

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Set
from typing import Any

SHOWN = 60  # characters of a value in an error; a longer one is named by its type
LARGEST_SEED = 2**64 - 1  # that torch takes


def described(name: str, value: Any) -> str:
    """What an error says of an argument: its value if that is short, else its type."""
    if value is None or isinstance(value, (str, bytes, numbers.Number, list, tuple, Mapping, Set)):
        text = repr(value)
    else:
        text = f"<{type(value).__name__}>" if isinstance(value, Iterable) else repr(value)
    if len(text) > SHOWN or "\n" in text or text.startswith("<"):
        return f"{name}=<{type(value).__name__}>"
    return f"{name}={text}"


def check_number(name: str, value: float, *, minimum: float = 0.0, exclusive: bool = False) -> None:
    """Raise ValueError unless value is a finite number >= minimum (> minimum if exclusive)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        finite = number and math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        finite = False
    if not finite or value < minimum or (exclusive and value == minimum):
        allowed = f"a finite number {'>' if exclusive else '>='} {minimum:g}"
        raise ValueError(f"{described(name, value)} must be {allowed}.")


def check_count(name: str, value: int, *, minimum: int = 1) -> None:
    """Raise ValueError unless value is an integer >= minimum."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{described(name, value)} must be an integer >= {minimum}.")


def check_seed(name: str, value: int) -> None:
    """Raise ValueError unless value is an integer that seeds a generator of torch."""
    check_count(name, value, minimum=0)
    if value > LARGEST_SEED:
        raise ValueError(f"{name}={value!r} must be an integer from 0 to 2^64 - 1.")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError, suggesting the nearest name, unless value is one of the choices."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}.{hint}")


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], allowed: str) -> None:
    """Raise ValueError unless value is of a type; `allowed` says in words what it must be."""
    if not isinstance(value, kind):
        raise ValueError(f"{described(name, value)} must be {allowed}.")


def check_function(name: str, value: Any, form: str) -> None:
    """Raise ValueError unless value can be called; `form` is how: (outputs, y) -> loss."""
    if not callable(value):
        raise ValueError(f"{described(name, value)} must be a function {form}.")


def check_names(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """Several texts as a tuple; ValueError for one text, anything else, or none."""
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    names = tuple(value) if several else ()
    if not names or not all(isinstance(one, str) and one for one in names):
        raise ValueError(f"{described(name, value)} must be a sequence of names, at least one.")
    return names


def check_steps(name: str, value: Iterable[int], *, last: int | None = None) -> tuple[int, ...]:
    """Steps in order, each once; ValueError for anything but integers from 0 to the last step."""
    try:
        steps = None if isinstance(value, (str, bytes, Mapping)) else tuple(value)
    except TypeError:
        steps = None
    if steps is None:
        raise ValueError(f"{described(name, value)} must be a sequence of steps, integers >= 0.")
    for step in steps:
        check_count(name, step, minimum=0)
    if last is not None and max(steps, default=0) > last:
        raise ValueError(f"{described(name, steps)} goes beyond the last step, steps={last}; leave {max(steps)} out.")
    return tuple(sorted({int(step) for step in steps}))

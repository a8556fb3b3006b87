"""Checks of arguments at the public boundary: each error names the argument, the value and what is allowed."""

import difflib
import math
import numbers
from collections.abc import Iterable


def check_number(name: str, value: float, *, minimum: float = 0.0, exclusive: bool = False) -> None:
    """Raise ValueError unless value is a finite number >= minimum (> minimum if exclusive)."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < minimum or (exclusive and value == minimum):
        raise ValueError(f"{name}={value!r} must be a finite number {'>' if exclusive else '>='} {minimum:g}.")


def check_count(name: str, value: int, *, minimum: int = 1) -> None:
    """Raise ValueError unless value is an integer >= minimum."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{name}={value!r} must be an integer >= {minimum}.")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError, suggesting the nearest name, unless value is one of the choices."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}.{hint}")

"""While tests run, the shapes and types of arguments and results are checked: in each test, a function's first calls.

Checked at every call, tests take three times as long.
"""

import functools
from collections import Counter
from collections.abc import Callable
from types import FunctionType

import jaxtyping

OFTEN = 5  # calls of a function that are checked in a test
calls: Counter[str] = Counter()  # by the function's name: kept closures would keep what they hold


def install() -> None:
    """Have all modules of nin and studies checked that are imported from now on."""
    jaxtyping.jaxtyped = _at_first(jaxtyping.jaxtyped)  # with which the hook decorates every function
    jaxtyping.install_import_hook(
        ["nin", "studies"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    )


def _at_first(jaxtyped: Callable) -> Callable:
    @functools.wraps(jaxtyped)
    def decorator(*args, **kwargs) -> Callable:
        return functools.partial(_limited, jaxtyped(*args, **kwargs))

    return decorator


def _limited(check: Callable, function: Callable) -> Callable:
    """A function that is checked in its first calls; classes are as jaxtyping returns them."""
    if not isinstance(function, FunctionType):
        return check(function)
    name = f"{function.__module__}.{function.__qualname__}"
    checked = None

    @functools.wraps(function)
    def limited(*args, **kwargs):
        nonlocal checked
        calls[name] += 1
        if calls[name] > OFTEN:
            return function(*args, **kwargs)
        checked = checked or check(function)
        return checked(*args, **kwargs)

    return limited

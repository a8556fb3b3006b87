"""The ranges of parameters, as written in brackets: bounds that are numbers, and bounds that are other parameters."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

WRITTEN = "[> 0], [>= 1], [0 < x < 1], [>= 1, <= 8] or [> other_parameter]"
COMPARE = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}
MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
ONE_SIDED = re.compile(rf"(<=?|>=?)\s*({NUMBER})")
TWO_SIDED = re.compile(rf"({NUMBER})\s*(<=?)\s*x\s*(<=?)\s*({NUMBER})")
OTHER = re.compile(r"(<=?|>=?)\s*([a-z_]\w*)")


def bounds(written: str) -> list[tuple[str, float]]:
    """Range -> comparisons with numbers that must hold: "0 < x <= 1" -> [(">", 0), ("<=", 1)]; ValueError for others.

    >>> bounds(">= 1, <= n_train")
    [('>=', 1.0)]
    """
    if not written:
        return []
    if two := TWO_SIDED.fullmatch(written.strip()):
        return [(MIRROR[two[2]], float(two[1])), (two[3], float(two[4]))]
    parts = [part.strip() for part in written.split(",")]
    if not all(ONE_SIDED.fullmatch(part) or OTHER.fullmatch(part) for part in parts):
        raise ValueError(written)
    return [(found[1], float(found[2])) for part in parts if (found := ONE_SIDED.fullmatch(part))]


def others(written: str) -> list[tuple[str, str]]:
    """Range -> comparisons with other parameters that must hold: "> sigma_min" -> [(">", "sigma_min")]."""
    parts = [OTHER.fullmatch(part.strip()) for part in written.split(",")]
    return [(part[1], part[2]) for part in parts if part]


def check_together(parameters: Iterable[Any], values: Mapping[str, Any]) -> None:
    """ValueError, naming both, for a value that does not lie in its range beside another; None, no value, fits all."""
    for parameter in parameters:
        for sign, other in others(parameter.range):
            if other not in values:
                raise ValueError(f"{parameter.name}: [{parameter.range}] names {other}, which is no parameter.")
            value, bound = values[parameter.name], values[other]
            if None not in (value, bound) and not COMPARE[sign](float(value), float(bound)):
                raise ValueError(f"{parameter.name}={value!r} must be {sign} {other}={bound!r}; change one of them.")

"""What a curve and a table must be to have a phase: numbers in the order of their steps."""

from collections.abc import Iterable, Iterator, Mapping, Set

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from nin.support.arguments import described


def numbers(name: str, values: ArrayLike | object) -> Float[np.ndarray, "..."]:
    """An array of real numbers as float64; ValueError for texts, truth values, complex numbers, and generators."""
    if values is None or isinstance(values, (str, bytes, Mapping, Set, Iterator)):
        raise ValueError(f"{described(name, values)} must be a sequence of numbers.")
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        raise ValueError(f"{name} must be numbers, one for each step; it holds sequences.") from None
    kinds = {type(value).__name__ for value in array.flat if value is not None and value is not pd.NA}
    if array.dtype.kind not in "iufO" or (array.dtype.kind == "O" and kinds & {"str", "bool", "complex"}):
        raise ValueError(
            f"{name} must be numbers, one for each step; it holds {', '.join(sorted(kinds)) or 'nothing'}."
        )
    try:
        return pd.array(array.ravel(), dtype="Float64").to_numpy(float, na_value=np.nan).reshape(array.shape)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, one for each step; it holds {', '.join(sorted(kinds))}.") from None


def check_steps(name: str, steps: Float[np.ndarray, " n"]) -> None:
    """ValueError unless steps are finite, >= 0, and increase."""
    if not np.isfinite(steps).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(steps)).sum())} values that are not finite.")
    if steps.min(initial=0.0) < 0:
        raise ValueError(f"{name}={steps.min():g} must be >= 0.")
    back = np.flatnonzero(np.diff(steps) <= 0)
    if len(back):
        here, then = steps[back[0]], steps[back[0] + 1]
        problem = f"{here:g} is there twice" if here == then else f"{here:g} is followed by {then:g}"
        raise ValueError(f"{name} must increase, each once, but {problem}; sort and merge the curve first.")


def check_table(name: str, table: pd.DataFrame | object, columns: Iterable[str]) -> None:
    """ValueError unless this is a table with these columns and at least one row."""
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"{described(name, table)} must be a pandas DataFrame.")
    columns = list(columns)
    if missing := [column for column in columns if column not in table.columns]:
        raise ValueError(f"{name} has no column {', '.join(missing)}; it needs {', '.join(columns)}.")
    if table.empty:
        raise ValueError(f"{name} is empty; it needs at least one row.")

"""A figure's table as csv: what is read back is what was saved, or saving it is refused."""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

TEXT, TEXT_OR_MISSING = "text", "text or missing"
REMEDY = "make it numbers, text, booleans or dates of one kind"


def written(data: pd.DataFrame) -> tuple[bytes, dict[str, str]]:
    """A table as csv, and the kind of each column that `read` would not find out by itself.

    Row numbers are not kept; categories become their values. Raises ValueError for an index of anything else, for
    columns that are not named by one text each, and for a column that csv cannot give back.
    """
    _check(data)
    data = data.reset_index(drop=True)
    content = data.to_csv(index=False).encode()
    plain, raw = _plain(content), _raw(content)
    kinds = {}
    for name in data.columns:
        if _same(data[name], plain[name]):
            continue
        for kind in (TEXT, TEXT_OR_MISSING, str(data[name].dtype)):
            if _same(data[name], _of_kind(raw[name], kind)):
                kinds[name] = kind
                break
        else:
            types = sorted({type(value).__name__ for value in data[name] if not _missing(value)})
            raise ValueError(
                f"data column {name!r} ({', '.join(types)}) does not survive csv; {REMEDY}"
                f"{', and either empty text or missing' if types == ['str'] else ''}."
            )
    return content, kinds


def read(content: bytes, kinds: Mapping[str, str] | None) -> pd.DataFrame:
    """The table of a csv; kinds: as `written` gave them, None for a table of before there were any.

    Raises ValueError for a content that is no such table.
    """
    if kinds is None:
        return pd.read_csv(io.BytesIO(content))
    table = _plain(content)
    raw = _raw(content) if kinds else table
    if unknown := set(kinds) - set(table.columns):
        raise ValueError(f"there is no column {', '.join(sorted(unknown))}.")
    for name, kind in kinds.items():
        column = _of_kind(raw[name], kind) if isinstance(kind, str) else None
        if column is None:
            raise ValueError(f"column {name!r} cannot be read as {kind!r}.")
        table[name] = column
    return table


def _check(data: pd.DataFrame) -> None:
    index = data.index
    if isinstance(index, pd.MultiIndex) or index.name is not None or not pd.api.types.is_integer_dtype(index.dtype):
        if not (len(data) == 0 and index.name is None):
            named = ", ".join(repr(name) for name in index.names if name is not None) or "without a name"
            raise ValueError(f"data has an index ({named}), which csv does not keep; call data.reset_index() first.")
    if isinstance(data.columns, pd.MultiIndex):
        raise ValueError("data has columns of several levels; name each by one text.")
    if not len(data.columns):
        raise ValueError("data has no columns; give it one at least.")
    for name in data.columns:
        if not isinstance(name, str) or not name.strip() or name.startswith("Unnamed:") or "\r" in name:
            raise ValueError(f"data has the column {name!r}; name each by a text.")
    if twice := sorted(set(data.columns[data.columns.duplicated()])):
        raise ValueError(f"data has the column {twice[0]!r} twice; give each a name of its own.")


def _plain(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), low_memory=False)


def _raw(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


def _of_kind(raw: pd.Series, kind: str) -> pd.Series | None:
    """A column of texts as another kind; None if it cannot be."""
    if kind == TEXT:
        return raw
    given = raw.astype(object).where(raw != "", None)
    if kind == TEXT_OR_MISSING:
        return given.astype(raw.dtype)
    try:
        return given.astype(kind)
    except (TypeError, ValueError, OverflowError):
        return None


def _same(one: pd.Series, other: pd.Series | None) -> bool:
    """Whether two columns have the same values; an integer equals its float, and a float32 what it is written as."""
    if other is None or len(one) != len(other):
        return False
    if isinstance(one.dtype, pd.CategoricalDtype):
        one = one.astype(one.cat.categories.dtype)
    if one.dtype == other.dtype and one.dtype.kind in "iu":
        return np.array_equal(one.to_numpy(), other.to_numpy())
    if isinstance(one.dtype, np.dtype) and one.dtype.kind == "f" and pd.api.types.is_numeric_dtype(other.dtype):
        back = other.to_numpy(dtype=one.dtype, na_value=np.nan)
        return not pd.api.types.is_bool_dtype(other.dtype) and np.array_equal(one.to_numpy(), back, equal_nan=True)
    return all(_same_value(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True))


def _same_value(one: Any, other: Any) -> bool:
    if _missing(one) or _missing(other):
        return _missing(one) and _missing(other)
    kinds = [(isinstance(value, bool | np.bool_), isinstance(value, str)) for value in (one, other)]
    if kinds[0] != kinds[1]:
        return False
    if isinstance(one, int | float | np.number) and isinstance(other, int | float | np.number):
        return bool(one == other)
    return type(one) is type(other) and bool(one == other)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))

"""Docstrings of nin are plain text, not reST: sentences flow, arguments are listed, columns stay, nothing is markup."""

import re
from collections.abc import Iterator
from itertools import groupby

PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")  # ASCII; reST and Markdown both accept a backslash before it
COLUMNS = re.compile(r"\s|.*\S {2,}\S|>>>")  # indented, or set in columns, or a doctest
ROW = re.compile(r"(\S.{,30}?) {2,}(\S.*)")  # of a list of arguments: a name, its meaning


def escape(text: str) -> str:
    """Text escaped so that reST and Markdown both show it unchanged."""
    return PUNCTUATION.sub(r"\\\1", text)


def prose(text: str) -> str:
    """A paragraph of reST: `code` between backticks becomes literal, everything else is escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    code = [f"\\ ``{part}``\\ " if part.strip() == part != "" else escape(f"`{part}`") for part in parts[1::2]]
    return "".join(escape(part) + after for part, after in zip(parts[::2], [*code, ""], strict=True))


def blocks(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """Runs of lines, each with whether it is set in columns; a doctest extends to the next blank line."""
    doctest = False
    kinds = []
    for line in lines:
        doctest = bool(line.strip()) and (doctest or line.lstrip().startswith(">>>"))
        kinds.append("" if not line.strip() else "columns" if doctest or COLUMNS.match(line) else "prose")
    for kind, run in groupby(zip(kinds, lines, strict=True), key=lambda pair: pair[0]):
        if kind:
            yield kind == "columns", [line for _, line in run]


def listed(run: list[str]) -> list[str]:
    """Rows of names and meanings, indented lines going on with the row above, as a list; [] for anything else."""
    result = []
    for line in run:
        row = ROW.fullmatch(line)
        if row:
            result += [prose(f"`{row[1]}`"), f"   {prose(row[2])}"]
        elif result and line.startswith(" "):
            result.append(f"   {prose(line.strip())}")
        else:
            return []
    return [*result, ""]


def as_rest(lines: list[str]) -> list[str]:
    """A dedented docstring as reST that shows it as written."""
    result = []
    for columns, run in blocks(lines):
        if columns and listed(run):
            result += listed(run)
        elif columns:
            language = "pycon" if run[0].lstrip().startswith(">>>") else "text"
            result += [f".. code-block:: {language}", "", *(f"   {line}" for line in run), ""]
        else:
            result += [prose(" ".join(line.strip() for line in run)), ""]
    return result


def process(app, what, name, obj, options, lines):
    """Replace a docstring's lines with reST, in the form of autodoc's event."""
    lines[:] = as_rest(lines)


def skip(app, what, name, obj, skipped, options):
    """Leave out the fields of named tuples, whose docstrings only give their number."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def shorten(app, what, name, obj, options, signature, returns):
    """Call numpy's unions by their names, as the source does."""
    from numpy.typing import ArrayLike, NDArray
    from sphinx.util.typing import stringify_annotation

    for alias, short in ((ArrayLike, "ArrayLike"), (NDArray, "NDArray")):
        long = stringify_annotation(alias, "smart")
        signature, returns = (text and text.replace(long, short) for text in (signature, returns))
    return signature, returns

"""The typed parameters of a notebook, read from its cell tagged `parameters`; values are parsed and range-checked.

A parameter is an annotated literal, followed by a comment with its meaning and unit, and its range in brackets:

    lr: float = 0.05  # learning rate eta, per step [> 0]
    widths: list[int] = [128, 128]  # units of each hidden layer [>= 1, <= 4096]
    law: Literal["gaussian", "uniform"] = "gaussian"  # law of the noise

Types: int, float, bool, str, Literal[...], tuple[X, ...], list[X], and X | None.
"""

import ast
import difflib
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nin.companion.ranges import COMPARE, NUMBER, WRITTEN, bounds, check_together

TAG = "parameters"
SCALARS = ("int", "float", "bool", "str")
TYPES = 'int, float, bool, str, Literal["a", "b"], tuple[X, ...], list[X] or X | None'
TRUTH = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook.

    type     annotation as written
    default  value in the notebook
    help     meaning and unit
    range    bounds as written, without the brackets, or ""; those of a tuple or list hold for each element
    """

    name: str
    type: str
    default: Any
    help: str = ""
    range: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook as stored in the file; kind is "code", "markdown" or "raw"."""

    kind: str
    source: str
    tags: tuple[str, ...]


def cells(notebook: Path) -> list[Cell]:
    """The cells of a notebook of format 4; ValueError if the file is not one.

    Read as JSON, since importing nbformat takes seconds.
    """
    try:
        content = json.loads(Path(notebook).read_text(encoding="utf-8"))
        return [
            Cell(cell["cell_type"], "".join(cell["source"]), tuple(cell["metadata"].get("tags", ())))
            for cell in content["cells"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{notebook} is not a notebook of format 4 ({error!r}); save it from JupyterLab.") from None


def parameters(notebook: Path) -> list[Parameter]:
    """The parameters of a notebook, in the order of its cell tagged `parameters`.

    Raises ValueError, naming notebook and line, unless there is exactly one such cell and every statement in it is an
    annotated literal with a valid default.
    """
    notebook = Path(notebook)
    tagged = [cell.source for cell in cells(notebook) if cell.kind == "code" and TAG in cell.tags]
    if len(tagged) != 1:
        raise ValueError(
            f"{notebook.name} has {len(tagged)} code cells tagged {TAG!r}, expected one; tag the cell that sets them."
        )
    return read_cell(tagged[0], name=notebook.name)


def read_cell(source: str, *, name: str = "notebook") -> list[Parameter]:
    """The parameters set in the source of a cell; `name` is the notebook's name in errors (ValueError).

    >>> read_cell("lr: float = 0.05  # learning rate eta, per step [> 0]")
    [Parameter(name='lr', type='float', default=0.05, help='learning rate eta, per step', range='> 0')]
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{name}, parameters cell, line {error.lineno}: {error.msg}; write plain Python.") from None
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    for statement in statements:
        where = f"{name}, parameters cell, line {statement.lineno}"
        try:
            parameter = _read(statement, source, comments.get(statement.end_lineno, ""))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if parameter.name in found:
            raise ValueError(f"{where}: {parameter.name} is set twice; remove one.")
        found[parameter.name] = parameter
    try:
        complete(found.values(), {})
    except ValueError as error:
        raise ValueError(f"{name}, parameters cell: {error}") from None
    return list(found.values())


def parse(parameter: Parameter, value: Any) -> Any:
    """Convert a text, or a value read from YAML, to the parameter's type: 1e-3, true, no, none, [1, 2] or 1,2.

    Raises ValueError, naming the parameter, the value and what is allowed, for a value that is of the wrong type, not
    finite, out of range, or not among the choices.

    >>> parse(Parameter("steps", "int", 10, range=">= 1"), "1e3")
    1000
    """
    tree = ast.parse(parameter.type, mode="eval").body
    try:
        return _convert(tree, value, bounds(parameter.range))
    except _Mismatch as error:
        raise ValueError(f"{parameter.name}={value!r}: {error}.") from None


def parse_all(known: Iterable[Parameter], values: Mapping[str, Any], *, name: str = "notebook") -> dict[str, Any]:
    """Parse values by name; ValueError for an unknown name, with the known names and the nearest one."""
    by_name = {parameter.name: parameter for parameter in known}
    for key in values:
        if key not in by_name:
            raise ValueError(f"{name} has no parameter {key!r}; it has {_listed(by_name, key)}.")
    return {key: parse(by_name[key], value) for key, value in values.items()}


def complete(known: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """All values, the defaults where none is given; ValueError for one out of range beside another."""
    values = {parameter.name: parameter.default for parameter in known} | dict(given)
    check_together(known, values)
    return values


class _Mismatch(Exception):
    """A value does not fit its parameter; the message says what is allowed."""


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT}


def _read(statement: ast.stmt, source: str, comment: str) -> Parameter:
    written = ast.get_source_segment(source, statement).splitlines()[0]
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
        advice = "write it with its type, as in `lr: float = 0.05`" if isinstance(statement, ast.Assign) else "move it"
        raise ValueError(f"`{written}` is not an annotated literal; {advice}, or derive values in a later cell.")
    name, annotation = statement.target.id, ast.get_source_segment(source, statement.annotation)
    _check_type(statement.annotation, annotation)
    if statement.value is None:
        raise ValueError(f"`{written}` has no default; give it one.")
    try:
        default = ast.literal_eval(statement.value)
    except ValueError:
        raise ValueError(
            f"{name} = {ast.unparse(statement.value)} is derived, not a literal, and would be outdated once another "
            "parameter is set; write a literal, or derive it in a later cell."
        ) from None
    text, written_range = _split(comment)
    numeric = {node.id for node in ast.walk(statement.annotation) if isinstance(node, ast.Name)} & {"int", "float"}
    if written_range and not numeric:
        raise ValueError(f"{name}: {annotation} takes no range; remove [{written_range}].")
    parameter = Parameter(name, annotation, default, text, written_range)
    if (parsed := parse(parameter, default)) != default:
        raise ValueError(f"{name}={default!r} is not of type {annotation}; write it as that type's literal.")
    return Parameter(name, annotation, parsed, text, written_range)


def _check_type(node: ast.expr, written: str) -> None:
    optional = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and _is_none(node.right)
    node = node.left if optional else node
    match node:
        case ast.Name(id=name) if name in SCALARS:
            return
        case ast.Subscript(value=ast.Name(id="Literal")) if all(isinstance(c, ast.Constant) for c in _choices(node)):
            return
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[element, ast.Constant(value=e)])) if (
            e is ...
        ):
            return _check_type(element, written)
        case ast.Subscript(value=ast.Name(id="list"), slice=element) if not isinstance(element, ast.Tuple):
            return _check_type(element, written)
    raise ValueError(f"type {written} is not supported; use {TYPES}.")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _choices(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _split(comment: str) -> tuple[str, str]:
    """Comment -> help, range; ValueError if it ends with brackets that are not a range."""
    match = re.fullmatch(r"(.*?)\s*\[([^\[\]]*)\]", comment)
    if not match:
        return comment, ""
    try:
        bounds(match[2])
    except ValueError:
        raise ValueError(f"[{match[2]}] is not a range; write {WRITTEN}, and units in parentheses.") from None
    return match[1], match[2].strip()


def _convert(node: ast.expr, value: Any, bounds: list[tuple[str, float]]) -> Any:
    match node:
        case ast.BinOp(left=left):
            if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null")):
                return None
            return _convert(left, value, bounds)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return _choose([choice.value for choice in _choices(node)], value)
        case ast.Subscript(value=ast.Name(id=container), slice=inner):
            element = inner.elts[0] if container == "tuple" else inner
            return {"tuple": tuple, "list": list}[container](_convert(element, v, bounds) for v in _elements(value))
        case ast.Name(id="bool"):
            return _truth(value)
        case ast.Name(id="str"):
            if not isinstance(value, str):
                raise _Mismatch("expected a text")
            return value
        case ast.Name(id=kind):
            return _number(kind, value, bounds)


def _choose(choices: list[Any], value: Any) -> Any:
    for choice in choices:
        if (type(value) is type(choice) and value == choice) or (isinstance(value, str) and value == str(choice)):
            return choice
    raise _Mismatch(f"choose one of {_listed(choices, value)}")


def _listed(choices: Iterable[Any], wanted: Any) -> str:
    """The choices as text, and which of them is nearest to a wanted one that may be misspelt."""
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(wanted), names, n=1)
    return (", ".join(names) or "none") + (f"; the nearest is {near[0]}" if near else "")


def _elements(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, str) or not value.strip():
        raise _Mismatch("expected a list, as in [1, 2] or 1,2")
    text = value.strip()
    if text[0] + text[-1] in ("[]", "()"):
        text = text[1:-1].strip()
    parts = [part.strip() for part in text.split(",")] if text else []
    if parts and not parts[-1]:
        parts.pop()
    return [part[1:-1] if re.fullmatch(r"'.*'|\".*\"", part) else part for part in parts]


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in TRUTH:
        return TRUTH[value.strip().lower()]
    raise _Mismatch(f"expected one of {', '.join(TRUTH)}")


def _number(kind: str, value: Any, bounds: list[tuple[str, float]]) -> int | float:
    limits = ",".join(f" {sign} {bound:.15g}" for sign, bound in bounds)
    mismatch = _Mismatch(f"expected {'an integer' if kind == 'int' else 'a finite number'}{limits}")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise mismatch
    if isinstance(value, str) and not re.fullmatch(NUMBER, value.strip()):  # nor 1_000, which Python takes
        raise mismatch
    try:
        number = float(value)
    except OverflowError:
        raise mismatch from None
    if not math.isfinite(number) or not all(COMPARE[sign](number, bound) for sign, bound in bounds):
        raise mismatch
    if kind == "float":
        return number
    if not number.is_integer():
        raise mismatch
    try:
        return int(value)  # exact beyond 2^53, unlike the float
    except ValueError:
        return int(number)

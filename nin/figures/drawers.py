"""Which functions may draw a saved figure: no file names one that was not known before it was read."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable

from matplotlib.figure import Figure

from nin.support import paths

Draw = Callable[..., Figure]
OURS = re.compile(  # modules that only draw
    r"nin\.figures\.own_logs|studies\.[a-z]\w*\.([a-z]\w*_)?figures|studies\.phase_borders\.collapse"
)

_saved: dict[str, Draw] = {}  # what this process has saved figures with, or was given, by dotted name


class UnknownDraw(ValueError):
    """A sidecar names a function that is neither ours nor one that this process was given."""


def allow(draw: Draw) -> str:
    """Let files of this process name this module-level function; its dotted name.

    Raises ValueError for one that cannot be found by its name.
    """
    if not inspect.isfunction(draw):
        raise ValueError(f"draw={draw!r} must be a function (data, **arguments) -> Figure, defined in a module.")
    name = f"{draw.__module__}.{draw.__qualname__}"
    if draw.__module__ == "__main__" or "<" in draw.__qualname__:
        raise ValueError(f"draw={name} cannot be imported by name; move it into a module that can be imported.")
    _saved[name] = draw
    return name


def named(name: str) -> Draw:
    """The function of this name, if it may draw: a figure of a study or of `nin.figures`, or one that was allowed.

    Nothing else is imported. Raises UnknownDraw for all others; ImportError or AttributeError for one of ours that does
    not exist (any more).
    """
    if name in _saved:
        return _saved[name]
    module, _, function = name.rpartition(".")
    if not OURS.fullmatch(module) or not _from_the_clone(module):
        raise UnknownDraw(
            f"draw={name!r} is no function of studies or nin.figures, and a file may name no other: pass the function, "
            "as in nin.figures.redraw(name, draw=function)."
        )
    found = getattr(importlib.import_module(module), function)
    if not inspect.isfunction(found) or found.__module__ != module or function.startswith("_"):
        raise UnknownDraw(f"draw={name!r} is not a public function that is defined in {module}.")
    return found


def _from_the_clone(module: str) -> bool:
    """Whether `studies` is that of the clone, not a folder of this name elsewhere on the path."""
    if module.startswith("nin."):
        return True
    spec = importlib.util.find_spec("studies")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    return places == [str(paths.root() / "studies")]

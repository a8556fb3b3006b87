"""Pages of the Python API: by task, by module, and one for each public module."""

import ast
import importlib
import inspect
import re
from types import ModuleType

from docstrings import escape

MODULES = (
    "nin",
    "nin.theory",
    "nin.theory.pooling",
    "nin.theory.response",
    "nin.phases",
    "nin.model.data",
    "nin.model.networks",
    "nin.sweeps.store",
    "nin.figures",
    "nin.checks",
    "nin.probes.asking",
    "nin.probes.for_sweeps",
    "nin.probes.curvature",
    "nin.probes.response",
    "nin.probes.interactions",
    "nin.probes.stability",
)


# What a reader wants to do, and the names that do it: a module, or one of its public names.
TASKS = {
    "Put noise into a network of yours and train it": ("nin.inject", "nin.NoisyNetwork", "nin.Record", "nin.Dataset"),
    "Know the phase before training": ("nin.predict", "nin.noise_scale", "nin.probes.curvature.critical_rate"),
    "Train and sweep, and find the runs again": ("nin.RunConfig", "nin.train", "nin.sweep", "nin.sweeps.store"),
    "Tell phases and decay times": (
        "nin.phases.classify", "nin.phases.summarise", "nin.phases.fit_decay", "nin.phases.boundaries",
    ),
    "Read the curvature of the loss": (
        "nin.probes.curvature.Thermometer", "nin.probes.curvature.top_mode", "nin.probes.curvature.local_hessian",
        "nin.probes.curvature.sharpness", "nin.probes.curvature.extremes",
    ),
    "See what one more training step does": (
        "nin.probes.response.response", "nin.probes.response.kernel", "nin.probes.response.ResponseLaw",
    ),
    "See which inputs work together, layer by layer": (
        "nin.probes.interactions.masked_outputs", "nin.probes.interactions.split",
        "nin.probes.interactions.layerwise", "nin.probes.interactions.residual_ledger",
    ),
    "Measure stability to deformations and noise": (
        "nin.probes.stability.sensitivities", "nin.probes.stability.compare", "nin.probes.stability.deform",
    ),
    "Ask several probes of every run, or one of your own": ("nin.probes.for_sweeps.four_probes", "nin.probes.asking"),
    "Compare with theory": ("nin.theory", "nin.theory.pooling", "nin.theory.response"),
    "State a claim and check it": ("nin.checks.Check", "nin.checks.save"),
    "Draw and keep figures": (
        "nin.figures.save", "nin.figures.redraw", "nin.figures.trajectories", "nin.figures.phases",
    ),
    "Get data and the papers' networks": ("nin.load_data", "nin.model.data", "nin.model.networks"),
}  # fmt: skip


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; its cells are already Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def public(module: ModuleType) -> list[str]:
    """The public names of a module: `__all__`, else the functions and classes it defines, in order."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if callable(getattr(module, name))]
    own = inspect.getmembers(module, lambda thing: getattr(thing, "__module__", None) == module.__name__)
    names = [name for name, thing in own if not name.startswith("_") and (inspect.isclass(thing) or callable(thing))]
    return sorted(names, key=lambda name: inspect.getsourcelines(getattr(module, name))[1])


def constants(module: ModuleType) -> list[str]:
    """The source of a module's one-line constants, comments included."""
    if getattr(module, "__path__", None):  # a package: those it imports from its files
        named = [name for name in getattr(module, "__all__", ()) if name.isupper()]
        return [f"{name} = {getattr(module, name)!r}" for name in named]
    source = inspect.getsource(module)
    lines = source.splitlines()
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    short = [lines[node.lineno - 1] for node in assigned if node.lineno == node.end_lineno]
    return [line for line in short if re.match(r"[A-Z][A-Z_, ]+\b", line)]


def page(name: str) -> str:
    """The page of a public module, for autodoc to fill in."""
    module = importlib.import_module(name)
    parts = [f"{name}\n{'=' * len(name)}", f".. automodule:: {name}"]
    if constants(module):
        parts.append(
            ".. code-block:: python\n   :class: constants\n\n" + "\n".join(f"   {line}" for line in constants(module))
        )
    for member in public(module):
        home = getattr(module, member).__module__
        if home != name and home in MODULES:
            parts.append(f"``{name}.{member}`` is :py:obj:`{home}.{member}`.")
        elif inspect.isclass(getattr(module, member)):
            parts.append(f".. autoclass:: {name}.{member}\n   :members:")
        else:
            parts.append(f".. autofunction:: {name}.{member}")
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """The names by what a reader wants to do, and the list of public modules."""
    tasks = [[escape(task), ", ".join(map(reference_to, names))] for task, names in TASKS.items()]
    lines = [f"- [{name}]({name}.rst): {escape(first_line(importlib.import_module(name)))}" for name in MODULES]
    toctree = ["```{toctree}", ":hidden:", "", *MODULES, "```"]
    parts = ["# Python API", "## By task", table(["to", "use"], tasks), "## By module", "\n".join(lines)]
    return "\n\n".join([*parts, "\n".join(toctree)]) + "\n"


def reference_to(name: str) -> str:
    """A link to a module, or to a public name where the page of its module documents it."""
    if name in MODULES:
        return f"[{name}]({name}.rst)"
    module, _, member = name.rpartition(".")
    home = getattr(importlib.import_module(module), member).__module__
    documented = f"{home if home in MODULES else module}.{member}"
    return f"{{py:obj}}`{name} <{documented}>`"


def first_line(module: ModuleType) -> str:
    """The first paragraph of a module's docstring, on one line."""
    return " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())

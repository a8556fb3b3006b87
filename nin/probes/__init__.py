"""Ways to look at a network without changing it: curvature, response, interactions, stability."""

from importlib import import_module
from types import ModuleType

__all__ = ["curvature", "interactions", "response", "stability"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"nin.probes.{name}")
    raise AttributeError(f"module 'nin.probes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Read the learning dynamics of deep networks by perturbing them: noise injection nodes (arXiv 2210.13599)."""

from importlib import import_module

# Each name is loaded on first access (PEP 562), so that `import nin` takes no time.
_HOME = {
    "Dataset": "model.data",
    "NoisyNetwork": "model.nodes",
    "Record": "training.record",
    "RunConfig": "training.config",
    "Trajectories": "training.trajectories",
    "inject": "model.injection",
    "load_data": "model.data",
    "noise_scale": "probes.prediction",
    "predict": "probes.prediction",
    "sweep": "sweeps.grid",
    "train": "training.loop",
}
_MODULES = ("checks", "figures", "phases", "probes", "theory")

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"nin.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"nin.{name}")
    raise AttributeError(f"module 'nin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Read the learning dynamics of deep networks by perturbing them: noise injection nodes (arXiv 2210.13599)."""

from nin import checks, figures, phases, theory
from nin.config import RunConfig
from nin.data import Dataset, load_data
from nin.grid import sweep
from nin.nodes import NoisyNetwork, inject
from nin.training import train
from nin.trajectories import Trajectories

__all__ = [
    "Dataset",
    "NoisyNetwork",
    "RunConfig",
    "Trajectories",
    "checks",
    "figures",
    "inject",
    "load_data",
    "phases",
    "sweep",
    "theory",
    "train",
]

"""The stability of a network to smooth deformations, relative to noise (arXiv 2105.02468, 2210.01506)."""

from nin.probes.stability.deformations import (
    TemperatureRange,
    deform,
    displacement_field,
    displacement_rms,
    fold_fraction,
    gradient_variance,
    temperature,
    temperature_range,
)
from nin.probes.stability.filters import filter_spectrum, shuffle_channels
from nin.probes.stability.images import matched_noise, sensitivities
from nin.probes.stability.two_changes import compare

__all__ = [
    "TemperatureRange",
    "compare",
    "deform",
    "displacement_field",
    "displacement_rms",
    "filter_spectrum",
    "fold_fraction",
    "gradient_variance",
    "matched_noise",
    "sensitivities",
    "shuffle_channels",
    "temperature",
    "temperature_range",
]

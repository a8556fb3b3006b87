"""The curvature of the loss in a layer's pre-activations, exactly and from noise nodes (arXiv 2210.13599)."""

from nin.probes.curvature.averaged import noise_averaged
from nin.probes.curvature.critical import CriticalRate, critical_rate, critical_rates
from nin.probes.curvature.decay import DecayReading, from_decay
from nin.probes.curvature.hessian import extremes, local_hessian, sharpness, top_mode
from nin.probes.curvature.lanczos import Mode
from nin.probes.curvature.thermometer import Reading, Thermometer

__all__ = [
    "CriticalRate",
    "DecayReading",
    "Mode",
    "Reading",
    "Thermometer",
    "critical_rate",
    "critical_rates",
    "extremes",
    "from_decay",
    "local_hessian",
    "noise_averaged",
    "sharpness",
    "top_mode",
]

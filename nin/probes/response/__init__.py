"""The training response: how one more step on one sample changes the outputs of a network (arXiv 2405.04074)."""

from nin.probes.response.along_a_run import ResponseLaw
from nin.probes.response.one_step import Response, Stepper, response
from nin.probes.response.tangent_kernel import KernelEstimate, kernel, kernel_by_layer, kernel_sketch, kernel_trace

__all__ = [
    "KernelEstimate",
    "Response",
    "ResponseLaw",
    "Stepper",
    "kernel",
    "kernel_by_layer",
    "kernel_sketch",
    "kernel_trace",
    "response",
]

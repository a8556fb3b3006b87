"""Solvable training response: infinite width, and a constant kernel, which still ages (arXiv 2405.04074).

Functions of numbers; mse is (f - y)^2 / 2, sigmoid_mse (p - y)^2 / 2, ce the logistic loss.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nin.support.arguments import check_choice, check_count, check_number
from nin.theory.nodes import Values

LOSSES = ("mse", "ce", "sigmoid_mse")
EXPONENTS = {  # in large t = eta K x steps: logit response, response of p, error 1 - p (derived)
    "ce": {"logit": -1.0, "p": -2.0, "error": -1.0},
    "sigmoid_mse": {"logit": -1.0, "p": -1.5, "error": -0.5},
}


class Aging(NamedTuple):
    """One datum under a constant kernel, arrays (steps): margin m, |response| of the logit and of p, error 1 - p."""

    step: Int[np.ndarray, " steps"]
    m: Float[np.ndarray, " steps"]
    logit: Float[np.ndarray, " steps"]
    p: Float[np.ndarray, " steps"]
    error: Float[np.ndarray, " steps"]


def relu_kernel(angle: ArrayLike) -> Values:
    """Theta(a) = [sin a + 2 (pi - a) cos a] / 2 pi: infinitely wide ReLU net, |x|^2 / d = 1, no biases (derived).

    angle: in radians, 0 to pi; ValueError outside this range.

    >>> relu_kernel([0, np.pi / 2, np.pi]).round(4).tolist()
    [1.0, 0.1592, 0.0]
    """
    a = np.asarray(angle, dtype=float)
    if not ((a >= 0) & (a <= np.pi)).all():
        raise ValueError(f"angle={angle!r} must lie between 0 and pi.")
    return (np.sin(a) + 2 * (np.pi - a) * np.cos(a)) / (2 * np.pi)


def constant_kernel(loss: str, *, K: float, eta: float, steps: int, m: float = 0.0) -> Aging:
    """m' = m - eta K l'(m) with the label +1 (for mse: the target 1), step by step, and the response at each step.

    The linear response of the logit is -eta K l'(m); that of p = sigmoid(m) is the change of p in the step.
    Raises ValueError for an unknown loss, K or eta that is not positive, or steps below 1.
    """
    check_choice("loss", loss, LOSSES)
    check_number("K", K, exclusive=True)
    check_number("eta", eta, exclusive=True)
    check_count("steps", steps)
    path = np.empty(steps + 1)
    for step in range(steps + 1):
        path[step] = m
        p = _sigmoid(m)
        slope = {"mse": m - 1, "ce": p - 1, "sigmoid_mse": (p - 1) * p * (1 - p)}[loss]
        m -= eta * K * slope
    p = 1 / (1 + np.exp(-path))
    return Aging(np.arange(steps), path[:-1], np.abs(np.diff(path)), np.abs(np.diff(p)), 1 / (1 + np.exp(path[:-1])))


def summed_response_gain(momentum: float) -> float:
    """1 / (1 - beta): the response to one gradient, summed over all steps over which momentum spreads it (derived)."""
    check_number("momentum", momentum)
    if momentum >= 1:
        raise ValueError(f"momentum={momentum!r} must be below 1.")
    return 1 / (1 - momentum)


def _sigmoid(m: float) -> float:
    return 1 / (1 + math.exp(-m)) if m > -700 else 0.0

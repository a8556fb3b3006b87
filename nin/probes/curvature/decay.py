"""Curvature from the decay of plain noise injection weights, using only their own history."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nin.support.arguments import check_kind, check_number
from nin.support.precision import matching, widened


@dataclass(frozen=True)
class DecayReading:
    """The curvature along a direction in which the noise injection weights decay.

    lam        least-squares decay rate divided by eta sigma^2, in the units of <H>
    stderr     its standard error from the scatter about the decay
    direction  unit vector (d,) whose largest entry is positive
    """

    lam: float
    stderr: float
    direction: Float[Tensor, " d"]


def from_decay(
    niw: Float[Tensor, "steps ..."], *, eta: float, sigma: float, direction: Float[Tensor, " d"] | None = None
) -> DecayReading:
    """The top eigenvalue of <H> from the history of W_NI alone: W(t+1) - W(t) = -eta sigma^2 W(t) <H> + noise.

    The decrements G_t = (W(t) - W(t+1)) / (eta sigma^2) = W(t) <H> + noise weight each mode by its curvature. With u
    the first right singular vector of their sum, the direction of strongest decay,

        lam = sum (W u)(G u) / sum (W u)^2

    is the decay rate along u. If <H> has rank one (linear nets), lam is its eigenvalue. Otherwise lam averages over
    modes, weighted by their share in W_NI, and underestimates the largest eigenvalue, less so with more nodes: 0.4 to
    1.0 times it on the digits with 8 nodes. Along a known mode, direction=v, lam is the eigenvalue of that mode.

    niw    W_NI before each of several steps of plain SGD, (steps, d) or (steps, nodes, d): a window in which <H> barely
           changes, the weights still decay, and sigma |W_NI| is small compared with the pre-activations
    eta    learning rate;  sigma  standard deviation of the noise
    direction    (d,), of any length; None: the direction of strongest decay
    Source: arXiv 2210.13599, equation (8) of the reference.
    Raises ValueError for fewer than 3 steps, weights that never move or are not finite, eta or sigma not positive.
    """
    check_number("eta", eta, exclusive=True)
    check_number("sigma", sigma, exclusive=True)
    check_kind("niw", niw, Tensor, "a tensor (steps, nodes, d) or (steps, d)")
    history = widened(niw.detach())
    history = history[:, None] if history.dim() == 2 else history
    if history.dim() != 3 or len(history) < 3:
        raise ValueError(
            f"niw of shape {tuple(niw.shape)} must be (steps, nodes, d) or (steps, d) with 3 steps or more."
        )
    if not history.isfinite().all():
        raise ValueError("niw contains numbers that are not finite; end the history before the run diverged.")
    falls = (history[:-1] - history[1:]) / (eta * sigma**2)  # (steps - 1, nodes, d)
    if not falls.any():
        raise ValueError("niw never moves; there is no decay to read.")
    if direction is not None and direction.shape != history.shape[2:]:
        raise ValueError(f"direction of shape {tuple(direction.shape)} must be ({history.shape[2]},), as niw is.")
    total = falls.sum(0)  # (nodes, d)
    u = torch.linalg.svd(total, full_matrices=False).Vh[0] if direction is None else widened(direction.detach())
    u = u / u.norm() * torch.sign(u[u.abs().argmax()])
    held, fall = (history[:-1] @ u).flatten(), (falls @ u).flatten()  # (steps - 1) nodes each
    square = held @ held
    lam = held @ fall / square
    scatter = (fall - lam * held).square().sum() / (len(fall) - 1)
    return DecayReading(float(lam), float((scatter / square).sqrt()), matching(u, niw))

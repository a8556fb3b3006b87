"""Curvature from the decay of plain noise injection weights: nothing but their own history."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nin.support.arguments import check_number


@dataclass(frozen=True)
class DecayReading:
    """The curvature along a direction in which the NIW fall.

    lam        least-squares rate over eta sigma^2, in the units of <H>
    stderr     its standard error from the scatter about the decay
    direction  the unit vector (d,), sign fixed by a positive largest entry
    """

    lam: float
    stderr: float
    direction: Float[Tensor, " d"]


def from_decay(
    niw: Float[Tensor, "steps nodes d"], *, eta: float, sigma: float, direction: Float[Tensor, " d"] | None = None
) -> DecayReading:
    """The top of <H> from the history of W_NI alone: W(t+1) - W(t) = -eta sigma^2 W(t) <H> + noise.

    The falls G_t = (W(t) - W(t+1)) / (eta sigma^2) = W(t) <H> + noise weigh each mode by its curvature. With u the
    first right singular vector of their sum, the direction of the strongest fall,

        lam = sum (W u)(G u) / sum (W u)^2

    is the decay there. Where <H> has rank one (linear nets) that is its eigenvalue. Several modes are averaged,
    weighted by what W_NI holds of them, and lam lies below the largest, the less the more nodes there are: 0.4 to 1.0
    of it on the digits with 8. Along a known mode, direction=v, lam is the eigenvalue of that mode.

    niw    W_NI before each of several steps of plain SGD (steps, d), or (steps, nodes, d): a window in which <H> barely
           moves, the weights still fall, and sigma |W_NI| is small beside the pre-activations
    eta    learning rate;  sigma  standard deviation of the noise
    direction    (d,), of any length; None: the direction of the strongest fall
    Source: arXiv 2210.13599, equation (8) of the reference.
    Raises ValueError for fewer than 3 steps, weights that never move or are not finite, eta or sigma not positive.
    """
    check_number("eta", eta, exclusive=True)
    check_number("sigma", sigma, exclusive=True)
    history = niw.detach().double()
    history = history[:, None] if history.dim() == 2 else history
    if history.dim() != 3 or len(history) < 3:
        raise ValueError(f"niw of shape {tuple(niw.shape)} must be (steps, nodes, d) or (steps, d) of 3 steps or more.")
    if not history.isfinite().all():
        raise ValueError("niw holds numbers that are not finite; cut the history where the run diverged.")
    falls = (history[:-1] - history[1:]) / (eta * sigma**2)
    if not falls.any():
        raise ValueError("niw never moves; there is no decay to read.")
    total = falls.sum(0)
    u = torch.linalg.svd(total, full_matrices=False).Vh[0] if direction is None else direction.detach().to(history)
    u = u / u.norm() * torch.sign(u[u.abs().argmax()])
    held, fall = (history[:-1] @ u).flatten(), (falls @ u).flatten()
    square = held @ held
    lam = held @ fall / square
    scatter = (fall - lam * held).square().sum() / (len(fall) - 1)
    return DecayReading(float(lam), float((scatter / square).sqrt()), u.to(niw))

"""How many directions and neurons a network uses: effective rank, participation, live units of its features."""

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp(H(p)), p_k = s_k^2 / sum s^2 of the centred features' singular values, H in nats (Roy & Vetterli 2007).

    1 for features along one line, d for equal spread in all directions; 0 where they do not vary at all.
    """
    centred = features.double().flatten(1) - features.double().flatten(1).mean(0)
    square = torch.linalg.svdvals(centred).square()
    if square.sum() == 0:
        return 0.0
    p = square / square.sum()
    return torch.special.entr(p).sum().exp().item()


def participation(features: Float[Tensor, "n d"]) -> float:
    """(sum_j a_j)^2 / (d sum_j a_j^2), a_j the variance of neuron j over samples: 1/d for one, 1 for all alike."""
    variance = features.double().flatten(1).var(0, correction=0)
    if variance.sum() == 0:
        return 0.0
    return (variance.sum().square() / (len(variance) * variance.square().sum())).item()


def live_units(features: Float[Tensor, "n d"], *, threshold: float = 1e-6) -> float:
    """The fraction of neurons whose output varies over the samples by more than `threshold`, largest minus smallest."""
    values = features.flatten(1)
    return (values.amax(0) - values.amin(0) > threshold).double().mean().item()

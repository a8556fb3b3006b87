"""How many directions and neurons a network's features use: effective rank, participation, live units."""

import torch
from jaxtyping import Float
from torch import Tensor

from nin.support.precision import widened


def effective_rank(features: Float[Tensor, "n ..."]) -> float:
    """exp(H(p)), p_k = s_k^2 / sum s^2, s the singular values of centred features, H in nats (Roy & Vetterli 2007).

    features (n, d), or (n, ...), which is flattened. 1 for features along one line, d for equal spread in all
    directions, 0 if the features do not vary.
    """
    wide = widened(features).flatten(1)
    centred = wide - wide.mean(0)
    square = torch.linalg.svdvals(centred).square()
    if square.sum() == 0:
        return 0.0
    p = square / square.sum()
    return torch.special.entr(p).sum().exp().item()


def participation(features: Float[Tensor, "n ..."]) -> float:
    """(sum_j a_j)^2 / (d sum_j a_j^2), a_j the variance of neuron j: 1/d if only one varies, 1 if all vary equally."""
    variance = widened(features).flatten(1).var(0, correction=0)
    if variance.sum() == 0:
        return 0.0
    return (variance.sum().square() / (len(variance) * variance.square().sum())).item()


def live_units(features: Float[Tensor, "n ..."], *, threshold: float = 1e-6) -> float:
    """The fraction of neurons whose output varies over the samples by more than `threshold`, largest minus smallest."""
    values = features.flatten(1)
    return (values.amax(0) - values.amin(0) > threshold).cpu().double().mean().item()

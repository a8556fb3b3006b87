"""What a convolutional network pools: space, if its filters have low frequencies, or channels."""

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.fft import dctn
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

COLUMNS = ["layer", "depth", "mode", "eigenvalue", "power", "share", "stderr"]


def filter_spectrum(model: nn.Module, layers: Sequence[str] | None = None) -> pd.DataFrame:
    """Mean squared projection of a convolution's filters on the eigenvectors of the grid Laplacian (arXiv 2210.01506).

    The eigenvectors of the F x F grid with free boundaries are products of cosines, sqrt(2/F) cos(pi a (i + 1/2) / F),
    with eigenvalues sum_axes 4 sin^2(pi a / 2F): 0, 1, 1, 2, 3, 3, 4, 4, 6 for 3 x 3. Mode 0 is the homogeneous filter.

    layers   names of convolutions in 1, 2 or 3 dimensions; None: all whose kernels have more than one weight
    Columns: layer, depth (1: the first), mode (by eigenvalue), eigenvalue, power (mean squared projection over filters,
    one for each pair of channels), share of the power of all modes (1/F^2 for independent weights), standard error of
    the share over filters. Raises ValueError if no convolution qualifies, or if a named layer is not one.
    """
    tables = []
    for depth, (name, weight) in enumerate(_spatial_weights(model, layers).items(), 1):
        size = weight.shape[2:]
        coefficients = dctn(weight, norm="ortho", axes=range(2, weight.ndim))  # (out, in, *kernel)
        projected = coefficients.reshape(-1, int(np.prod(size))) ** 2  # (filters, modes)
        orders = np.array(list(itertools.product(*map(range, size))))
        values = (4 * np.sin(np.pi * orders / (2 * np.array(size))) ** 2).sum(1)
        by_value = np.argsort(values.round(9), kind="stable")
        power, whole = projected.mean(0), projected.sum(1)
        share = power / whole.mean()
        stderr = (projected - share * whole[:, None]).std(0) / np.sqrt(len(whole)) / whole.mean()
        columns = {"mode": np.arange(len(values)), "eigenvalue": values[by_value]}
        columns |= {"power": power[by_value], "share": share[by_value], "stderr": stderr[by_value]}
        tables.append(pd.DataFrame({"layer": name, "depth": depth} | columns))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def shuffle_channels(model: nn.Module, *, generator: torch.Generator, layers: Sequence[str] | None = None) -> nn.Module:
    """A copy of a model whose convolutions read their input channels in a random order, one permutation for each layer.

    This keeps spatial pooling, which each filter does by itself, and destroys the pooling of channels (arXiv
    2210.01506). In a grouped convolution channels move within their groups, in the same way in all groups. Raises
    ValueError for a model without convolutions, a named layer that is not one, and computed weights (weight norm).
    """
    shuffled = copy.deepcopy(model)
    with torch.no_grad():
        for name, convolution in convolutions(shuffled, layers).items():
            weight = convolution._parameters.get("weight")
            if weight is None:
                raise ValueError(
                    f"layer {name!r} computes its weight from other tensors, which cannot be permuted. First make it a "
                    "plain parameter: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')."
                )
            order = torch.randperm(weight.shape[1], generator=generator).to(weight.device)
            weight.copy_(weight[:, order])
    return shuffled


def convolutions(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """A model's convolutions by name, without transposed ones; ValueError if it has none or if a name is not one."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd)
    }
    if not found:
        raise ValueError(
            "model has no convolution (nn.Conv1d to nn.Conv3d), hence no filters and no channels to permute."
        )
    for name in layers or ():
        if name not in found:
            raise ValueError(
                f"layers names {name!r}, which is not a convolution of the model; there are: {', '.join(found)}."
            )
    return found if layers is None else {name: found[name] for name in layers}


def _spatial_weights(model: nn.Module, layers: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The weights (out, in, *kernel), float64, of the convolutions with spatial extent."""
    weights = {
        name: module.weight.detach().cpu().double().numpy() for name, module in convolutions(model, layers).items()
    }
    points = [name for name, weight in weights.items() if np.prod(weight.shape[2:]) == 1]
    if points and (layers is not None or len(points) == len(weights)):
        raise ValueError(
            f"layer {points[0]!r} has filters of a single weight, which have no spatial extent and no spectrum."
        )
    return {name: weight for name, weight in weights.items() if name not in points}

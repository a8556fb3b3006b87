"""Sensitivities and filters of networks that detect a scale, compared with closed forms (notebook 07)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from nin.probes.stability import compare, filter_spectrum
from nin.support.progress import ProgressBar
from nin.theory.pooling import constant_filter_D, constant_filter_G
from studies.scale_detection.networks import ScaleRecipe, constant_net, fit_scale
from studies.scale_detection.task import Changes, ScaleTask, single_pixels


@dataclass(frozen=True, kw_only=True)
class ConstantCase:
    """A net of constant filters on single pixels of a ring: filter F, stride 1 or F; see `constant_filter_G`."""

    F: int = 2
    stride: int = 2
    depth: int = 6
    length: int = 1024
    rectified: str = "first"


def constant_case(case: ConstantCase, *, draws: int = 4, positions: int = 256, seed: int = 0) -> pd.DataFrame:
    """Columns k, quantity (D, G, R), measured, stderr, predicted; at stride F over all positions and moves."""
    generator = torch.Generator().manual_seed(seed)
    activation = "linear" if case.rectified == "never" else "relu"
    net = constant_net(
        case.depth, case.F, stride=case.stride, activation=activation, rectify_input=case.rectified == "input"
    )
    count = case.length if case.stride > 1 else min(positions, case.length)
    changes = single_pixels(case.length, count, draws, generator=generator)
    layers = [f"act{k}" for k in range(1, case.depth + 1)]
    found = compare(net, *changes, layers=layers, chunk=4).iloc[1:]  # up to 40 layers are in memory at once
    k = np.arange(1, case.depth + 1)
    size = {"stride": case.stride, "length": case.length if case.stride > 1 else np.inf}
    D, G = constant_filter_D(k, case.F, **size), constant_filter_G(k, case.F, rectified=case.rectified, **size)
    tables = [
        pd.DataFrame(
            {"k": k, "quantity": name, "measured": found[name].to_numpy(), "stderr": found[f"{name}_stderr"].to_numpy()}
        ).assign(predicted=law)
        for name, law in (("D", D), ("G", G), ("R", D / G))
    ]
    return pd.concat(tables, ignore_index=True)


def amplitude_cases(
    amplitudes: Sequence[float], *, depth: int = 6, length: int = 512, draws: int = 4, seed: int = 0
) -> pd.DataFrame:
    """G_k of linear, tanh and ReLU nets of constant filters, F = stride = 2, for active pixels of several amplitudes.

    The noise grows with the pixels, E |eta|^2 = 2 amplitude^2. Columns: net, amplitude, k, measured, stderr, predicted
    (`constant_filter_G`; tanh: `tanh_G` in the first layer, NaN in the others).
    """
    k = np.arange(1, depth + 1)
    tables = []
    for net, rectified in (("linear", "never"), ("tanh", None), ("relu", "first")):
        model = constant_net(depth, 2, stride=2, activation=net)
        for amplitude in amplitudes if net == "tanh" else (amplitudes[0], amplitudes[-1]):  # else it scales with x
            generator = torch.Generator().manual_seed(seed)
            changes = single_pixels(length, length, draws, amplitude=amplitude, generator=generator)
            found = compare(model, *changes, layers=[f"act{layer}" for layer in k]).iloc[1:]
            if rectified is None:
                predicted = np.where(k == 1, tanh_G(amplitude, length), np.nan)
            else:
                predicted = constant_filter_G(k, 2, stride=2, length=length, rectified=rectified)
            table = {"net": net, "amplitude": amplitude, "k": k, "measured": found["G"].to_numpy()}
            tables.append(pd.DataFrame(table | {"stderr": found["G_stderr"].to_numpy(), "predicted": predicted}))
    return pd.concat(tables, ignore_index=True)


def tanh_G(amplitude: float, length: int) -> float:
    """G_1 of a tanh layer with constant filters, F = stride = 2, for one active pixel A among L (derived).

        [(L/2 - 1) E tanh^2 n + E (tanh(A/2 + n) - tanh(A/2))^2] / [2 tanh^2(A/2) (1 - 2/L)],   n ~ N(0, A^2 / L)

    A site sees two pixels, and E |eta|^2 = 2 A^2 over all pixels gives it the noise n.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    n, weights = nodes * amplitude / np.sqrt(length), weights / weights.sum()
    signal = np.tanh(amplitude / 2)
    noise = (length / 2 - 1) * (weights @ np.tanh(n) ** 2) + weights @ (np.tanh(amplitude / 2 + n) - signal) ** 2
    return float(noise / (2 * signal**2 * (1 - 2 / length)))


def trained_cases(
    cases: Mapping[str, tuple[ScaleTask, ScaleRecipe]],
    *,
    seeds: Sequence[int],
    draws: int = 8,
    progress: bool = False,
) -> pd.DataFrame:
    """Train the networks of each case, and measure them layer by layer on test pairs, averaged over channels.

    Columns: case, seed, k, D, G, R, D_constant, G_constant (of a ReLU net of constant filters for the same pairs, moves
    and noise), share (of mode 0 in the layer's filters), error (of the network on test pairs).
    """
    tables = []
    for name, (task, recipe) in ProgressBar(cases.items(), progress=progress, desc="cases", unit="case"):
        for seed, net in zip(seeds, fit_scale(task, recipe, seeds=seeds), strict=True):
            _, test = task.split(recipe.n_train, recipe.n_test, seed=seed)
            with torch.no_grad():
                error = (net(task.images(test)).sign() != task.labels(test)).double().mean().item()
            changes = task.changes(test, draws, generator=torch.Generator().manual_seed(seed))
            layers = [f"activations.{k}" for k in range(recipe.depth)]
            found = compare(net, *changes, layers=layers, channel_mean=True)
            spectrum = filter_spectrum(net).query("mode == 0").set_index("depth")["share"]
            table = found.iloc[1:][["D", "G", "R"]].assign(k=found["depth"], share=found["depth"].map(spectrum))
            table[["D_constant", "G_constant"]] = _of_constant_filters(changes, recipe.depth)
            tables.append(table.assign(case=name, seed=seed, error=error))
    columns = ["case", "seed", "k", "D", "G", "R", "D_constant", "G_constant", "share", "error"]
    return pd.concat(tables, ignore_index=True)[columns]


def _of_constant_filters(changes: Changes, depth: int) -> NDArray:
    """D and G (depth, 2) of a ReLU net of constant filters, F = stride = 2; NaN where one site is left."""
    layers = [f"act{k}" for k in range(1, depth + 1)]
    found = compare(constant_net(depth, 2, stride=2).float(), *changes, layers=layers).iloc[1:]
    one_site = changes.x.shape[-1] <= 2 ** found["depth"]
    return found[["D", "G"]].mask(one_site, np.nan).to_numpy()

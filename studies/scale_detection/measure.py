"""Sensitivities and filters of networks that detect a scale, compared with closed forms (notebook 07)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from nin.probes.stability import compare, filter_spectrum
from nin.support.progress import ProgressBar
from nin.theory.pooling import constant_filter_D, constant_filter_G
from studies.scale_detection.networks import ScaleRecipe, constant_net, fit_scale
from studies.scale_detection.task import ScaleTask, single_pixels


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
    found = compare(net, *changes, layers=layers, chunk=16).iloc[1:]  # 2 MB a layer at the longest rings
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


def tanh_case(amplitude: float, *, depth: int = 6, length: int = 1024, draws: int = 4, seed: int = 0) -> pd.DataFrame:
    """G_k of a tanh net of constant filters, F = stride = 2, for active pixels of an amplitude: k, measured, stderr."""
    generator = torch.Generator().manual_seed(seed)
    net = constant_net(depth, 2, stride=2, activation="tanh")
    changes = single_pixels(length, length, draws, amplitude=amplitude, generator=generator)
    found = compare(net, *changes, layers=[f"act{k}" for k in range(1, depth + 1)]).iloc[1:]
    table = {"amplitude": amplitude, "k": np.arange(1, depth + 1)}
    return pd.DataFrame(table | {"measured": found["G"].to_numpy(), "stderr": found["G_stderr"].to_numpy()})


def trained_cases(
    cases: Mapping[str, tuple[ScaleTask, ScaleRecipe]],
    *,
    seeds: Sequence[int],
    draws: int = 8,
    progress: bool = False,
) -> pd.DataFrame:
    """Train the networks of each case, and measure them layer by layer on test pairs, averaged over channels.

    Columns: case, seed, k, D, G, R, share (of mode 0 in the layer's filters), error (of the network on test pairs).
    """
    rows = []
    for name, (task, recipe) in ProgressBar(cases.items(), progress=progress, desc="cases", unit="case"):
        for seed, net in zip(seeds, fit_scale(task, recipe, seeds=seeds), strict=True):
            _, test = task.split(recipe.n_train, recipe.n_test, seed=seed)
            with torch.no_grad():
                error = (net(task.images(test)).sign() != task.labels(test)).double().mean().item()
            changes = task.changes(test, draws, generator=torch.Generator().manual_seed(seed))
            layers = [f"activations.{k}" for k in range(recipe.depth)]
            found = compare(net, *changes, layers=layers, channel_mean=True)
            spectrum = filter_spectrum(net).query("mode == 0").set_index("depth")["share"]
            for row in found.iloc[1:].itertuples():
                rows.append((name, seed, row.depth, row.D, row.G, row.R, spectrum[row.depth], error))
    return pd.DataFrame(rows, columns=["case", "seed", "k", "D", "G", "R", "share", "error"])

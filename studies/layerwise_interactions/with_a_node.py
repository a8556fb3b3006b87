"""Interactions along training with a noise injection node, phase by phase: does the noise make them simpler?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nin.model.dataset import Dataset
from nin.model.losses import accuracy
from nin.phases import classify
from nin.probes.interactions.by_layer import Noise, layerwise
from nin.probes.interactions.games import mean_order
from nin.probes.interactions.games_of_layers import image_patches
from nin.support.progress import ProgressBar
from nin.support.threads import threads
from nin.training.config import RunConfig
from nin.training.loop import train
from nin.training.schedule import log_spaced
from studies.layerwise_interactions.measure import ITERATIONS, ONE_THREAD
from studies.layerwise_interactions.planted import with_hidden_layers

FITTED = 500  # samples that the readouts are fitted to
COLUMNS = ["phase", "sigma", "seed", "step", "accuracy", "layer", "strength", "completeness", "mean_order"]


def along_phases(
    base: RunConfig,
    data: Dataset,
    sigmas: Sequence[float],
    *,
    seeds: Sequence[int],
    patches: int,
    size: int,
    images: int,
    points: int = 5,
    progress: bool = False,
) -> pd.DataFrame:
    """Mean order and completeness of the interactions along runs at each noise scale; the noise is off when measuring.

    A run without a node comes first (sigma 0, phase "no node"). Columns: phase, sigma, seed, step, accuracy (test),
    layer, strength (both kinds, all orders), completeness (against the output at that step), mean_order
    (sum m strength_m / sum strength_m). The layers are read after their ReLU (hidden1, ...), so that the completeness
    of the last one must be 1: its distance from 1 is the floor of the probe. The images are the same at all steps.
    Networks that have diverged, or whose output is the same for every image, have no rows.
    """
    due = log_spaced(base.steps, points)
    cases = [base.replace(nodes=0, seed=seed) for seed in seeds]
    runs = [train(cases, data=data, snapshots=due)]
    cases = [base.replace(sigma=sigma, seed=seed) for sigma in sigmas for seed in seeds]
    runs.append(train(cases, data=data, snapshots=due))
    these, labels = data.x_test[:images], data.y_test[:images]
    baseline, known = data.x_train.mean(0), (data.x_train[:FITTED], data.y_train[:FITTED])
    chosen = image_patches(these, None, baseline, patches, size=size)
    rows = []
    todo = [(group, run, step) for group in runs for run in range(len(group.configs)) for step in due]
    with threads(1 if patches <= ONE_THREAD else None):
        for group, run, step in ProgressBar(todo, progress=progress, desc="along training", unit="network"):
            config, table = group.configs[run], group.table(run)
            if step >= np.nan_to_num(table["diverged_at"].iloc[0], nan=np.inf):
                continue
            kept = group.model(run, step=step)
            network = with_hidden_layers(kept.network if config.nodes else kept)
            with torch.no_grad():
                outputs = network(data.x_test)
            if not _distinguishes(outputs):
                continue
            right = accuracy(outputs, data.y_test).mean().item()
            fate = (classify(table), config.sigma) if config.nodes else ("no node", 0.0)
            found = layerwise(
                network, these, labels, patches=chosen, baseline=baseline, train=known,
                untrained=False, noise=Noise(0), resamples=1, iterations=ITERATIONS,
            )  # fmt: skip
            found = found[(found["network"] == "model") & (found["kind"] == "both")]
            for layer, part in found.groupby("layer", sort=False):
                whole, by_order = part[part["order"] == 0].iloc[0], part[part["order"] > 0]["strength"]
                values = (whole["strength"], whole["completeness"], mean_order(by_order))
                rows.append((*fate, config.seed, step, right, layer, *values))
    return pd.DataFrame(rows, columns=COLUMNS)


def _distinguishes(outputs: Tensor) -> bool:
    """Whether outputs are finite and differ between images."""
    return bool(outputs.isfinite().all()) and bool((outputs.std(0) > 1e-6 * outputs.abs().mean(0)).any())

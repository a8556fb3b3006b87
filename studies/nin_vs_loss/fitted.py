"""How long a network trains until it classifies all training samples correctly, as the network of the paper does."""

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from nin.model.dataset import Dataset
from nin.model.losses import accuracy
from nin.training.batches import StackedBatches
from nin.training.config import DTYPES, RunConfig
from nin.training.ensemble import CHUNK, Ensemble
from nin.training.start import members
from nin.training.updates import Updates


def until_fitted(base: RunConfig, data: Dataset, *, seeds: int) -> pd.DataFrame:
    """Train unperturbed networks, sigma = 0, for base.steps steps at most, until each has 100 % training accuracy.

    One row per seed: seed, step (a multiple of the steps of an epoch, after which all training samples are classified
    correctly; NaN if base.steps is reached first). The trajectories are those of `nin.train` with the same configs.
    Only while no mistake has been found are further samples classified, so that looking costs little.
    Raises ValueError for fewer than 2 seeds, whose ensemble would round differently.
    """
    if seeds < 2:
        raise ValueError(f"seeds={seeds} must be at least 2.")
    configs = [base.replace(sigma=0.0, seed=seed) for seed in range(seeds)]
    data = data.to(DTYPES[base.dtype])
    ensemble, feed = Ensemble(members(configs, data)[0]), StackedBatches(configs, data)
    updates = Updates(configs, ensemble)
    reached = pd.Series(float("nan"), index=range(seeds))
    epoch = len(data.x_train) // base.batch_size
    for step in range(1, base.steps + 1):
        ensemble.backward(*feed.next(), loss=base.loss, scale=updates.scale.to(data.x_train))
        updates.step(step - 1)
        if step % epoch == 0:
            reached[reached.isna() & all_right(ensemble, data).numpy()] = step
            if reached.notna().all():
                break
    return pd.DataFrame({"seed": reached.index, "step": reached.to_numpy()})


@torch.no_grad()
def all_right(ensemble: Ensemble, data: Dataset) -> Bool[Tensor, " K"]:
    """Which members classify all training samples correctly; ends at the first chunk after which none is left."""
    right = torch.ones(len(ensemble), dtype=torch.bool)
    for x, y in zip(data.x_train.split(CHUNK), data.y_train.split(CHUNK), strict=True):
        outputs = ensemble(x.expand(len(ensemble), *x.shape))  # (K, chunk, outputs)
        right &= (accuracy(outputs, y.expand(len(ensemble), *y.shape)) == 1).all(1)
        if not right.any():
            break
    return right

"""Linear networks with a node, trained by SGD with fixed and with re-drawn noise, beside the closed forms."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from nin.model.dataset import Dataset
from nin.training.config import RunConfig
from nin.training.loop import train
from studies.memorisation.linear import OUTPUTS, Modes, Setting, regression, turn_of_few_inputs

DATA_SEED = 0  # all settings of one d have the same inputs, signal and xi


def data_of(setting: Setting) -> Dataset:
    """The data of a setting, a function of the setting alone."""
    return regression(setting, generator=torch.Generator().manual_seed(DATA_SEED))


def simulate(setting: Setting, data: Dataset, *, seeds: int) -> pd.DataFrame:
    """SGD in float64 with fixed and with re-drawn noise: resample, step, niw, stderr, test_loss.

    niw: rms |W_NI| over seeds (of weights, order and noise), with its standard error; test_loss: mean over seeds, NaN
    where it is not measured.
    """
    base = RunConfig(
        widths=(), activation="linear", loss="mse", sigma=setting.sigma, niw_std=setting.niw_std, lr=setting.lr,
        batch_size=setting.batch_size, steps=setting.steps, record_every=10, eval_points=40, eval_samples=500,
        curvature_pairs=1, dtype="float64",
    )  # fmt: skip
    modes = ("fixed", "step")
    frame = train(
        [base.replace(resample=mode, seed=seed) for mode in modes for seed in range(seeds)], data=data
    ).frame()
    runs = frame.assign(square=frame["niw_norm"] ** 2).groupby(["resample", "step"])
    niw = np.sqrt(runs["square"].mean())
    stderr = runs["square"].std() / np.sqrt(seeds) / (2 * niw)
    return pd.DataFrame({"niw": niw, "stderr": stderr, "test_loss": runs["test_loss"].mean()}).reset_index()


def compare(settings: Sequence[Setting], *, seeds: int) -> pd.DataFrame:
    """`simulate` for each setting, with the closed form for the same data: also n, d, label_noise, theory, rival.

    theory  rms |W_NI| for the row's own resampling;  rival  for the other one
    The theory starts from the rms of the initial NIW that these seeds drew.
    """
    tables = []
    for setting in settings:
        data = data_of(setting)
        table = simulate(setting, data, seeds=seeds)
        start = table["niw"][table["step"] == 0].mean() / OUTPUTS**0.5
        modes = Modes(replace(setting, niw_std=float(start)), data)
        steps, fixed = table["step"].to_numpy(), (table["resample"] == "fixed").to_numpy()
        of_fixed, of_redrawn = modes.fixed(steps), modes.redrawn(steps)
        theory = {"theory": np.where(fixed, of_fixed, of_redrawn), "rival": np.where(fixed, of_redrawn, of_fixed)}
        tables.append(table.assign(n=setting.n, d=setting.d, label_noise=setting.label_noise, **theory))
    return pd.concat(tables, ignore_index=True)


def turn_table(settings: Sequence[Setting], measured: pd.DataFrame, label_noises: Sequence[float]) -> pd.DataFrame:
    """When |W_NI| and the test loss turn, by theory, for each of the settings' d at these label noises, and measured.

    d, label_noise; node, loss: theory, NaN if the curve falls to the last step; few: `turn_of_few_inputs`;
    node_measured, loss_measured: from `compare`, NaN where nothing was trained or the curve falls to the last step.
    """
    rows = []
    for setting in {setting.d: setting for setting in settings}.values():
        trained = {s.label_noise for s in settings if s.d == setting.d and s.label_noise > 0}
        for noise in sorted({*label_noises, *trained}):
            here = replace(setting, label_noise=noise)
            modes = Modes(here, data_of(here))
            curves = measured[(measured["d"] == setting.d) & (measured["label_noise"] == noise)]
            fixed = curves[curves["resample"] == "fixed"].set_index("step")
            found = {
                "node": modes.turn(),
                "loss": modes.loss_turn(),
                "node_measured": fixed["niw"].idxmin() if len(fixed) else np.nan,
                "loss_measured": fixed["test_loss"].idxmin() if len(fixed) else np.nan,
            }
            found = {name: np.nan if step == setting.steps else float(step) for name, step in found.items()}
            rows.append({"d": setting.d, "label_noise": noise, "few": turn_of_few_inputs(here)} | found)
    return pd.DataFrame(rows)


def errors(table: pd.DataFrame, against: str = "theory") -> float:
    """rms of (measured - theory) / standard error of rms |W_NI| over all curves and steps; about 1 if they agree."""
    return float(np.sqrt(np.square((table["niw"] - table[against]) / table["stderr"]).mean()))

"""Small tables for the figures of notebook 08 that have not been saved at full size yet."""

from functools import partial

import numpy as np
import pandas as pd

from studies.training_response import figures
from studies.training_response.stochastic import MEASURES

SEEDS, STEPS = (0, 1, 2), (0, 10, 100, 1000)
ENDS = [
    {"activation": name, "loss": loss, "a": a, "prefactor": 1 + a}
    for name, a in (("tanh", 0.03), ("relu", 0.09)) for loss in ("ce", "sigmoid_mse")
]  # fmt: skip


def prefactors() -> pd.DataFrame:
    rows = [
        (seed, name, loss, step, 1.05 + seed / 100 + step / 1e5, 1.06)
        for loss in ("ce", "sigmoid_mse") for name in ("tanh", "relu") for seed in SEEDS
        for step in (10, 20, 50, 100, 200, 500, 1000)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["seed", "activation", "loss", "step", "measured", "law"])


def drifts() -> pd.DataFrame:
    rows = [
        (scaling, hidden, seed, 0.2 * (hidden / 64) ** power * (1 + seed / 20))
        for scaling, power in (("ntk", -0.9), ("standard", -1.5)) for hidden in (64, 256, 1024) for seed in SEEDS
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["scaling", "hidden", "seed", "drift"])


def split() -> pd.DataFrame:
    rows = [
        (bias, name, seed, step, (1 + seed / 10) * (1 + bias * growth * step / 250))
        for bias in (1.0, 0.0) for name, growth in (("tanh", 1), ("relu", 2)) for seed in SEEDS for step in STEPS
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["bias", "activation", "seed", "step", "ratio"])


TRAININGS = (("GD", 0.02, 0.0), ("SGD", 0.02, 0.0), ("label noise", 0.02, 0.5), ("label noise", 0.014, 0.7))


def contrast() -> pd.DataFrame:
    """Each of the trainings at a few steps; only label noise moves the measures."""
    rows = []
    for training, eta, sigma in TRAININGS:
        for name in ("tanh", "relu"):
            for seed in SEEDS:
                for step in STEPS:
                    left = np.exp(-step / 500) if training == "label noise" else 1.0
                    values = {"effective_rank": (12 + seed) * left, "flips": 0.1 + seed / 100, "error_all": 0.3 * left}
                    values |= {"worst_neuron": 0.5 - 0.4 * left, "weight_noise": 0.02 + seed / 100, "margin": 1 + seed}
                    u = (eta * (sigma or 0.5)) ** 2 * step
                    place = {"training": training, "eta": eta, "sigma": sigma, "activation": name, "seed": seed}
                    rows.append(place | {"step": step, "u": u, "self_kernel": 30 * left} | values)
    return pd.DataFrame(rows)


def stochastic() -> pd.DataFrame:
    table = contrast()
    noise = table[(table["training"] == "label noise") & (table["step"] > 0)].assign(study="noise")
    cap = [
        {"study": "cap", "activation": name, "eta": eta, "sigma": 0.0, "seed": seed, "step": 1000,
         "stability": eta * (30 + seed), "self_kernel": 30.0}
        for name in ("tanh", "relu") for eta in (0.01, 0.02, 0.05) for seed in SEEDS
    ]  # fmt: skip
    return pd.concat([pd.DataFrame(cap), noise], ignore_index=True)


def fragile() -> pd.DataFrame:
    table = contrast()
    return table[(table["step"] == STEPS[-1]) & (table["eta"] == 0.02)]


MADE = {
    "08b_prefactor": (partial(figures.prefactor, ends=ENDS), prefactors),
    "08c_widths": (figures.widths, drifts),
    "08e_splitting": (figures.splitting, split),
    "08f_stochastic": (figures.stochastic, stochastic),
    "08g_contrast": (partial(figures.contrast, measures=MEASURES), contrast),
    "08h_fragility": (figures.fragility, fragile),
}

"""One point of the phase diagram: a small ensemble trained at one setting, its phase, and theory for comparison."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nin import theory
from nin.companion.explorer.borders import Borders, borders, linear_curvature
from nin.model.noise import LAWS
from nin.phases import criteria, vote
from nin.support.arguments import check_choice, check_count, check_number
from nin.support.threads import fit
from nin.training.config import RunConfig
from nin.training.loop import train

NETWORKS = ("linear net", "digits")
SEEDS = 3
STEPS = {"linear net": 100, "digits": 300}
LEAST, MOST = 1e-9, 1e9  # of noise scale and learning rate: beyond, one of them has no effect or all is infinite
WIDEST = 4096  # units: three layers of more do not fit into the memory of a laptop
SAMPLES = {"linear net": 1024, "digits": 1437}
SEEN = {
    "decoupled": "The weights of the node stay where they started: the noise is too weak, or training too slow, to "
    "move them.",
    "decay": "The weights of the node decay, at a rate set by the curvature of the loss, and with them its noise.",
    "catapult": "The weights of the node grow at first, and the loss spikes; training leads the network into a flatter "
    "region.",
    "growing": "The weights of the node grow without a spike of the loss: none of the four phases of the paper.",
    "divergent": "The noise is too strong: loss and weights blow up, and the network is lost.",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The setting of the explorer's sliders.

    network     "linear net" (the linear test case) or "digits" (an MLP of three hidden layers)
    sigma, lr   noise scale, learning rate
    width       units of each hidden layer
    batch       samples per step
    law         law of the noise
    layer       the linear layer that the node feeds; the linear net allows only 0
    """

    network: str = "digits"
    sigma: float = 8.0
    lr: float = 0.05
    width: int = 64
    batch: int = 128
    law: str = "gaussian"
    layer: int = 0

    def __post_init__(self) -> None:
        check_choice("network", self.network, NETWORKS)
        check_choice("law", self.law, LAWS)
        check_number("sigma", self.sigma, exclusive=True)
        check_number("lr", self.lr, exclusive=True)
        check_count("width", self.width)
        check_count("batch", self.batch)
        check_count("layer", self.layer, minimum=0)
        for name in ("sigma", "lr"):
            if not LEAST <= getattr(self, name) <= MOST:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie between {LEAST:g} and {MOST:g}.")
        for name, most in (("width", WIDEST), ("batch", SAMPLES[self.network])):
            if getattr(self, name) > most:
                raise ValueError(f"{name}={getattr(self, name)} must be an integer from 1 to {most}.")
        if self.network == "linear net" and self.layer:
            raise ValueError(f"layer={self.layer}: the linear net allows a node in layer 0 only.")

    @property
    def config(self) -> RunConfig:
        """The first run of the ensemble."""
        shared = {"sigma": self.sigma, "lr": self.lr, "law": self.law, "layer": self.layer, "batch_size": self.batch}
        shared |= {"steps": STEPS[self.network], "record_every": 2, "eval_points": 2}
        if self.network == "linear net":
            options = {"network": "linear", "widths": (self.width,), "dataset": "linear_teacher", "loss": "mse"}
            return RunConfig(**shared, **options, resample="step", dtype="float64", n_train=1024)
        return RunConfig(**shared, widths=(self.width,) * 3, dataset="digits")

    @property
    def plane(self) -> "Setting":
        """What all settings of one phase diagram have in common: all but noise scale and learning rate."""
        return dataclasses.replace(self, sigma=1.0, lr=1.0)

    @property
    def command(self) -> str:
        """The command line that reproduces the figure and the table."""
        given = [f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self)]
        return "python -m nin explore " + " ".join(f"'{text}'" if " " in text else text for text in given)


@dataclass(frozen=True)
class Found:
    """What the ensemble at a setting did, and what was predicted before it was trained.

    frame    seed, step, noisy_loss, niw: the norm of the node's weights (for the linear net, whose weights hardly move,
             of the noise output) relative to its start; for the linear net theory, the prediction |1 - kappa|^t for niw
    phases   of each seed
    plains   what plain SGD does by itself, for each seed: `nin.phases.Criteria.plain`
    borders  of the phases, for the networks before training
    """

    setting: Setting
    frame: pd.DataFrame
    phases: tuple[str, ...]
    plains: tuple[str, ...]
    borders: Borders

    @property
    def phase(self) -> str:
        """The phase of most seeds."""
        return vote(self.phases)

    @property
    def kappa(self) -> float:
        """kappa_1 = 2 lr / eta_1 before training; in the linear net the paper's kappa_0."""
        return float(self.borders.kappa(self.setting.sigma, self.setting.lr))

    @property
    def expected(self) -> str:
        """The phase that was predicted before training."""
        return self.borders.phase(self.setting.sigma, self.setting.lr)

    @property
    def headline(self) -> str:
        """The phase, how many seeds have it, and the prediction."""
        count, seeds = self.phases.count(self.phase), len(self.phases)
        return f"{self.phase} ({count} of {seeds} seeds), predicted: {self.expected}, κ₁ = {self.kappa:.3g}"

    @property
    def sentence(self) -> str:
        """What one sees in this phase, and what plain SGD does at this learning rate if it is not stable."""
        agreed = 2 * self.phases.count(self.phase) > len(self.phases)
        seen = SEEN[self.phase] if agreed else f"The seeds disagree: {', '.join(self.phases)}."
        unstable = [plain for plain in self.plains if plain in ("spikes", "diverges")]
        if 2 * len(unstable) <= len(self.plains):
            return seen
        plain = "diverges" if 2 * unstable.count("diverges") > len(unstable) else "spikes"
        return f"{seen} Plain SGD {plain} at this learning rate by itself, without a node."


def explore(setting: Setting) -> Found:
    """Train an ensemble of SEEDS seeds at a setting; find its phase and the borders of its network's phases."""
    fit()
    linear = setting.network == "linear net"
    configs = [setting.config.replace(seed=seed) for seed in range(SEEDS)]
    found = borders(tuple(config.replace(sigma=1.0, lr=1.0) for config in configs))
    runs = train(configs, snapshots=(0,))
    size = "noise_output" if linear else "niw_norm"
    tables, judged = [], []
    for run in range(SEEDS):
        judged.append(criteria(runs.table(run), niw=size))
        table = runs.table(run).dropna(subset=["noisy_loss"])
        niw = table[size].abs() / abs(table[size].iloc[0])
        columns = {"seed": run, "step": table["step"], "noisy_loss": table["noisy_loss"], "niw": niw}
        if linear:
            kappa = theory.kappa(setting.lr, setting.sigma, linear_curvature(runs.model(run, step=0)))
            with np.errstate(over="ignore"):
                columns["theory"] = np.abs(1 - kappa) ** table["step"]
        tables.append(pd.DataFrame(columns))
    phases, plains = tuple(one.phase for one in judged), tuple(one.plain for one in judged)
    return Found(setting, pd.concat(tables, ignore_index=True), phases, plains, found)

"""One point of the phase diagram: a small ensemble trained at one setting, its phase, and theory for comparison."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nin import theory
from nin.model.noise import LAWS
from nin.phases import classify, vote
from nin.support.arguments import check_choice, check_count, check_number
from nin.training.config import RunConfig
from nin.training.loop import train

NETWORKS = ("linear net", "digits")
SEEDS = 3
STEPS = {"linear net": 100, "digits": 300}
SEEN = {
    "decoupled": "The noise is too weak to matter: the weights of the node stay where they started, and the loss falls "
    "as it does without a node.",
    "decay": "The weights of the node decay at a rate set by the curvature of the loss, and the loss falls once they "
    "are gone.",
    "catapult": "The weights of the node grow at first: the loss rises and the network is catapulted into a flatter "
    "region, where they decay.",
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
    def command(self) -> str:
        """The command line that reproduces the figure and the table."""
        given = [f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self)]
        return "python -m nin explore " + " ".join(f"'{text}'" if " " in text else text for text in given)


@dataclass(frozen=True)
class Found:
    """What the ensemble at a setting did.

    frame    seed, step, noisy_loss, niw: the norm of the node's weights (for the linear net, whose weights hardly move,
             of the noise output) relative to its start, theory: its prediction, |1 - kappa|^t
    phase    of most seeds
    kappa    control number at the start, mean over seeds: eta sigma^2 (V + W) for the linear net, else
             eta sigma^2 lambda_max(<H>) of the layer
    """

    setting: Setting
    frame: pd.DataFrame
    phase: str
    kappa: float

    @property
    def curvature(self) -> float:
        """kappa / (eta sigma^2)."""
        return self.kappa / (self.setting.lr * self.setting.sigma**2)

    @property
    def sentence(self) -> str:
        """What one sees in this phase."""
        return SEEN[self.phase]


def explore(setting: Setting) -> Found:
    """Train an ensemble of SEEDS seeds at a setting and find its phase."""
    linear = setting.network == "linear net"
    runs = train([setting.config.replace(seed=seed) for seed in range(SEEDS)], snapshots=(0,))
    size = "noise_output" if linear else "niw_norm"
    tables, phases, kappas = [], [], []
    for run in range(SEEDS):
        table = runs.table(run).dropna(subset=["noisy_loss"])
        niw = table[size].abs() / abs(table[size].iloc[0])
        kappas.append(_linear_kappa(runs.model(run, step=0), setting) if linear else table["kappa_H"].iloc[0])
        phases.append(classify(runs.table(run), niw=size))
        rate = kappas[-1] if linear else table["kappa_avg"].iloc[0]
        with np.errstate(over="ignore"):
            predicted = np.abs(1 - rate) ** table["step"]
        columns = {"seed": run, "step": table["step"], "noisy_loss": table["noisy_loss"], "niw": niw}
        tables.append(pd.DataFrame(columns | {"theory": predicted}))
    return Found(setting, pd.concat(tables, ignore_index=True), vote(phases), float(np.mean(kappas)))


def _linear_kappa(noisy, setting: Setting) -> float:
    """eta sigma^2 (V + W), V = |v|^2 / N, W = |w|^2 / N (NIN section 3.1)."""
    v = noisy.network.layers[1].weight.detach()
    V, W = v.square().mean().item(), noisy.niw.detach().square().mean().item()
    return float(theory.kappa(setting.lr, setting.sigma, V + W))

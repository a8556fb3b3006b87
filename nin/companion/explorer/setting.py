"""One point of the phase diagram: a small ensemble trained at one setting, its phase, and theory for comparison."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pandas as pd

from nin.companion import pairs
from nin.companion.explorer.borders import Borders, borders
from nin.companion.explorer.expected import typical_output
from nin.model.noise import LAWS
from nin.phases import Criteria, criteria, vote
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
UNTOLD = ("token", "template", "theme")  # of an address: for the server, not for the setting


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
        return RunConfig(**shared, widths=(self.width,) * 3, dataset="digits", curvature_pairs=0)

    @property
    def plane(self) -> "Setting":
        """What all settings of one phase diagram have in common: all but noise scale and learning rate."""
        return dataclasses.replace(self, sigma=1.0, lr=1.0)

    @property
    def command(self) -> str:
        """The command line that reproduces the figure and the table."""
        given = [f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self)]
        return "python -m nin explore " + " ".join(f"'{text}'" if " " in text else text for text in given)

    @property
    def query(self) -> str:
        """The end of the address of the page that begins with this setting: ?network=digits&sigma=8.0..."""
        return "?" + urlencode(dataclasses.asdict(self))


def from_query(query: str) -> Setting:
    """The setting that an address names after its "?"; names that are not given have their defaults.

    Raises ValueError as `read` does.
    """
    return read([f"{name}={value}" for name, value in parse_qsl(query.lstrip("?")) if name not in UNTOLD])


def read(given: Sequence[str]) -> Setting:
    """The setting given by texts name=value; ValueError for an unknown or repeated name or a value of a wrong type."""
    fields = {field.name: field.type for field in dataclasses.fields(Setting)}
    values = {}
    for name, text in pairs.read(given, fields).items():
        try:
            values[name] = fields[name](text)
        except ValueError:
            kind = {int: "an integer", float: "a number"}[fields[name]]
            raise ValueError(f"{name}={text!r} must be {kind}.") from None
    return Setting(**values)


@dataclass(frozen=True)
class Found:
    """What the ensemble at a setting did, and what was predicted before it was trained.

    frame    seed, step, noisy_loss, niw: the norm of the node's weights (for the linear net, whose weights hardly move,
             of the noise output) relative to its start; plain_loss: of the first seed trained without a node; for the
             linear net theory: the niw that `typical_output` expects
    judged   `nin.phases.Criteria` of each seed
    borders  of the phases, for the networks before training
    """

    setting: Setting
    frame: pd.DataFrame
    judged: tuple[Criteria, ...]
    borders: Borders

    @property
    def phases(self) -> tuple[str, ...]:
        """The phase of each seed."""
        return tuple(one.phase for one in self.judged)

    @property
    def phase(self) -> str:
        """The phase of most seeds."""
        return vote(self.phases)

    @property
    def certainty(self) -> float:
        """The least certainty of the seeds that have the phase; NaN if unknown."""
        return float(np.min([one.certainty for one in self.judged if one.phase == self.phase]))

    @property
    def kappa(self) -> float:
        """kappa_1 = 2 lr / eta_1 before training; in the linear net the paper's kappa_0."""
        return float(self.borders.kappa(self.setting.sigma, self.setting.lr))

    @property
    def expected(self) -> str:
        """The phase that was predicted before training."""
        return self.borders.phase(self.setting.sigma, self.setting.lr)


def explore(setting: Setting) -> Found:
    """Train an ensemble of SEEDS seeds at a setting; find its phase and the borders of its network's phases."""
    fit()
    configs = [setting.config.replace(seed=seed) for seed in range(SEEDS)]
    found = borders(tuple(config.replace(sigma=1.0, lr=1.0) for config in configs))
    runs = train([*configs, configs[0].replace(sigma=0.0)], snapshots=(0,))
    size = "noise_output" if setting.network == "linear net" else "niw_norm"
    plain = runs.table(SEEDS).set_index("step")["noisy_loss"]
    tables, judged = [], []
    for run, config in enumerate(configs):
        judged.append(criteria(runs.table(run), niw=size))
        table = runs.table(run).dropna(subset=["noisy_loss"])
        niw = table[size].abs() / abs(table[size].iloc[0])
        columns = {"seed": run, "step": table["step"], "noisy_loss": table["noisy_loss"], "niw": niw}
        columns["plain_loss"] = plain.reindex(table["step"]).to_numpy() if run == 0 else np.nan
        if setting.network == "linear net":
            columns["theory"] = typical_output(config, runs.model(run, step=0))[table["step"]]
        tables.append(pd.DataFrame(columns))
    return Found(setting, pd.concat(tables, ignore_index=True), tuple(judged), found)


def examples(settings: Iterable[Setting]) -> list[pd.DataFrame]:
    """The first run at each setting of one plane, trained together: seed, step, noisy_loss, niw as in `Found`."""
    runs = train([setting.config for setting in settings])
    tables = [runs.table(run).dropna(subset=["noisy_loss"]) for run in range(len(runs.configs))]
    return [
        pd.DataFrame({"seed": 0, "step": table["step"], "noisy_loss": table["noisy_loss"]}).assign(
            niw=table["niw_norm"] / table["niw_norm"].iloc[0]
        )
        for table in tables
    ]

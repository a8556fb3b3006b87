"""One point of the phase diagram, checked and told without torch, which takes seconds to load."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from nin.companion import pairs
from nin.support.arguments import check_choice, check_count, check_number
from nin.theory import KURTOSIS

if TYPE_CHECKING:
    from nin.training.config import RunConfig

NETWORKS = ("linear net", "digits")
SEEDS = 3
STEPS = {"linear net": 100, "digits": 300}
LEAST, MOST = 1e-9, 1e9  # of noise scale and learning rate: beyond, one of them has no effect or all is infinite
WIDEST = 4096  # units: three layers of more do not fit into the memory of a laptop
SAMPLES = {"linear net": 1024, "digits": 1437}
DEEPEST = 3  # of the linear layers of digits, 0 to 3
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
        check_choice("law", self.law, KURTOSIS)
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
        if self.layer > DEEPEST:
            raise ValueError(f"layer={self.layer}: the linear layers of digits are 0 to {DEEPEST}.")

    @property
    def config(self) -> "RunConfig":
        """The first run of the ensemble."""
        from nin.training.config import RunConfig

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

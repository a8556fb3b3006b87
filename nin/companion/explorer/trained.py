"""A small ensemble trained at one point of the phase diagram, its phase, and theory for comparison."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nin.companion.explorer.borders import Borders, borders
from nin.companion.explorer.expected import typical_output
from nin.companion.explorer.setting import SEEDS, Setting
from nin.phases import Criteria, criteria, vote
from nin.support.threads import fit
from nin.training.loop import train


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

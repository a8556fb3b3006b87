"""Does the explorer's shading agree with what it measures? Thirty settings, three times, half of each network."""

import numpy as np
import pandas as pd

from benchmarks.report import table
from nin.companion.explorer.setting import Setting
from nin.companion.explorer.trained import Found, explore

SETTINGS, SEEDS = 30, (0, 1, 2)  # the rules for decay and for plain SGD's own spikes were made with the first draw
RANGES = {"sigma": (0.1, 250.0), "lr": (0.001, 1.0)}  # those of the sliders


def settings(count: int = SETTINGS, seed: int = 0) -> list[Setting]:
    """Settings of the sliders, drawn evenly in logarithms; widths, batches, laws and layers of each network."""
    generator, found = np.random.default_rng(seed), []
    for number in range(count):
        sigma, lr = (float(f"{np.exp(generator.uniform(*np.log(bounds))):.3g}") for bounds in RANGES.values())
        linear = number % 2 == 0
        found.append(
            Setting(
                network="linear net" if linear else "digits",
                sigma=sigma,
                lr=lr,
                width=int(generator.choice([256, 512, 1024] if linear else [16, 32, 64, 128])),
                batch=int(generator.choice([64, 128, 256])),
                law=str(generator.choice(["gaussian", "uniform", "rademacher"])),
                layer=0 if linear else int(generator.integers(3)),
            )
        )
    return found


def agreement(chosen: list[Setting]) -> pd.DataFrame:
    """Measured and predicted phases, and the factor in lr between a miss and the nearest region of its phase."""
    rows = []
    for setting in chosen:
        found = explore(setting)
        row = {name: getattr(setting, name) for name in ("network", "sigma", "lr", "width", "batch", "law", "layer")}
        row |= {"measured": found.phase, "predicted": found.expected, "agree": found.phase == found.expected}
        row["probability"] = found.borders.probability(setting.sigma, setting.lr).get(found.phase, 0.0)
        row["factor"] = 1.0 if row["agree"] else _beyond(found)
        rows.append(row)
    return pd.DataFrame(rows)


def _beyond(found: Found) -> float:
    """The factor in lr to the nearest region of the measured phase; NaN if there is none."""
    nearest = found.borders.nearest(found.phase, found.setting.sigma, found.setting.lr)
    return np.nan if nearest is None else float(np.exp(abs(np.log(found.setting.lr / nearest))))


def run() -> str:
    """The tables, as Markdown."""
    return "\n\n".join(_told(seed, agreement(settings(seed=seed))) for seed in SEEDS)


def _told(seed: int, found: pd.DataFrame) -> str:
    missed = found[~found["agree"]]
    names = (
        "network",
        "sigma",
        "lr",
        "width",
        "batch",
        "law",
        "layer",
        "measured",
        "predicted",
        "probability",
        "factor",
    )
    rows = [
        tuple(f"{value:.3g}" if isinstance(value, float) else value for value in row)
        for row in missed[list(names)].itertuples(index=False)
    ]
    return f"Draw {seed}: {int(found['agree'].sum())} of {len(found)} agree. The others:\n\n" + table(names, rows)

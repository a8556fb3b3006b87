"""Where catapults and divergence begin in training, measured beside all predictions made before it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import numpy as np
import pandas as pd
import torch

from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.nodes import NoisyNetwork
from nin.phases import SPIKE, criteria
from nin.probes.curvature.critical import JUDGES, TRIALS, Descent, Factory
from nin.probes.curvature.crossing import first_crossing
from nin.probes.curvature.trials import Trials
from nin.probes.prediction import DIVERGENCE, DIVERGENCE_AHEAD
from nin.training.config import RunConfig
from nin.training.loop import train
from nin.training.start import build, with_node
from studies.phase_borders import candidates
from studies.phase_borders.networks import Case
from studies.statistics import Numbers

PER_OCTAVE = 6  # points of the grid of eta in a factor of 2: steps of a factor 1.12
AROUND = (*range(-4, 6), 7, 9, 12, 15, 18)  # in grid steps from eta_1; coarser where only divergence lies
FURTHER, ROUNDS = 8, 4  # grid steps by which a grid that does not bracket the onset is extended, and how often
OWN = 0.7  # the node makes the catapult if plain SGD spikes only at eta > onset / OWN
CANDIDATES = (
    "kappa_H", "kappa_avg", "one_step", "one_step_spike", "ahead_2", "ahead_5", "ahead_10", "sharpness",
    "self_consistent",
)  # fmt: skip
DIVERGENCES = {f"blow_up_{ahead}": (ahead, rise) for ahead, rise in ((1, DIVERGENCE.rise), (10, DIVERGENCE_AHEAD.rise))}
SEEDS = 5
# Enough for an error of eta_1 well below the scatter between runs, for all numbers of steps alike.
SIZES = {"trials": 8, "judges": 64, "tolerance": 0.05}
PRODUCTS_ON = 64  # samples, each with +-eps, of the Gauss-Newton matrix


@dataclass(frozen=True)
class Border:
    """A border between the last point of a grid where something does not happen, and the first where it does.

    low is 0 if it happens at every point, and high is inf if it happens at none.
    """

    low: float
    high: float

    @property
    def at(self) -> float:
        """The geometric mean of both points; NaN if the grid does not bracket the border."""
        return math.sqrt(self.low * self.high) if 0 < self.low and self.high < math.inf else math.nan

    @property
    def error(self) -> float:
        """Half the distance of both points in log2."""
        return math.log2(self.high / self.low) / 2 if not math.isnan(self.at) else math.nan


def find_border(points: Numbers, happens: Sequence[bool] | np.ndarray | pd.Series) -> Border:
    """The border at the first point, from below, where it happens.

    >>> find_border([1, 2, 4, 8], [False, False, True, True]).at
    2.8284271247461903
    """
    if len(points) != len(happens) or not len(points):
        raise ValueError(f"points has {len(points)} and happens {len(happens)} values; pass as many, at least one.")
    order = np.argsort(points)
    points, happens = np.asarray(points, dtype=float)[order], np.asarray(happens, dtype=bool)[order]
    if not happens.any():
        return Border(float(points[-1]), math.inf)
    first = int(happens.argmax())
    return Border(float(points[first - 1]) if first else 0.0, float(points[first]))


def measure(case: Case, *, seeds: int = SEEDS, ratios: Sequence[float] | None = None) -> pd.DataFrame:
    """Train the case over a grid of eta for each noise scale and seed, and find its borders and their predictions.

    One row for each sigma and seed: onset and divergence (eta), onset_error (log2), first_step (onset if only the run's
    own first step counts), plain_onset, own (whether plain SGD makes the onset), and the onset according to each of
    CANDIDATES, one_step_error (log2).

    seeds   number of draws of initial weights, batches and noise;  ratios  in place of the case's own
    Each case has its own seeds: with common ones, a lucky draw would move all of its neighbours alike.
    The noise scales are chosen with the first seed. Raises ValueError if none of the ratios is reached.
    """
    first = crc32(case.name.encode()) % 2**16 * 2**8
    data, configs = case.data(), [case.config.replace(seed=first + k) for k in range(seeds)]
    ratios = case.ratios if ratios is None else ratios
    sigmas = case.sigmas or noise_scales(case, configs[0], data, ratios)
    if not sigmas:
        raise ValueError(f"case={case.name!r}: no noise scale lowers eta_1 to ratios={ratios}; raise them.")
    runs = [config.replace(sigma=sigma) for config in configs for sigma in (*[0.0] * case.plain, *sigmas)]
    predicted = pd.DataFrame([predictions(case, config, data) for config in runs])
    borders = predicted.merge(_borders(_outcomes(case, predicted, runs, data)), on=["sigma", "seed"])
    borders.insert(0, "group", case.group)
    borders.insert(0, "case", case.name)
    return borders


def start(case: Case, config: RunConfig, data: Dataset) -> NoisyNetwork:
    """The network of a run before its first step."""
    return with_node(config, build(config, data, case.network), data, case.network)


def optimizer_of(config: RunConfig) -> Factory | None:
    """The optimiser of a run, for a look ahead; None for plain SGD."""
    if config.optimizer == "adam":
        return lambda parameters, lr: torch.optim.Adam(parameters, lr=lr)
    return partial(_momentum, config.momentum) if config.momentum else None


def noise_scales(case: Case, config: RunConfig, data: Dataset, ratios: Sequence[float]) -> list[float]:
    """sigma at which eta_1(sigma) = ratio * eta_1(0), for each ratio that some noise scale reaches."""
    drawn = Trials(
        start(case, config, data), data.x_train, data.y_train, loss=LOSSES[config.loss], batch_size=config.batch_size,
        generator=config.generator("thermometer"), trials=TRIALS, judges=JUDGES,
    )  # fmt: skip
    optimizer = optimizer_of(config)
    plain = Descent(drawn, (0.0,), optimizer=optimizer).critical_rate().rate

    def excess(sigma: float, eta: float) -> np.ndarray:
        return Descent(drawn, (sigma,), optimizer=optimizer).excess(eta)

    found = [first_crossing(partial(excess, eta=ratio * plain), 1.0, tolerance=0.1).at for ratio in ratios]
    return [float(f"{sigma:.2g}") for sigma in found if 0 < sigma < math.inf]


def predictions(case: Case, config: RunConfig, data: Dataset) -> dict[str, float]:
    """The onset in eta according to each candidate, NaN if it is not defined (kappa and sharpness for Adam)."""
    noisy, x, y, loss = start(case, config, data), data.x_train, data.y_train, LOSSES[config.loss]
    generator, ask = config.generator("thermometer"), {"loss": loss, "batch_size": config.batch_size}
    asked = [*((count, 1.0) for count in candidates.AHEAD), (1, SPIKE), *DIVERGENCES.values()]
    ahead = candidates.look_aheads(
        noisy, x, y, **ask, generator=generator, asked=asked, optimizer=optimizer_of(config), **SIZES
    )
    one = ahead[1, 1.0]
    row = {"sigma": config.sigma, "seed": config.seed} | dict.fromkeys(CANDIDATES, math.nan)
    row |= {"one_step": one.eta, "one_step_spike": ahead[1, SPIKE].eta}
    row |= {f"ahead_{count}": ahead[count, 1.0].eta for count in candidates.AHEAD[1:]}
    row |= {name: ahead[key].eta for name, key in DIVERGENCES.items()}
    row["one_step_error"] = one.stderr / one.eta / math.log(2) if one.eta else math.nan
    if config.optimizer == "adam":
        return row
    row["sharpness"] = candidates.noisy_sharpness(noisy, x, y, loss=loss, generator=generator, samples=PRODUCTS_ON).eta
    if config.sigma == 0:
        return row | dict.fromkeys(("kappa_H", "kappa_avg", "self_consistent"), math.inf)
    some = x[: config.eval_samples], y[: config.eval_samples]
    row["kappa_avg"] = candidates.averaged_curvature(noisy, x, y, **ask, generator=generator).eta
    row["kappa_H"] = candidates.local_curvature(noisy, *some, loss=loss).eta
    row["self_consistent"] = candidates.self_consistent(noisy, *some, loss=loss, generator=generator, pairs=8).eta
    return row


def _momentum(momentum: float, parameters: list[torch.Tensor], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def _outcomes(case: Case, predicted: pd.DataFrame, runs: Sequence[RunConfig], data: Dataset) -> pd.DataFrame:
    """Train over a grid around eta_1, which is extended until it brackets the onset."""
    centres = {key: _index(rate) for key, rate in predicted.set_index(["sigma", "seed"])["one_step"].items()}
    grids = {key: [centre + k for k in AROUND] for key, centre in centres.items()}
    seen = pd.DataFrame()
    for _ in range(ROUNDS + 1):
        asked = [run.replace(lr=_rate(k)) for run in runs for k in grids[run.sigma, run.seed]]
        seen = pd.concat([seen, outcomes_of(asked, data, case.network)], ignore_index=True)
        grids = {key: _further(seen[(seen["sigma"] == key[0]) & (seen["seed"] == key[1])]) for key in centres}
        if not any(grids.values()):
            break
    return seen


def _further(seen: pd.DataFrame) -> list[int]:
    """More points of the grid below the lowest one if all points spike, or above the highest one if none does."""
    border, points = find_border(seen["eta"], seen["spiked"]), [_index(eta) for eta in seen["eta"]]
    if not border.low:
        return [min(points) - k for k in range(1, FURTHER + 1)]
    return [max(points) + k for k in range(1, FURTHER + 1)] if border.high == math.inf else []


def outcomes_of(
    configs: Sequence[RunConfig], data: Dataset, network: Callable[[], torch.nn.Module] | None = None
) -> pd.DataFrame:
    """Train runs; one row for each: sigma, seed, eta, spiked, divergent, plain (whether SGD alone spikes), first.

    first: whether the run's own first step already raises the expected noisy loss by the limit of a spike.
    """
    groups = [configs]
    if configs and configs[0].optimizer == "adam":
        groups = [[config for config in configs if config.lr == lr] for lr in sorted({c.lr for c in configs})]
    rows = []
    for group in filter(None, groups):
        trained = train(group, data=data, network=network)
        for run, config in enumerate(group):
            found, loss = criteria(trained.table(run)), trained.curves["expected_loss"][:2, run]
            row = {"sigma": config.sigma, "seed": config.seed, "eta": config.lr, "spiked": found.spiked}
            row |= {"divergent": found.phase == "divergent", "plain": found.plain in ("spikes", "diverges")}
            rows.append(row | {"first": not loss[1] <= SPIKE * loss[0]})
    return pd.DataFrame(rows)


def _borders(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The measured borders for each sigma and seed."""
    plain = {seed: find_border(runs["eta"], runs["plain"]) for seed, runs in outcomes.groupby("seed")}
    rows = []
    for (sigma, seed), runs in outcomes.groupby(["sigma", "seed"]):
        onset, end, first = (find_border(runs["eta"], runs[name]) for name in ("spiked", "divergent", "first"))
        alone = plain[seed].low if math.isnan(plain[seed].at) else plain[seed].at
        row = {"sigma": sigma, "seed": seed, "own": sigma == 0 or alone * OWN < onset.at, "onset": onset.at}
        row |= {"onset_error": onset.error, "divergence": end.at, "first_step": first.at}
        rows.append(row | {"plain_onset": plain[seed].at})
    return pd.DataFrame(rows)


def _index(eta: float) -> int:
    return round(PER_OCTAVE * math.log2(eta))


def _rate(index: int) -> float:
    return 2.0 ** (index / PER_OCTAVE)

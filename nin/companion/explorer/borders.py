"""Borders of the phases in the plane of noise scale and learning rate, from the networks before training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float

from nin.model.data import load_data
from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.nodes import NoisyNetwork
from nin.phases import DECAYED, KAPPA_BOUNDS, PHASES
from nin.probes.prediction import CATAPULT, rates
from nin.support.threads import threads
from nin.training.config import DTYPES, RunConfig
from nin.training.start import build, with_node

SIGMA = (0.05, 300.0)  # the noise scales of the diagram, a little wider than the slider
SCALES = (4.0, 12.0, 30.0, 60.0, 120.0, 300.0)  # where eta_1 is measured; it hardly changes below the first
# The cost of half a second is that of searches on 4 trials for three seeds, whose median has an error of some 10 %; the
# seeds themselves differ by factors up to 3 (digits, width 64, batch 128).
TRIALS, JUDGES, TOLERANCE = 4, 64, 0.1
FINITE = (1e-9, 1e9)  # learning rates far outside the diagram, in place of 0 and inf


@dataclass(frozen=True, eq=False)
class Borders:
    """Learning rates at which the phases begin, as functions of sigma: straight lines between points in ln and ln.

    sigma  (n,), ascending
    rates  (n,) for each phase but "decoupled"
    plain  learning rate from which plain SGD is unstable by itself; inf if that was not measured
    """

    sigma: Float[np.ndarray, " n"]
    rates: Mapping[str, Float[np.ndarray, " n"]]
    plain: float = np.inf

    def rate(self, phase: str, sigma: float | Float[np.ndarray, " m"]) -> float | Float[np.ndarray, " m"]:
        """The learning rate at which a phase begins at this sigma; beyond the points, the last line goes on."""
        x, y, at = np.log(self.sigma), np.log(self.rates[phase]), np.log(sigma)
        line = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
        return np.exp(y[line] + (at - x[line]) * (y[line + 1] - y[line]) / (x[line + 1] - x[line]))

    def phase(self, sigma: float, lr: float) -> str:
        """The phase predicted for a run: the last one whose border lies at or below lr."""
        return next((phase for phase in reversed(PHASES[1:]) if lr >= self.rate(phase, sigma)), PHASES[0])

    def kappa(self, sigma: float | Float[np.ndarray, " m"], lr: float) -> float | Float[np.ndarray, " m"]:
        """kappa_1 = 2 lr / eta_1(sigma); in the linear net the paper's kappa_0 = eta sigma^2 (V + W)."""
        return 2 * lr / self.rate("catapult", sigma)

    def scale(self, kappa: float, lr: float) -> float:
        """The smallest sigma of the diagram with this kappa_1; the nearest end if no sigma has it."""
        sigma = np.geomspace(*SIGMA, 1000)
        reached = np.maximum.accumulate(self.kappa(sigma, lr))
        return float(np.exp(np.interp(np.log(kappa), np.log(reached), np.log(sigma))))


@lru_cache(maxsize=64)
def borders(configs: tuple[RunConfig, ...]) -> Borders:
    """The borders for runs that differ in their seeds, of the network that each begins with.

    Linear net: kappa_0 = eta sigma^2 (V + W) is 0.02, 2 and 4 (KAPPA_BOUNDS; NIN section 3.1), with the mean of V + W.
    Others, with the median over seeds: catapult from eta_1(sigma), divergence where a step raises L~ 2.5 times (as in
    `nin.predict`), and decay where the initial rate would take |W_NI| to 0.9 of its start by the last step.
    """
    noisy = [(config, with_node(config, build(config, _data(config)), _data(config))) for config in configs]
    if configs[0].network == "linear":
        lam = float(np.mean([linear_curvature(network) for _, network in noisy]))
        sigma = np.array(SIGMA)
        bounds = zip(PHASES[1:], KAPPA_BOUNDS.values(), strict=False)  # each phase begins where the one before ends
        return Borders(sigma, {phase: kappa / (lam * sigma**2) for phase, kappa in bounds})
    with threads(1):
        onsets, decays, ends = np.median([_measured(*one) for one in noisy], axis=0)  # (1 + scales,) each
    sigma = np.array([SIGMA[0], *SCALES])
    decays[0] = decays[1] * (sigma[0] / sigma[1]) ** 2  # weak noise decays as sigma^2
    onset = np.clip(CATAPULT.at * onsets, *FINITE)
    lost = np.clip(-np.log(DECAYED) / (configs[0].steps * np.clip(decays, 1e-12, None)), *FINITE)
    found = {
        "decay": np.minimum(lost, onset),
        "catapult": onset,
        "divergent": np.maximum(np.clip(ends, *FINITE), onset),
    }
    return Borders(sigma, found, plain=float(onset[0]))


def linear_curvature(noisy: NoisyNetwork) -> float:
    """V + W with V = |v|^2 / N, W = |w|^2 / N (NIN section 3.1)."""
    readout = noisy.network.layers[1].weight.detach()
    return readout.square().mean().item() + noisy.niw.detach().square().mean().item()


def _measured(config: RunConfig, noisy: NoisyNetwork) -> Float[np.ndarray, "3 scales"]:
    """eta_1, the rate of decay and the rate of divergence, without noise and at SCALES, on the same samples."""
    data = _data(config)
    found = rates(
        noisy, data.x_train, data.y_train, sigmas=(0.0, *SCALES), loss=LOSSES[config.loss],
        batch_size=config.batch_size, generator=torch.Generator().manual_seed(config.seed), trials=TRIALS,
        judges=JUDGES, tolerance=TOLERANCE,
    )  # fmt: skip
    return np.array([(critical.rate, critical.decay, end) for critical, end in found]).T


@cache
def _data_of(dataset: str, n_train: int | None, dtype: str) -> Dataset:
    return load_data(dataset, n_train=n_train).to(DTYPES[dtype])


def _data(config: RunConfig) -> Dataset:
    return _data_of(config.dataset, config.n_train, config.dtype)

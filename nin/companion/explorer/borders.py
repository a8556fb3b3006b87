"""Borders of the phases in the plane of noise scale and learning rate, from the networks before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtr

from nin import theory
from nin.model.data import load_data
from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.nodes import NoisyNetwork
from nin.phases import DECAYED, KAPPA_BOUNDS, PHASES
from nin.probes.prediction import CATAPULT, DIVERGENCE, SLOWING, rates
from nin.support.threads import threads
from nin.training.config import DTYPES, RunConfig
from nin.training.loop import train
from nin.training.start import build, with_node

SIGMA = (0.05, 300.0)  # the noise scales of the diagram, a little wider than the slider
SCALES = (4.0, 12.0, 30.0, 60.0, 120.0, 300.0)  # where eta_1 is measured; it hardly changes below the first
# The cost of half a second is that of searches on 4 trials for three seeds, whose median has an error of some 10 %; the
# seeds themselves differ by factors up to 3 (digits, width 64, batch 128).
TRIALS, JUDGES, TOLERANCE = 4, 64, 0.1
POINTS = 80  # of the borders
LOST = -np.log(DECAYED)  # of ln |W_NI| over a run, from which it is a decay
# Strong noise is unlearnt within some 20 steps, long before |W_NI| has followed its first rate: it stays at a size that
# depends neither on sigma nor on eta, up to about eta_1 / LATE. Both numbers are from digits of widths 16, 64 and 128:
# ln |W_NI| stops at -0.5, -0.11 and -0.05, where eta_1(sigma) is below that of plain SGD / STRONG.
LATE, STRONG = 4.0, 8.0
STOP_SIGMA, STOP_AT, STOP_STEPS = 100.0, 12.0, 40  # where that size is measured: eta_1 / STOP_AT
FINITE = (1e-9, 1e9)  # learning rates far outside the diagram, in place of 0 and inf


@dataclass(frozen=True, eq=False)
class Borders:
    """Learning rates at which the phases begin, as functions of sigma: straight lines between points in ln and ln.

    sigma    (n,), ascending
    rates    (n,) for each phase but "decoupled"
    scatter  factor by which the border of each phase differs between runs, one standard deviation
    plain    learning rate from which plain SGD is unstable by itself; inf if that was not measured
    stop     -ln of the part of |W_NI| at which it stays where strong noise is unlearnt; inf if it was not measured
    """

    sigma: Float[np.ndarray, " n"]
    rates: Mapping[str, Float[np.ndarray, " n"]]
    scatter: Mapping[str, float]
    plain: float = np.inf
    stop: float = np.inf

    def rate(self, phase: str, sigma: float | Float[np.ndarray, " m"]) -> float | Float[np.ndarray, " m"]:
        """The learning rate at which a phase begins at this sigma; beyond the points, the last line goes on."""
        x, y, at = np.log(self.sigma), np.log(self.rates[phase]), np.log(sigma)
        line = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
        return np.exp(y[line] + (at - x[line]) * (y[line + 1] - y[line]) / (x[line + 1] - x[line]))

    def own(self, sigma: float | Float[np.ndarray, " m"]) -> float | Float[np.ndarray, " m"]:
        """The learning rate from which a spike is plain SGD's own, and not the node's: 2 plain - that of the catapult.

        The rise of a step is as its excess over the onset, and a catapult's must be twice that without noise.
        """
        return np.maximum(2 * self.plain - self.rate("catapult", sigma), self.rate("catapult", sigma))

    def late(self, sigma: float | Float[np.ndarray, " m"]) -> float | Float[np.ndarray, " m"]:
        """The learning rate up to which |W_NI| stays where it stopped; 0 if that was not measured."""
        if not np.isfinite(self.stop):
            return 0 * self.rate("catapult", sigma)
        onset = self.rate("catapult", sigma)
        return onset / LATE * np.minimum(1, (self.plain / (STRONG * onset)) ** 2)

    def fade(self, sigma: float | Float[np.ndarray, " m"]) -> float | Float[np.ndarray, " m"]:
        """The learning rate from which |W_NI| decays: the first rate suffices, and it does not stop before."""
        first = self.rate("decay", sigma)
        return np.maximum(first, self.late(sigma)) if self.stop < LOST else first

    def stops(self, sigma: float, lr: float) -> bool:
        """Whether strong noise is unlearnt there while |W_NI| stays: its size says little about the noise."""
        return bool(self.rate("decay", sigma) < lr < self.late(sigma))

    def regions(
        self, sigma: float | Float[np.ndarray, " m"]
    ) -> list[tuple[str, float | Float[np.ndarray, " m"], float | Float[np.ndarray, " m"]]]:
        """Phases with the lowest and highest learning rate at this sigma; a phase can have two regions, or none.

        Above the catapult's may lie runs that spike by plain SGD alone and are told by their node: decoupled or decay.
        """
        fade, spike, end = self.fade(sigma), self.rate("catapult", sigma), self.rate("divergent", sigma)
        calm, own = np.minimum(fade, spike), np.minimum(self.own(sigma), end)
        again = np.clip(fade, own, end)
        nothing, everything = 0 * spike, np.inf * spike
        return [
            ("decoupled", nothing, calm),
            ("decay", calm, spike),
            ("catapult", spike, own),
            ("decoupled", own, again),
            ("decay", again, end),
            ("divergent", end, everything),
        ]

    def phase(self, sigma: float, lr: float) -> str:
        """The phase predicted for a run."""
        return next(phase for phase, low, high in self.regions(sigma) if low <= lr < high)

    def nearest(self, phase: str, sigma: float, lr: float) -> float | None:
        """The learning rate nearest to lr that is shaded by this phase at this sigma; None if none is."""
        spans = [(low, high) for name, low, high in self.regions(sigma) if name == phase and low < high]
        ends = [max(low, min(lr, high)) for low, high in spans]
        return min(ends, key=lambda end: abs(np.log(end / lr)), default=None)

    def probability(self, sigma: float, lr: float) -> dict[str, float]:
        """The probability of each phase, for log-normal errors of the borders (scatter)."""

        def beyond(border: float, scatter: float) -> float:
            return float(ndtr(np.log(lr / border) / np.log(scatter)))

        fade, spike, end = (beyond(self.rate(phase, sigma), self.scatter[phase]) for phase in PHASES[1:])
        late, slowing = self.late(sigma), self.scatter["decay"]
        if self.rate("decay", sigma) < late:
            fade *= max(beyond(late, slowing), float(ndtr(np.log(self.stop / LOST) / np.log(slowing))))
        end = min(spike, end)
        if np.isfinite(self.plain):
            spike *= 1 - beyond(self.own(sigma), self.scatter["catapult"]) * (1 - end)
        spike = max(spike - end, 0.0)
        calm = 1 - spike - end
        return dict(zip(PHASES, (calm * (1 - fade), calm * fade, spike, end), strict=True))

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

    Linear net: kappa_0 = eta sigma^2 (V + W) is 2 and 4 (KAPPA_BOUNDS; NIN section 3.1), with the mean of V + W, and
    kappa_0 steps = -ln 0.9 for decay; V + W scatters by 1 / sqrt N between networks, and <eps^2> between batches.
    Others, with the median over seeds: catapult from eta_1(sigma), divergence where a step raises L~ 2.5 times (as in
    `nin.predict`), and decay where the initial rate takes |W_NI| to 0.9 of its start by the last step, slowed as
    `_slowed` measures it; for strong noise see `Borders.fade`.
    """
    noisy = [(config, with_node(config, build(config, _data(config)), _data(config))) for config in configs]
    if configs[0].network == "linear":
        lam = float(np.mean([linear_curvature(network) for _, network in noisy]))
        moments = (theory.KURTOSIS[configs[0].law] - 1) / configs[0].batch_size  # variance of <eps^2> in a batch
        sigma, scatter = np.array(SIGMA), float(np.exp((1 / configs[0].widths[0] + moments) ** 0.5))
        kappas = {  # catapult and divergent begin where the phase before them ends
            "decay": LOST / configs[0].steps,
            "catapult": KAPPA_BOUNDS["decay"],
            "divergent": KAPPA_BOUNDS["catapult"],
        }
        return Borders(
            sigma, {phase: kappa / (lam * sigma**2) for phase, kappa in kappas.items()}, dict.fromkeys(kappas, scatter)
        )
    with threads(1):
        onsets, decays, ends = np.median([_measured(*one) for one in noisy], axis=0)  # (1 + scales,) each
    scales = np.array([SIGMA[0], *SCALES])
    decays[0] = decays[1] * (scales[0] / scales[1]) ** 2  # weak noise decays as sigma^2
    onset = np.clip(CATAPULT.at * onsets, *FINITE)
    lost = np.clip(LOST / (configs[0].steps * np.clip(decays, 1e-12, None)), *FINITE)
    sigma = np.union1d(np.geomspace(*SIGMA, POINTS), scales)
    onset, lost, end = (_between(scales, values, sigma) for values in (onset, lost, np.clip(ends, *FINITE)))
    limit = _slowed(configs, decays[1] / scales[1] ** 2, float(onset[0]))
    found = {
        "decay": np.where(lost < limit, lost / np.maximum(1 - lost / limit, 1e-12), FINITE[1]),
        "catapult": onset,
        "divergent": np.maximum(end, onset),
    }
    scatter = {"decay": SLOWING, "catapult": CATAPULT.scatter, "divergent": DIVERGENCE.scatter}
    stop = _stopped(configs, float(_between(sigma, onset, np.array([STOP_SIGMA]))[0]))
    return Borders(sigma, found, scatter, plain=float(onset[0]), stop=stop)


def _between(
    known: Float[np.ndarray, " k"], values: Float[np.ndarray, " k"], sigma: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Straight lines in ln and ln."""
    return np.exp(np.interp(np.log(sigma), np.log(known), np.log(values)))


def _slowed(configs: Sequence[RunConfig], decay: float, plain: float) -> float:
    """The learning rate eta_s by which the decay of a whole run saturates: -ln kept = D / (1 + eta / eta_s).

    D = eta decay sigma^2 steps, what the initial rate would take. The rate falls with the loss, the sooner the larger
    eta. Measured by runs of weak noise, with D = 1, at a quarter of the rate from which plain SGD is unstable.
    """
    lr = min(plain / 4, 1.0)
    sigma = float(np.clip((max(decay, 1e-12) * lr * configs[0].steps) ** -0.5, *SIGMA))
    runs = train([config.replace(sigma=sigma, lr=lr, eval_points=0, curvature_pairs=0) for config in configs])
    sizes = runs.curves["niw_norm"]  # (R, K)
    lost = -np.log(np.median(sizes[-1] / sizes[0])) / (decay * sigma**2 * lr * configs[0].steps)
    return float(lr / (1 / np.clip(lost, 1e-3, 0.999) - 1))


def _stopped(configs: Sequence[RunConfig], onset: float) -> float:
    """-ln of the part of |W_NI| that stays where strong noise is unlearnt: of short runs at STOP_SIGMA."""
    given = {"sigma": STOP_SIGMA, "lr": onset / STOP_AT, "steps": STOP_STEPS, "eval_points": 0, "curvature_pairs": 0}
    sizes = train([config.replace(**given) for config in configs]).curves["niw_norm"]
    lost = -np.log(np.median(sizes[-1] / sizes[0]))
    return float(np.clip(lost, 1e-3, 10)) if np.isfinite(lost) else np.inf


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

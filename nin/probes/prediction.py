"""The phase of a run before it is trained, and the noise scale at which a phase begins."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtr

from nin.model.nodes import NoisyNetwork
from nin.model.views import Forward, Inputs
from nin.phases import DECAYED as KEPT  # of |W_NI| at the end, below which a run has decayed
from nin.phases import PHASES
from nin.probes.curvature.critical import JUDGES, TRIALS, CriticalRate, Descent, NotFiniteError
from nin.probes.curvature.crossing import TOLERANCE, first_crossing
from nin.probes.curvature.trials import Loss, Sigmas, Trials
from nin.support.arguments import check_choice, check_count, check_number
from nin.support.randomness import kept_randomness


@dataclass(frozen=True)
class Border:
    """Where a phase begins: at * (the lr at which L~ rises to `rise` times its start), up to a factor `scatter`.

    scatter is one standard deviation between runs.
    """

    rise: float
    at: float
    scatter: float


# Medians over 201 runs (divergence: 89) where the node makes the catapult, of 30 networks, losses, optimisers, laws and
# sizes (`python -m benchmarks borders`). In the wide linear net a catapult begins at exactly 1, and divergence at a
# rise of 9 in one step.
CATAPULT = Border(rise=1.0, at=1.0, scatter=1.35)
DIVERGENCE = Border(rise=2.5, at=1.1, scatter=1.4)  # one step ahead
DIVERGENCE_AHEAD = Border(rise=10.0, at=1.1, scatter=1.2)  # several steps ahead: measured with ten
FINE, COARSE = 0.03, 0.1  # tolerances of eta_1 and of the rate of divergence, far below their scatter
SLOWING = 2.0  # factor of uncertainty of the decay over a run: its rate falls as the loss does
UNLIKELY = 0.05  # probability of a catapult or divergence below which plain SGD is not measured: it is stable too


@dataclass(frozen=True)
class NoiseScale:
    """The noise scale at which a phase begins, for fixed lr: sigma (by layer, for several), 0 or inf if at none.

    stderr  relative standard error of sigma from the samples and noise; the scatter of the border is not included
    """

    phase: str
    sigma: float | dict[str, float]
    stderr: float

    def __str__(self) -> str:
        values = self.sigma.items() if isinstance(self.sigma, dict) else [("sigma", self.sigma)]
        error = "" if math.isnan(self.stderr) else f" +- {100 * self.stderr:.0f} %"
        return f"{self.phase} from {', '.join(f'{name} = {value:.3g}' for name, value in values)}{error}"


@dataclass(frozen=True)
class Prediction:
    """What a run will do, from its network, data, loss, noise scale and learning rate before the first step.

    phase          the most probable one, in the sense of `nin.phases.classify`
    probability    of each phase, from the standard errors and the scatter of the borders
    critical       eta_1 and the rate of decay per unit of the learning rate
    divergence     lr from which runs diverge, and its standard error
    decay          fraction of |W_NI| that is lost per step at first, lr * critical.decay
    own            whether plain SGD is unstable at this learning rate by itself: without noise, too, a step raises the
                   expected loss. The phase is then not the node's doing
    sigma, lr, steps   of the run
    scales         where decay, catapult and divergence begin, if asked for
    """

    phase: str
    probability: dict[str, float]
    critical: CriticalRate
    divergence: tuple[float, float]
    decay: float
    own: bool
    sigma: float | dict[str, float]
    lr: float
    steps: int
    scales: tuple[NoiseScale, ...] = ()

    @property
    def kappa(self) -> float:
        """kappa_1 = 2 lr / eta_1: a catapult begins at 2."""
        return self.critical.kappa(self.lr)

    def __str__(self) -> str:
        """The prediction in a few lines."""
        others = [f"{phase} {p:.2f}" for phase, p in self.probability.items() if phase != self.phase and p >= 0.005]
        rate, error, end = self.critical.rate, self.critical.stderr, self.divergence[0]
        known = f"from about {2 * end / rate:.2g}" if 0 < rate < math.inf else f"from lr = {end:.2g}"
        lines = [
            f"{self.phase}, probability {self.probability[self.phase]:.2f}"
            + (f" ({', '.join(others)})" if others else ""),
            f"kappa_1 = 2 lr / eta_1 = {self.kappa:.3g} with eta_1 = {rate:.3g}"
            f"{'' if math.isnan(error) else f' +- {error:.2g}'}: catapult from "
            f"{2 * CATAPULT.at:g}, {f'divergence {known}' if end < math.inf else 'no divergence found'}",
            f"|W_NI| falls by {100 * self.decay:.2g} +- {100 * self.lr * self.critical.decay_stderr:.1g} % per step at "
            "first",
            f"plain SGD is {'UNSTABLE by itself' if self.own else 'stable'} at lr = {self.lr:g}",
        ]
        return "\n".join([*lines, *map(str, self.scales)])


def predict(
    noisy: NoisyNetwork,
    x: Inputs,
    y: Inputs,
    *,
    loss: Loss,
    lr: float,
    batch_size: int,
    steps: int,
    generator: torch.Generator,
    sigma: float | Sequence[float] | Mapping[str, float] | None = None,
    scales: bool = False,
    ahead: int = 1,
    trials: int = TRIALS,
    judges: int = JUDGES,
    chunk: int | None = None,
    forward: Forward | None = None,
) -> Prediction:
    """The phase of a run under plain SGD, predicted at its start: catapult for lr > eta_1, i.e. kappa_1 > 2.

    With eta_1 = `critical_rate`, whose arguments these are, eta_d, the rate at which a step raises L~ to 2.5 times its
    start, or several steps (`ahead`) to 10 times, and the decay rate d of |W_NI| per unit of learning rate:

        divergent   lr > eta_d                             catapult    eta_1 < lr < eta_d
        decay       lr < eta_1, lr d steps > -ln 0.9       decoupled   otherwise

    Probabilities are those of log-normal errors: of eta_1 and d (their standard errors), of the borders between runs
    (CATAPULT, DIVERGENCE) and, for decay, a factor SLOWING, because d falls as the loss does. In the wide linear net,
    where |W_NI| hardly moves, calm runs are decoupled, and kappa_1 is the rate at which the noise output decays.

    lr      learning rate; steps: length of the run
    sigma   noise scale in place of the network's own: one number, or one for each layer
    scales  also find the noise scales at which each phase begins (`noise_scale`), for some 150 training steps more
    ahead   training steps within which L~ may rise to its start; more than one costs as many times as much. 10 halves
            the error where the instability needs some steps to grow: W_NI far below its default size, tanh, and plain
            SGD by itself; and it predicts divergence to 20 % instead of 40 % (`python -m benchmarks borders`). Fewer
            than 5 see divergence too late
    The cost is that of 20 to 27 training steps (benchmarks/critical.py).
    Raises ValueError as `critical_rate` does, and for lr or steps out of range.
    """
    drawn = _draw(noisy, x, y, lr, steps, ahead, loss=loss, batch_size=batch_size, generator=generator,
                  trials=trials, judges=judges, chunk=chunk, forward=forward)  # fmt: skip
    sigmas = drawn.sigmas(sigma)
    with kept_randomness():
        descent, end = Descent(drawn, sigmas), _divergence(ahead)
        critical, risen = descent.critical_rate(FINE), descent.critical_rate(COARSE, end.rise)
        probability = _probabilities(critical, risen, end, lr, steps)
        own = (
            probability["catapult"] + probability["divergent"] > UNLIKELY
            and _mean(_at(drawn, sigmas, lambda plain: plain.excess(lr), 0.0)) > 0
        )
        found = tuple(_begin(phase, drawn, sigmas, lr, steps, end) for phase in PHASES[1:]) if scales else ()
    return Prediction(
        phase=max(probability, key=probability.get),
        probability=probability,
        critical=critical,
        divergence=(end.at * risen.rate, end.at * risen.stderr),
        decay=lr * critical.decay,
        own=bool(own),
        sigma=_by_layer(drawn, sigmas),
        lr=lr,
        steps=steps,
        scales=found,
    )


def rates(
    noisy: NoisyNetwork, x: Inputs, y: Inputs, *, sigmas: Sequence[float], tolerance: float = TOLERANCE, **drawing: Any
) -> list[tuple[CriticalRate, float]]:
    """At each noise scale `critical_rate` and the learning rate from which runs diverge, one step ahead (DIVERGENCE).

    Both come from the same passes, and all noise scales see the same samples and the same noise in units of sigma.
    drawing  loss, batch_size, generator, trials and judges of `critical_rate`
    Raises ValueError as `critical_rate` does.
    """
    drawn = Trials(noisy, x, y, **drawing)
    with kept_randomness():
        descents = [Descent(drawn, drawn.sigmas(sigma)) for sigma in sigmas]
        found = [(one.critical_rate(tolerance), one.critical_rate(tolerance, DIVERGENCE.rise)) for one in descents]
    return [(critical, DIVERGENCE.at * risen.rate) for critical, risen in found]


def noise_scale(
    phase: Literal["decay", "catapult", "divergent"],
    noisy: NoisyNetwork,
    x: Inputs,
    y: Inputs,
    *,
    loss: Loss,
    lr: float,
    batch_size: int,
    steps: int,
    generator: torch.Generator,
    sigma: float | Sequence[float] | Mapping[str, float] | None = None,
    ahead: int = 1,
    trials: int = TRIALS,
    judges: int = JUDGES,
    chunk: int | None = None,
    forward: Forward | None = None,
) -> NoiseScale:
    """The smallest sigma at which a phase begins at this learning rate: which sigma do I take?

        catapult   L~(theta_0 - lr g_B) = L~(theta_0), i.e. eta_1(sigma) = lr
        divergent  eta_d(sigma) = lr, as in `predict`      decay    lr d(sigma) steps = -ln 0.9

    All noise scales see the same samples and the same noise in units of sigma. The search begins at the network's own
    sigma (or the given one), goes down by factors of 16 while the condition holds there, then up by factors of 2, and
    refines the first crossing; a range of sigma narrower than a factor 2 can be missed. With several layers, their
    noise scales keep their ratios. sigma is 0 if plain SGD fulfils the condition by itself, and inf if no noise scale
    up to 2^20 times the first one does.
    Other arguments as in `predict`. Raises ValueError as `critical_rate` does, for sigma = 0, and another phase.
    """
    check_choice("phase", phase, PHASES[1:])
    drawn = _draw(noisy, x, y, lr, steps, ahead, loss=loss, batch_size=batch_size, generator=generator,
                  trials=trials, judges=judges, chunk=chunk, forward=forward)  # fmt: skip
    with kept_randomness():
        return _begin(phase, drawn, drawn.sigmas(sigma), lr, steps, _divergence(ahead))


def _draw(noisy: NoisyNetwork, x: Inputs, y: Inputs, lr: float, steps: int, ahead: int, **options: Any) -> Trials:
    """The samples and noise that a run's first `ahead` steps are tried on; ValueError for numbers out of range."""
    check_number("lr", lr, exclusive=True)
    check_count("steps", steps)
    check_count("ahead", ahead)
    return Trials(noisy, x, y, steps=ahead, **options)


def _divergence(ahead: int) -> Border:
    return DIVERGENCE if ahead == 1 else DIVERGENCE_AHEAD


def _probabilities(critical: CriticalRate, risen: CriticalRate, end: Border, lr: float, steps: int) -> dict[str, float]:
    """The probability of each phase, in the order of PHASES."""

    def above(value: float, error: float, limit: float, scatter: float) -> float:
        """The probability that a positive value of this relative error lies above the limit, up to a scatter."""
        if not 0 < value < math.inf:
            return float(value > 0)
        error = 0.0 if math.isnan(error) else error / value
        return float(ndtr(math.log(value / limit) / math.hypot(error, math.log(scatter))))

    spike = 1 - above(critical.rate, critical.stderr, lr / CATAPULT.at, CATAPULT.scatter)
    blow_up = min(spike, 1 - above(risen.rate, risen.stderr, lr / end.at, end.scatter))
    lost, error = lr * steps * critical.decay, lr * steps * critical.decay_stderr
    fade = above(lost, error, -math.log(KEPT), SLOWING)
    return dict(zip(PHASES, ((1 - spike) * (1 - fade), (1 - spike) * fade, spike - blow_up, blow_up), strict=True))


def _begin(phase: str, drawn: Trials, sigmas: Sigmas, lr: float, steps: int, end: Border) -> NoiseScale:
    """Where a phase begins along the ray of noise scales through `sigmas`."""
    if not any(sigmas):
        raise ValueError(f"sigma={sigmas} is zero in every layer; give a positive one, where the search begins.")
    if phase == "decay":
        curve = partial(_at, drawn, sigmas, lambda descent: lr * steps * descent.decays + math.log(KEPT))
        if np.isnan(curve(1.0)).any():  # W_NI = 0 has no rate of decay
            return NoiseScale(phase, _by_layer(drawn, _times(math.nan, sigmas)), math.nan)
    else:
        border = CATAPULT if phase == "catapult" else end
        curve = partial(_at, drawn, sigmas, lambda descent: descent.excess(lr / border.at, border.rise))
        if _mean(curve(0.0)) > 0:
            return NoiseScale(phase, _by_layer(drawn, _times(0.0, sigmas)), math.nan)
    crossing = first_crossing(curve, 1.0)
    relative = crossing.stderr / crossing.at if crossing.at else math.nan
    return NoiseScale(phase, _by_layer(drawn, _times(crossing.at, sigmas)), relative)


def _at(
    drawn: Trials, sigmas: Sigmas, measure: Callable[[Descent], Float[np.ndarray, " K"]], factor: float
) -> Float[np.ndarray, " K"]:
    """What the trials measure at a multiple of the noise scales; inf if the loss is not finite before any step."""
    try:
        return measure(Descent(drawn, _times(factor, sigmas)))
    except NotFiniteError:
        return np.full(len(drawn.trials), np.inf)


def _times(factor: float, sigmas: Sigmas) -> Sigmas:
    return tuple(factor * value if value else 0.0 for value in sigmas)


def _by_layer(drawn: Trials, sigmas: Sigmas) -> float | dict[str, float]:
    return sigmas[0] if len(sigmas) == 1 else dict(zip(drawn.network.layers, sigmas, strict=True))


def _mean(parts: Float[np.ndarray, " K"]) -> float:
    """The mean; inf if it is not finite."""
    return float(parts.mean()) if np.isfinite(parts).all() else math.inf

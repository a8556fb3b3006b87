"""The one-step critical learning rate of a noisy network: the control number of its phases, before any training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from nin.model.nodes import NoisyNetwork
from nin.model.views import Forward, Inputs
from nin.probes.curvature.crossing import TOLERANCE, first_crossing
from nin.probes.curvature.trials import Gradient, Loss, Samples, Sigmas, Trial, Trials
from nin.support.arguments import check_choice, check_function, check_number, described
from nin.support.precision import widened
from nin.support.randomness import kept_randomness

TRIALS, JUDGES = 4, 32  # a standard error of 15 to 25 %, near the scatter of the onset itself: benchmarks/critical.py

Factory = Callable[[list[Tensor], float], torch.optim.Optimizer]


class NotFiniteError(ValueError):
    """Raised for a noisy loss that is not finite before any step."""


@dataclass(frozen=True)
class CriticalRate:
    """The critical learning rate eta_1 of a noisy network, and what the same passes give.

    rate           eta_1, in the units of the learning rate: lr >= eta_1 raises the expected noisy loss. inf if no
                   learning rate searched does; 0 if every one does (at a minimum, or if the batch noise dominates)
    stderr         its standard error over the trials (NaN if rate is 0 or inf)
    initial_loss   L~(theta_0), the expected noisy loss at the start
    decay          -d ln|W_NI| / d eta at the start: the first step multiplies |W_NI| by 1 - lr decay, in the mean over
                   the noise. 0 if W_NI is frozen, NaN for W_NI = 0
    decay_stderr   its standard error
    trials         number of independent trials
    """

    rate: float
    stderr: float
    initial_loss: float
    decay: float
    decay_stderr: float
    trials: int

    def kappa(self, lr: float) -> float:
        """kappa_1 = 2 lr / eta_1: the control number kappa of the wide linear net, for any network."""
        check_number("lr", lr, exclusive=True)
        return 2 * lr / self.rate if self.rate else float("inf")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of eta_1, by Student's t in ln eta_1; (NaN, NaN) without a standard error."""
        factor = float(np.exp(stdtrit(self.trials - 1, 0.975) * self.stderr / self.rate)) if self.rate else np.nan
        return self.rate / factor, self.rate * factor


def critical_rate(
    noisy: NoisyNetwork,
    x: Inputs,
    y: Inputs,
    *,
    loss: Loss,
    batch_size: int,
    generator: torch.Generator,
    sigma: float | Sequence[float] | Mapping[str, float] | None = None,
    steps: int = 1,
    optimizer: Factory | None = None,
    judged: Literal["any", "last"] = "any",
    rise: float = 1.0,
    trials: int = TRIALS,
    judges: int = JUDGES,
    chunk: int | None = None,
    tolerance: float = TOLERANCE,
    forward: Forward | None = None,
) -> CriticalRate:
    """eta_1 = the smallest eta at which one SGD step no longer lowers the expected noisy loss, before it is taken:

        L~(theta) = E_(x,eps) ell(f(x; theta, eps), y),    eta_1 = min{eta: E_B L~(theta_0 - eta g_B) >= L~(theta_0)}

    g_B is the gradient on a batch B with noise. For a quadratic loss along its steepest mode, and in the wide linear
    net, eta_1 = 2 / lambda, so that kappa_1 = 2 lr / eta_1 is the paper's kappa; a catapult begins near kappa_1 = 2.

    x, y        tensors with one row for each sample, or sequences or mappings: noisy(x), noisy(*x), noisy(**x)
    loss        loss(outputs, y) -> the mean or the per-sample losses
    forward     forward(noisy, x) -> outputs, in place of noisy(x), such as lambda noisy, x: noisy(**x).logits
    batch_size  |B|, samples per training step
    generator   a CPU generator of batches, judges and noise; its state fixes the result
    sigma       noise scale in place of the network's own: one number, or one for each layer; 0 gives plain SGD's eta_1
    steps       k > 1 looks k steps ahead, on fresh batches and noise
    optimizer   (parameters, lr) -> a torch optimiser, for example lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9);
                None: plain SGD
    judged      "any": L~ after any of the k steps reaches its start, as a spike does; "last": after the k-th. In a
                quadratic loss, SGD with any momentum m spikes from eta lambda = 2 but recovers up to 2 (1 + m), which
                "last" approaches at large k
    rise        L~ counts as risen from `rise` times its start: 1 for eta_1; 10 within ten steps is a divergence
                (`python -m benchmarks borders`)
    trials      independent batches (or runs of k batches); judges: samples, each with +-eps, that judge each of them.
                The defaults give a standard error of 15 to 25 % on the digits for some 15 training steps
                (benchmarks/critical.py), near the scatter of the onset itself between runs
    chunk       samples per pass (None: all of a trial at once), which bounds the memory; it changes only the rounding
    tolerance   relative, of the search for the crossing

    Judges are not in the batches of their trial unless x has too few samples (`Trials`), so that eta_1 tends to 0 where
    a step on a batch does not help other samples, as with random labels. All learning rates see the
    same samples and noise, so that the loss is a smooth function of eta, and the first crossing of a scan by factors of
    2 is refined by Brent's method (`first_crossing`); a rise over less than a factor 2 in eta can be missed. The scan
    covers 2^-20 to 2^20 times L~ / |g_B|^2, the rate at which a linear fall would reach zero loss.
    The network is measured without dropout; a batch norm in training mode uses the statistics of each batch, in eval
    mode its running ones (`Trials`). Parameters, frozen ones among them, gradients, buffers, modes, the node's
    generator and torch's random state do not change.
    Source: our own control number; for kappa, arXiv 2210.13599 and reference NIN section 3.
    Raises ValueError for empty x, a batch_size larger than the data, a loss of the wrong shape or not finite at the
    start, a chunk with a loss that is not a mean over samples, no trainable parameter, a gradient that is zero in every
    batch, a negative loss with rise > 1, and numbers out of range.
    """
    options = {"loss": loss, "batch_size": batch_size, "generator": generator, "optimizer": optimizer, "judged": judged}
    options["rise"] = rise
    drawing = {"trials": trials, "judges": judges, "steps": steps, "chunk": chunk, "forward": forward}
    (found,) = critical_rates(noisy, x, y, sigmas=[sigma], **options, tolerance=tolerance, **drawing)
    return found


def critical_rates(
    noisy: NoisyNetwork,
    x: Inputs,
    y: Inputs,
    *,
    sigmas: Sequence[float | Sequence[float] | Mapping[str, float] | None],
    loss: Loss,
    batch_size: int,
    generator: torch.Generator,
    optimizer: Factory | None = None,
    judged: Literal["any", "last"] = "any",
    rise: float = 1.0,
    tolerance: float = TOLERANCE,
    trials: int = TRIALS,
    judges: int = JUDGES,
    steps: int = 1,
    chunk: int | None = None,
    forward: Forward | None = None,
) -> list[CriticalRate]:
    """`critical_rate` at each of several noise scales, on the same samples and the same noise in units of sigma."""
    check_choice("judged", judged, ("any", "last"))
    check_number("tolerance", tolerance, exclusive=True)
    check_number("rise", rise, minimum=1.0)
    if optimizer is not None:
        check_function("optimizer", optimizer, "(parameters, lr) -> torch.optim.Optimizer")
    if not isinstance(sigmas, Sequence):
        raise ValueError(f"{described('sigmas', sigmas)} must be a sequence of noise scales.")
    drawn = Trials(
        noisy, x, y, loss=loss, batch_size=batch_size, generator=generator,
        trials=trials, judges=judges, steps=steps, chunk=chunk, forward=forward,
    )  # fmt: skip
    with kept_randomness():
        descents = (Descent(drawn, drawn.sigmas(sigma), optimizer=optimizer, judged=judged) for sigma in sigmas)
        return [descent.critical_rate(tolerance, rise) for descent in descents]


class Descent:
    """The first steps of all trials at one noise scale, for any learning rate."""

    def __init__(
        self, trials: Trials, sigmas: Sigmas, *, optimizer: Factory | None = None, judged: str = "any"
    ) -> None:
        self.trials, self.sigmas, self.optimizer, self.judged = trials, sigmas, optimizer, judged
        trials.restart()
        weights = {name: w for name, w in trials.start.items() if name.split(".")[0] == "niw"}
        self.judges = [trial.judging(sigmas) for trial in trials.trials]
        at_start = [trials.gradient(judges, sigmas, weights if any(sigmas) else ()) for judges in self.judges]
        self.initial = np.array([loss for loss, _ in at_start])  # (K,)
        if not np.isfinite(self.initial).all():
            raise NotFiniteError(f"the noisy loss is not finite at the start; lower sigma={sigmas} or niw_std.")
        pulls = np.array([sum((weights[name] * g).sum().item() for name, g in pull.items()) for _, pull in at_start])
        square = sum(widened(w).square().sum().item() for w in weights.values())
        self.decays = pulls / (square or np.nan) if weights else pulls  # (K,)
        self._seen: dict[float, np.ndarray] = {}

    @cached_property
    def gradients(self) -> list[Gradient]:
        """The gradient of the first batch of each trial."""
        self.trials.restart()
        return [self.trials.gradient(trial.batches[0], self.sigmas)[1] for trial in self.trials.trials]

    def excess(self, eta: float, rise: float = 1.0) -> Float[np.ndarray, " K"]:
        """L~ after the steps minus `rise` times L~ before them, in each trial; of the worst step if any is judged.

        ValueError for a loss below zero at the start, of which a multiple is not a rise.
        """
        if rise > 1 and self.initial.mean() < 0:
            raise ValueError(
                f"the noisy loss is {self.initial.mean():.3g} at the start; a rise to {rise:g} times it needs a loss "
                "that is not negative: add a constant to the loss."
            )
        losses = self.losses(eta)
        with np.errstate(over="ignore", invalid="ignore"):  # of a run that blows up
            worst = losses.mean(0).argmax() if self.judged == "any" else -1
            return losses[:, worst] - rise * self.initial

    def losses(self, eta: float) -> Float[np.ndarray, "K steps"]:
        """L~ in each trial after each step that is judged."""
        if eta not in self._seen:
            paths = zip(self.trials.trials, self.judges, self.gradients, strict=True)
            self._seen[eta] = np.array([self._losses(*path, eta) for path in paths])
        return self._seen[eta]

    def critical_rate(self, tolerance: float = TOLERANCE, rise: float = 1.0) -> CriticalRate:
        """Where `excess` first reaches zero."""
        crossing = first_crossing(partial(self.excess, rise=rise), self.scale(), tolerance=tolerance)
        return CriticalRate(
            rate=crossing.at,
            stderr=crossing.stderr,
            initial_loss=float(self.initial.mean()),
            decay=float(self.decays.mean()),
            decay_stderr=float(self.decays.std(ddof=1) / np.sqrt(len(self.decays))),
            trials=len(self.initial),
        )

    def scale(self) -> float:
        """L~ / (g . dtheta/deta), the learning rate at which a linear fall of the loss would reach zero."""
        start, now, fall = self.trials.start, self.trials.parameters, 0.0
        for trial, gradient in zip(self.trials.trials, self.gradients, strict=True):
            if self.optimizer:
                next(self._steps(trial, gradient, 1.0))
            moved = {name: start[name] - now[name].detach() if self.optimizer else g for name, g in gradient.items()}
            fall += sum((g * moved[name]).sum().item() for name, g in gradient.items())
        if not np.isfinite(fall):
            raise ValueError(f"the gradient is not finite at sigma={self.sigmas}; lower sigma, or scale the loss.")
        if not fall:
            raise ValueError("the gradient is zero in every batch, so that no step changes the network.")
        return (abs(self.initial.mean()) or 1.0) * len(self.initial) / abs(fall)

    def _losses(self, trial: Trial, judges: Samples, gradient: Gradient, eta: float) -> list[float]:
        """L~ on the judges of a trial after each step that counts."""
        counts = range(len(trial.batches))[-1 if self.judged == "last" else 0 :]
        return [
            self.trials.mean_loss(judges, self.sigmas) for step in self._steps(trial, gradient, eta) if step in counts
        ]

    def _steps(self, trial: Trial, gradient: Gradient, eta: float) -> Iterator[int]:
        """Take the steps of a trial from the start, whose gradient is known; yield the number of each once taken."""
        self.trials.restart()
        parameters = self.trials.parameters
        optimizer = self.optimizer(list(parameters.values()), eta) if self.optimizer else None
        for step, batch in enumerate(trial.batches):
            if step:
                gradient = self.trials.gradient(batch, self.sigmas)[1]
            with torch.no_grad():
                for name, parameter in parameters.items():
                    if optimizer:
                        parameter.grad = gradient.get(name)
                    elif name in gradient:
                        parameter.sub_(gradient[name], alpha=eta)
                if optimizer:
                    optimizer.step()
            yield step

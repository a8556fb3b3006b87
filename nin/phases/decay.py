"""Decay times of the curves of a run."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit, stdtrit

from nin.phases.curves import check_steps, numbers
from nin.phases.exponential import curve, fastest, fit, fit_break, guess
from nin.phases.residuals import correlated, robust_weights, running_median, spread

Array = Float[np.ndarray, " n"]
FLOOR, RATES = 6.63, 10.83  # chi^2 of one degree of freedom at 1 % and 0.1 %, for twice a log-likelihood ratio


@dataclass(frozen=True)
class DecayFit:
    """The fit |values| = amplitude exp(-(step - window[0]) / tau) + floor within a window of steps.

    tau, stderr   decay time and its standard error, in steps; tau = inf and NaN for the rest if nothing decays
    r2            fraction of the variance of the log that the fit explains
    window        first and last step of the fit
    early, late   tau before and after a break at 1/4, 1/2 or 3/4 of the fall (in the log), whichever fits best, above
                  the same floor; several rates make them differ
    low, high     95 % interval of tau
    amplitude, floor  of the fit, in units of the values; floor is 0 unless the curve requires one
    length        correlation length of the residuals, in steps
    gain          twice the log-likelihood ratio of the two rates over the one
    """

    tau: float
    stderr: float = np.nan
    r2: float = np.nan
    window: tuple[float, float] = (np.nan, np.nan)
    early: float = np.inf
    late: float = np.inf
    low: float = np.nan
    high: float = np.nan
    amplitude: float = np.nan
    floor: float = np.nan
    length: float = np.nan
    gain: float = np.nan

    @property
    def several_rates(self) -> bool:
        """Whether early and late differ by more than 1.5x, significantly (0.1 %): one tau is a poor description."""
        return self.gain > RATES and not 1 / 1.5 < self.late / self.early < 1.5


NO_DECAY = DecayFit(np.inf)


def fit_decay(steps: ArrayLike, values: ArrayLike) -> DecayFit:
    """Robust least squares of ln|values| = ln(A exp(-step / tau) + c), c >= 0, with errors for correlated residuals.

    The window opens at the first value within 3 scatters of the maximum of |values| and closes at the last one within
    2 scatters of the minimum after it, which excludes growth before and after. Values of 0, NaN or inf are left out.
    Floor: c = 0 unless a likelihood ratio requires a floor, at 1 %.
    Errors: the residuals of the log have the covariance s^2 exp(-|t - t'| / length) (`residuals.correlated`).
    Interval: Student's t, in ln tau with a floor, in 1 / tau without; then low extends to the smallest tau that fits
    as well with a floor, because a curve that has not finished its fall does not determine both.
    No decay, tau = inf: fewer than 5 points, a fall below 1 % or below 3 scatters, or a tau below 3 standard errors
    unless two rates fit significantly better, since their misfit then dominates the standard error.
    `python -m benchmarks decay` prints bias and coverage.
    Raises ValueError for arrays of different shapes, steps that do not increase from 0 on, what is not numbers, and
    values that are all zero, NaN or infinite.
    """
    x, y = _logs(steps, values)
    inside, rough = _window(x, y)
    x, y = x[inside], y[inside]
    if rough is None or len(x) < 5:
        return NO_DECAY
    window, x = (float(x[0]), float(x[-1])), x - x[0]
    knee, two = fit_break(x, y, rough)
    weights = robust_weights(y - curve(two, x, knee)[0])  # of two rates: the misfit of one is not an outlier
    fits = [fit(x, y, p, weights) for p in (np.append(rough[:2], -np.inf), rough)]
    found = [correlated(x, y - line, slope, weights) for line, slope in (curve(p, x) for p in fits)]
    floored = 2 * (found[1].likelihood - found[0].likelihood) > FLOOR
    p, errors = fits[floored], found[floored]
    (start, rate, floor), fitted = p, curve(p, x)[0]
    if fitted[0] - fitted[-1] < max(0.01, 3 * np.sqrt(np.mean(np.square(weights * (y - fitted))))):
        return NO_DECAY
    two = fit(x, y, np.array([*two[:2], two[2] if floored else -np.inf, two[3]]), weights, knee)
    broken, slope = curve(two, x, knee)
    gain = 2 * (correlated(x, y - broken, slope, weights).likelihood - errors.likelihood)
    relative = np.sqrt(errors.covariance[1, 1]) / rate
    if not relative < 1 / 3 and gain < RATES:
        return NO_DECAY
    half = stdtrit(len(x) - 2 - floored, 0.975) * relative
    low, high = (np.exp(-half), np.exp(half)) if floored else (1 / (1 + half), 1 / (1 - half) if half < 1 else np.inf)
    if not floored:
        low = min(low, rate / fastest(x, y, weights, p, errors.inflation[1]))
    return DecayFit(
        tau=float(1 / rate),
        stderr=float(relative / rate),
        r2=float(1 - np.square(y - fitted).sum() / np.square(y - y.mean()).sum()),
        window=window,
        early=float(1 / two[1]) if two[1] > 0 else np.inf,
        late=float(1 / two[3]) if two[3] > 0 else np.inf,
        low=float(low / rate),
        high=float(high / rate),
        amplitude=float(np.exp(start) * expit(-floor)),
        floor=float(np.exp(start) * expit(floor)),
        length=errors.length,
        gain=float(gain),
    )


def _logs(steps: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """The steps and ln|values|, without values that are 0 or not finite."""
    steps, values = numbers("steps", steps), np.abs(numbers("values", values))
    if steps.shape != values.shape or steps.ndim != 1:
        raise ValueError(f"steps {steps.shape} and values {values.shape} must be one-dimensional and of equal length.")
    if not len(values):
        raise ValueError("values is empty: nothing to fit; pass a curve that was measured.")
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        raise ValueError("values has no finite number other than 0: nothing to fit; pass a curve that was measured.")
    check_steps("steps", steps[good])
    return steps[good], np.log(values[good])


def _window(x: Array, y: Array) -> tuple[slice, np.ndarray | None]:
    """The window, and a first fit from the maximum to the minimum after it; None if they are too close."""
    smooth, peak = running_median(y), int(np.argmax(y))
    end = peak + int(np.argmin(smooth[peak:])) + 1
    fall = slice(peak, end if end - peak >= 5 else len(y))
    if len(y) - peak < 5:
        return fall, None
    rough = fit(x[fall] - x[peak], y[fall], guess(x[fall] - x[peak], y[fall]), tolerance=1e-4)
    residual = y[fall] - curve(rough, x[fall] - x[peak])[0]
    scatter = max(spread(residual), spread(np.diff(y, 2)) / 6**0.5)  # second differences of white noise
    last = len(y) - int(np.argmax(y[::-1] <= smooth[peak:].min() + 2 * scatter))
    return slice(int(np.argmax(y >= y[peak] - 3 * scatter)), last), rough

"""Decay times of the curves of a run."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class DecayFit:
    """An exponential fit values ~ exp(-step / tau) within a window of steps.

    tau, stderr   decay time and its standard error, in steps; tau = inf if nothing decays
    r2            fraction of the variance of the log that the line explains
    window        first and last step of the fit
    early, late   tau of the first and the second half of the fall (in the log); several rates make them differ
    """

    tau: float
    stderr: float
    r2: float
    window: tuple[float, float]
    early: float
    late: float

    @property
    def several_rates(self) -> bool:
        """Whether the two halves of the fall differ by more than 1.5x, so that one tau describes the curve poorly."""
        return not (1 / 1.5 < self.late / self.early < 1.5) if np.isfinite([self.early, self.late]).all() else True


NO_DECAY = DecayFit(np.inf, np.nan, np.nan, (np.nan, np.nan), np.inf, np.inf)


def fit_decay(steps: ArrayLike, values: ArrayLike) -> DecayFit:
    """Least squares of ln|values| = const - step / tau in the decaying window.

    The window opens at the maximum of |values| and closes where the curve has made 95 % of its fall (in the log)
    to its lowest point, which excludes growth before and a plateau afterwards. NaN values are left out.
    Fewer than 3 points, or a fall of less than 1 %, do not count as decay: tau = inf.
    Raises ValueError for arrays of different shapes, or values that are all zero or NaN.
    """
    steps, values = np.asarray(steps, dtype=float), np.abs(np.asarray(values, dtype=float))
    if steps.shape != values.shape or steps.ndim != 1:
        raise ValueError(f"steps {steps.shape} and values {values.shape} must be one-dimensional and of equal length.")
    good = np.isfinite(values) & (values > 0) & np.isfinite(steps)
    if not good.any():
        raise ValueError("values has no finite number other than 0: nothing to fit; pass a curve that was measured.")
    steps, logs = steps[good], np.log(values[good])
    start = int(np.argmax(logs))
    steps, logs = steps[start:], logs[start:]
    fall = logs[0] - logs.min()
    if fall < 0.01:
        return NO_DECAY
    end = int(np.argmax(logs <= logs[0] - 0.95 * fall)) + 1
    if end < 3:
        return NO_DECAY
    steps, logs = steps[:end], logs[:end]
    middle = max(2, int(np.argmax(logs <= logs[0] - 0.475 * fall)) + 1)
    slope, stderr, r2 = _line(steps, logs)
    return DecayFit(
        tau=-1 / slope if slope < 0 else np.inf,
        stderr=stderr / slope**2,
        r2=r2,
        window=(float(steps[0]), float(steps[-1])),
        early=_tau(steps[:middle], logs[:middle]),
        late=_tau(steps[middle - 1 :], logs[middle - 1 :]),
    )


def _tau(steps: Float[np.ndarray, " n"], logs: Float[np.ndarray, " n"]) -> float:
    if len(steps) < 2:
        return np.inf
    slope = _line(steps, logs)[0]
    return -1 / slope if slope < 0 else np.inf


def _line(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Slope, its standard error and R^2 of the least-squares line."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    residual = float(np.square(dy - slope * dx).sum())
    stderr = np.sqrt(residual / (len(x) - 2) / (dx @ dx)) if len(x) > 2 else np.nan
    return slope, float(stderr), 1 - residual / float(dy @ dy)

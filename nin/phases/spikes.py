"""How high the noisy loss rises above its start within the spike window, and how sure that is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from nin.phases.residuals import spread

AVERAGED = (1, 2, 4, 8)  # numbers of successive batch losses over which a spike is looked for
FEWEST = 4  # differences of batch losses from which their scatter can be estimated


@dataclass(frozen=True)
class Spike:
    """The highest noisy loss after the first step over the initial one, and the standard error of this ratio.

    ratio   inf if the loss overflows, NaN if it was not recorded again within the window
    stderr  NaN if it is not known
    """

    ratio: float
    stderr: float


def expected_spike(
    steps: Shaped[np.ndarray, " n"], loss: Float[np.ndarray, " n"], stderr: Float[np.ndarray, " n"], *, window: float
) -> Spike:
    """The spike of an expected noisy loss, on samples and noise that never change.

    loss    (n,) NaN where it was not measured
    stderr  (n,) standard error of loss / loss[0]
    window  steps in which a spike counts
    """
    there = ~np.isnan(loss) & (steps <= steps[0] + window)
    loss, stderr = loss[there], stderr[there]
    if len(loss) < 2:
        return Spike(np.nan, np.nan)
    if not np.isfinite(loss).all():
        return Spike(np.inf, np.nan)
    if loss[0] == 0:  # as of plain training without a signal
        return Spike(np.inf if loss.any() else 1.0, 0.0)
    peak = 1 + int(np.argmax(loss[1:]))
    return Spike(float(loss[peak] / loss[0]), float(stderr[peak]))


def batch_spike(steps: Shaped[np.ndarray, " n"], loss: Float[np.ndarray, " n"], *, window: float) -> Spike:
    """The spike of a mini-batch loss, which scatters from batch to batch.

    The relative scatter s is 1.4826 MAD / sqrt 2 of the differences of ln loss between successive records: a trend of
    many steps cancels, and the few steps of a spike do not count. A spike is looked for in means of k = 1, 2, 4 and 8
    successive values of ln loss, whose ratio to the single first value has the standard error s sqrt(1 + 1/k); the
    result is the mean that lies the most standard errors above the start.
    """
    inside = steps <= steps[0] + window
    if not np.isfinite(loss[inside]).all():
        return Spike(np.inf, np.nan)
    if inside.sum() < 2:
        return Spike(np.nan, np.nan)
    logs = np.log(np.maximum(loss, np.finfo(float).tiny))
    changes = np.diff(logs[inside] if inside.sum() > FEWEST else logs[np.isfinite(loss)])
    early = logs[inside]
    if len(changes) < FEWEST:
        return Spike(float(np.exp(early[1:].max() - early[0])), np.nan)
    scatter = max(spread(changes) / np.sqrt(2), np.finfo(float).eps)
    found = []
    for k in [k for k in AVERAGED if k < len(early)]:
        rise = np.convolve(early[1:], np.ones(k) / k, "valid").max() - early[0]
        error = scatter * np.sqrt(1 + 1 / k)
        found.append((rise / error, np.exp(rise), error))
    _, ratio, error = max(found)
    return Spike(float(ratio), float(ratio * error))

"""Averages of noisy readings over several memories, and the longest that shorter ones do not contradict."""

import numpy as np
from jaxtyping import Float

TREND_FROM = 4  # memory from which a trend is corrected: below it the correction adds more noise than it removes
LIMIT, JUMP = 4.0, 12.0  # standard deviations of a chi-square, above its mean: averages contradict, a reading jumps
TINY = 1e-300  # in place of 0 in denominators: a dead network has no curvature
NOISE_MEMORY, EXCESS_MEMORY = 5, 8  # readings over which the noise and the excess of the innovations are averaged


class Ladder:
    """Running averages of M numbers over 1, 2, 4, ... and `memory` readings, and the choice between them.

    Each average is a += w (reading - a), w = max(1/n, 1/m) after n readings. From a memory of TREND_FROM readings on,
    the sum of the M numbers has its lag corrected by the average b of the average, a^2 / b, which is exact for an
    exponential in time (2a - b, exact for a line, would be too low by (lag / a)^2 there). The scatter between groups
    of a reading gives its noise, and that the covariance of all a and b, exactly, by their linear recursion. A shorter
    average contradicts a longer one if their squared difference, in units of the variance of the shorter one and
    averaged over M numbers, exceeds 1 by more than LIMIT sqrt(2 / M), for the sum (M = 1) or for the M numbers relative
    to it. `choose` takes the longest average that no shorter one contradicts (the rule of Lepski); JUMP instead of
    LIMIT, between the last reading and the average of two, makes a jump.

    The constants were chosen on runs like those of benchmarks/thermometer.py (digits, seeds 2 to 4, read every 4 and
    every 8 steps) and on three catapults like that of notebook 04; the errors on those are therefore optimistic.
    Source: Lepski, Theory Probab. Appl. 35 (1991) 454.

    memory    longest memory, in readings
    count     M
    """

    def __init__(self, memory: int, count: int) -> None:
        powers = [1 << k for k in range(memory.bit_length()) if 1 << k < memory]
        self.memories = np.array([*powers, memory])  # (rungs,)
        self._lagging = (self.memories >= TREND_FROM).astype(float)
        self._excess, self._seen = np.zeros(len(self.memories)), 0
        self._count = count
        self.restart()

    def restart(self) -> None:
        """Forget all readings, but not how much the numbers moved between them."""
        rungs = len(self.memories)
        self.readings = 0
        self.means, self._slow = np.zeros((rungs, self._count)), np.zeros((rungs, self._count))
        self._noise, self._sum_noise = np.zeros(self._count), 0.0
        self._covariance = np.zeros((2 * rungs, 2 * rungs))  # of (means, slow), for readings of variance 1

    def add(
        self,
        groups: Float[np.ndarray, "groups M"],
        of_sum: Float[np.ndarray, " M"],
    ) -> Float[np.ndarray, " rungs"]:
        """Average a reading, the mean over independent groups whose scatter is its noise; the weights that it gets.

        of_sum    0 or 1 for each of the M numbers: those that enter the sum
        """
        rungs, reading = len(self.memories), groups.mean(0)
        noise, sum_noise = (part.var(0, ddof=1) / len(part) for part in (groups, groups @ of_sum))
        if self.readings:
            self._innovate(reading, of_sum)
        self.readings += 1
        w = np.maximum(1 / self.readings, 1 / self.memories)
        share = max(1 / self.readings, 1 / NOISE_MEMORY)
        self._noise += share * (noise - self._noise)
        self._sum_noise += share * (sum_noise - self._sum_noise)
        self.means += w[:, None] * (reading - self.means)
        self._slow += w[:, None] * (self.means - self._slow)
        keep = np.diag(1 - w)
        step = np.block([[keep, np.zeros((rungs, rungs))], [np.diag(w) @ keep, keep]])  # (2 rungs, 2 rungs)
        gain = np.concatenate([w, w**2])
        self._covariance = step @ self._covariance @ step.T + np.outer(gain, gain)
        return w

    def choose(self, of_sum: Float[np.ndarray, " M"]) -> int | None:
        """The longest rung that no shorter one contradicts, None if a jump contradicts all; of_sum as in `add`."""
        sums, covariance = self._sums(of_sum)
        noise = np.maximum(self._noise, 1e-12 * (self.means**2).max() + TINY)
        sum_noise = max(self._sum_noise, 1e-12 * (sums**2).max() + TINY)
        shapes = self.means * (sums[0] / _nonzero(self.means @ of_sum))[:, None]
        plain = self._covariance[: len(sums), : len(sums)]

        def contradicts(j: int, k: int, limit: float) -> bool:
            of_sums = (sums[k] - sums[j]) ** 2 / (sum_noise * covariance[j, j])
            of_shapes = np.mean((shapes[k] - shapes[j]) ** 2 / noise) / plain[j, j]
            return bool(of_sums > 1 + limit * 2**0.5 or of_shapes > 1 + limit * (2 / self._count) ** 0.5)

        if len(sums) > 1 and contradicts(0, 1, JUMP):
            return None
        chosen = 0
        for k in range(1, len(sums)):
            if any(contradicts(j, k, LIMIT) for j in range(k)):
                break
            chosen = k
        return chosen

    def trend(self, rung: int, of_sum: Float[np.ndarray, " M"]) -> float:
        """The factor that corrects the lag of an average, between 1/2 and 2."""
        return float(self._trends(of_sum)[rung])

    def variance(
        self, rung: int, values: Float[np.ndarray, " M"], of_sum: Float[np.ndarray, " M"]
    ) -> Float[np.ndarray, " M"]:
        """The variance of an average about the present values: of its noise, and of what the numbers moved.

        The movement is the excess of the squared innovations, about the averages with their lag corrected, over what
        noise explains, relative to the squared numbers. It is negative where the noise partly cancels, such as in
        passes through a finite data set; at least half of the variance of the noise remains.
        """
        sums, covariance = self._sums(of_sum)
        plain = self._covariance[rung, rung]
        common = (covariance[rung, rung] - plain) * self._sum_noise / max(sums[rung] ** 2, TINY)
        noise = plain * self._noise + max(common, 0.0) * values**2
        w = max(1 / max(self.readings, 1), 1 / self.memories[rung])
        return np.maximum(noise / 2, noise + (1 - w) ** 2 * self._excess[rung] * values**2)

    def _trends(self, of_sum: np.ndarray) -> np.ndarray:
        """a / b of the sums, between 1/2 and 2; 1 for short memories."""
        ratio = (self.means @ of_sum) / _nonzero(self._slow @ of_sum)
        return 1 + self._lagging * (np.clip(ratio, 0.5, 2) - 1)

    def _sums(self, of_sum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sum of each average with its lag corrected, and the covariance of these for noise of variance 1."""
        turn = np.hstack([np.diag(1 + self._lagging), -np.diag(self._lagging)])  # of a^2 / b at a = b
        return self._trends(of_sum) * (self.means @ of_sum), turn @ self._covariance @ turn.T

    def _innovate(self, reading: np.ndarray, of_sum: np.ndarray) -> None:
        sums, covariance = self._sums(of_sum)
        size = np.maximum((self.means**2).sum(1), TINY)
        plain = np.diag(self._covariance)[: len(sums)]
        common = np.maximum(np.diag(covariance) - plain, 0) * self._sum_noise * size / np.maximum(sums**2, TINY)
        missed = ((reading - self._trends(of_sum)[:, None] * self.means) ** 2).sum(1)
        excess = (missed - self._noise.sum() * (1 + plain) - common) / size
        self._seen += 1
        self._excess += max(1 / self._seen, 1 / EXCESS_MEMORY) * (np.clip(excess, -1, 1) - self._excess)


def _nonzero(value: np.ndarray) -> np.ndarray:
    return np.where(value == 0, TINY, value)

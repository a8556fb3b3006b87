"""How right are `fit_decay`'s tau and its 95 % interval, compared with a straight line through the log?"""

from dataclasses import dataclass

import numpy as np

from benchmarks.report import table
from benchmarks.timing import in_turn, seconds
from nin.phases import DecayFit, fit_decay

CURVES = 200  # per row
RECORDED = np.concatenate([np.arange(51.0), np.arange(60.0, 1001, 10)])  # as runs are: each step to 50, then each 10
EVEN = np.arange(0.0, 1001, 7)
RHO = (0.0, 0.5, 0.8, 0.95, 0.99)  # correlation of the noise at neighbouring steps (recorded) or records (even)
NOISE, FLAT_NOISE = 0.05, 0.003  # standard deviation of the log
CASES = (
    *[(f"floor {floor:.0%}", RECORDED, 150.0, floor, RHO) for floor in (0.0, 0.01, 0.05, 0.2, 0.5)],
    ("even steps, floor 20%", EVEN, 150.0, 0.2, RHO),
    ("tau = 1,000", RECORDED, 1000.0, 0.0, (0.0, 0.95, 0.99)),
    ("tau = 1,000, floor 10%", RECORDED, 1000.0, 0.1, (0.0, 0.95)),
)
TWO_RATES = ((0.9, 20.0, 400.0), (0.5, 10.0, 600.0), (0.5, 30.0, 200.0))  # share of the first, tau of both


@dataclass(frozen=True)
class Line:
    """tau, its 95 % interval, and whether the two halves of the fall differ by 1.5x."""

    tau: float
    low: float
    high: float
    several_rates: bool


def straight_line(steps: np.ndarray, values: np.ndarray) -> Line:
    """The naive twin: a line through ln|values| from the maximum to 95 % of the fall, ignoring correlations."""
    logs = np.log(np.abs(values))
    x, y = steps[np.argmax(logs) :], logs[np.argmax(logs) :]
    fall = y[0] - y.min()
    end, middle = (int(np.argmax(y <= y[0] - part * fall)) + 1 for part in (0.95, 0.475))
    if fall < 0.01 or end < 3:
        return Line(np.inf, np.nan, np.nan, False)
    rate, error = _slope(x[:end], y[:end])
    early, late = (_slope(x[part], y[part])[0] for part in (slice(max(2, middle)), slice(max(2, middle) - 1, end)))
    tau, width = (1 / rate, 1.96 * error / rate**2) if rate > 0 else (np.inf, np.nan)
    return Line(tau, tau - width, tau + width, not (early > 0 and late > 0 and 1 / 1.5 < early / late < 1.5))


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    if len(x) < 3:
        return (float((y[0] - y[-1]) / (x[-1] - x[0])), np.nan) if len(x) == 2 else (0.0, np.nan)
    dx, dy = x - x.mean(), y - y.mean()
    slope = dx @ dy / (dx @ dx)
    return -slope, np.sqrt(np.square(dy - slope * dx).sum() / (len(x) - 2) / (dx @ dx))


def noise(steps: np.ndarray, rho: float, count: int, generator: np.random.Generator) -> np.ndarray:
    """Gaussian noise of variance 1 whose correlation at a distance of t steps is rho^t: (count, steps)."""
    out = generator.normal(size=(count, len(steps)))
    for i, phi in enumerate(rho ** np.diff(steps), start=1):
        out[:, i] = phi * out[:, i - 1] + np.sqrt(1 - phi**2) * out[:, i]
    return out


def fits(steps: np.ndarray, clean: np.ndarray, rho: float, size: float, seed: int) -> tuple[list[DecayFit], list[Line]]:
    """`fit_decay` and `straight_line` of noisy copies of a curve."""
    noisy = clean * np.exp(size * noise(steps, rho, CURVES, np.random.default_rng(seed)))
    return [fit_decay(steps, values) for values in noisy], [straight_line(steps, values) for values in noisy]


def run() -> str:
    """Three tables: bias, coverage and false flags of single rates; two rates; flat curves. And the time of a fit."""
    head = (
        f"{CURVES} curves a row of 1,000 steps (each to 50, then each 10; even: each 7), noise {NOISE:g} in the log, "
        "tau 150 unless stated. Bias: mean tau over the truth - 1, of curves with a finite tau. Coverage: of the 95 % "
        "intervals. Goals: bias within 2 %, coverage 88 to 99 %; ! is a miss."
    )
    titles = ("case", "rho", "bias", "coverage", "finite", "several rates", "line: bias", "coverage", "several rates")
    single = [_single(*case[:4], rho, seed) for seed, case in enumerate(CASES) for rho in case[4]]
    two = [_two(*rates, rho) for rates in TWO_RATES for rho in (0.0, 0.95)]
    two_titles = ("share, taus", "rho", "finite", "several rates", "early, late (medians)", "line: several rates")
    flat = [_flat(name, steps, rho) for name, steps in (("recorded", RECORDED), ("even", EVEN)) for rho in RHO]
    flat_titles = (f"flat, noise {FLAT_NOISE:g}", "rho", "finite tau (goal 1 %)", "line: finite tau")
    return "\n\n".join(
        [head, table(titles, single), table(two_titles, two), table(flat_titles, flat), f"Time of a fit: {_time()}."]
    )


def _single(name: str, steps: np.ndarray, tau: float, floor: float, rho: float, seed: int) -> tuple[str, ...]:
    found = fits(steps, np.exp(-steps / tau) + floor, _per_step(steps, rho), NOISE, seed)
    cells = []
    for group in found:
        finite = [one for one in group if np.isfinite(one.tau)]
        bias = np.mean([one.tau for one in finite]) / tau - 1
        coverage = np.mean([one.low <= tau <= one.high for one in finite])
        cells.append([_mark(f"{bias:+.1%}", abs(bias) <= 0.02), _mark(f"{coverage:.1%}", 0.88 <= coverage <= 0.99)])
        cells[-1] += [f"{len(finite) / CURVES:.1%}", f"{np.mean([one.several_rates for one in group]):.1%}"]
    return (name, f"{rho:g}", *cells[0], *cells[1][:2], cells[1][3])


def _two(share: float, first: float, second: float, rho: float) -> tuple[str, ...]:
    clean = share * np.exp(-RECORDED / first) + (1 - share) * np.exp(-RECORDED / second)
    new, line = fits(RECORDED, clean, rho, NOISE, 0)
    early, late = (np.median([getattr(one, part) for one in new]) for part in ("early", "late"))
    flagged = [f"{np.mean([one.several_rates for one in group]):.1%}" for group in (new, line)]
    finite = f"{np.mean([np.isfinite(one.tau) for one in new]):.1%}"
    return (
        f"{share:g}, {first:g} and {second:g}",
        f"{rho:g}",
        finite,
        flagged[0],
        f"{early:.0f}, {late:.0f}",
        flagged[1],
    )


def _flat(name: str, steps: np.ndarray, rho: float) -> tuple[str, ...]:
    new, line = fits(steps, np.ones(len(steps)), _per_step(steps, rho), FLAT_NOISE, 0)
    finite, rival = (np.mean([np.isfinite(one.tau) for one in group]) for group in (new, line))
    return (name, f"{rho:g}", _mark(f"{finite:.1%}", finite <= 0.01), f"{rival:.1%}")


def _time() -> str:
    curve = (np.exp(-RECORDED / 150) + 0.05) * np.exp(NOISE * noise(RECORDED, 0.8, 1, np.random.default_rng(0))[0])
    work = {"fit": lambda: fit_decay(RECORDED, curve), "line": lambda: straight_line(RECORDED, curve)}
    taken = in_turn({name: lambda work=work: seconds(work) for name, work in work.items()}, 50)
    fit, line = (1000 * np.array([np.median(taken[name]), taken[name].min()]) for name in ("fit", "line"))
    return f"median {fit[0]:.1f} ms, best {fit[1]:.1f} ms (goal 5); of the line {line[0]:.2f} ms"


def _per_step(steps: np.ndarray, rho: float) -> float:
    return rho if steps is RECORDED else rho ** (1 / np.diff(steps)[0])


def _mark(text: str, good: bool) -> str:
    return text if good else f"{text} !"

"""The clock with its floor: the law of |W_NI|^2, integrated along training, beside the measured |W_NI|."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import nn

from nin import theory
from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.nodes import NoisyNetwork
from nin.phases import classify
from nin.support.arguments import check_count
from nin.training.config import DTYPES, RunConfig
from nin.training.loop import train
from studies.nin_vs_loss import pull

LAWS = ("full", "parallel", "no floor", "constant")
Array = Float[np.ndarray, " n"]


def snapshots(steps: int, points: int = 60, early: int = 16) -> list[int]:
    """Every step up to `early`, where a catapult moves by a factor per step, then log-spaced steps up to `steps`."""
    check_count("steps", steps, minimum=early + 1)
    later = np.geomspace(early, steps, max(points - early, 2)).round().astype(int)
    return sorted({*range(early + 1), *later.tolist()})


def record(
    configs: Sequence[RunConfig], data: Dataset, *, steps: Sequence[int], samples: int = 512, pairs: int = 2
) -> pd.DataFrame:
    """Train runs with re-drawn noise and measure at each of the steps what moves their noise injection weights.

    One row per run and step, up to a divergence: run, seed, sigma, phase, step, niw_norm, and with the moments of
    `pull.Pull` over `samples` training samples
    kappa      eta W.m / |W|^2: kappa_avg at the current weights, the fraction of |W_NI| lost per step
    kappa_2    eta |m| / |W|: the same with the whole pull, also across W; NaN if its unbiased square is negative
    floor      eta^2 sigma^2 tr G / |B|: what gradient noise adds to |W_NI|^2 per step (equation (6))
    jitter     4 eta^2 W.Cov(u) W / (|B| |W|^4): variance of the change of ln |W_NI|^2 per step
    stderr     standard error of kappa
    Raises ValueError for fixed noise, whose pull is not that of fresh noise, and for more than one node.
    """
    rows: list[dict] = []
    if wrong := sum(config.resample == "fixed" or config.nodes != 1 for config in configs):
        raise ValueError(f"configs has {wrong} runs with resample='fixed' or nodes != 1; use one node, re-drawn.")

    def observe(run: int, step: int, model: nn.Module) -> None:
        rows.append({"run": run, "step": step} | moments(model, configs[run], data, samples=samples, pairs=pairs))

    frame = train(configs, data=data, snapshots=steps, observe=observe).frame()
    phase = {run: classify(curves) for run, curves in frame.groupby("run")}
    table = pd.DataFrame(rows).sort_values(["run", "step"], ignore_index=True)
    table.insert(1, "phase", table["run"].map(phase))
    return table[np.isfinite(table.drop(columns=["phase", "kappa_2"])).all(axis=1)].reset_index(drop=True)


def moments(model: NoisyNetwork, config: RunConfig, data: Dataset, *, samples: int, pairs: int) -> dict[str, float]:
    """The columns of `record` of one network, and those that say whose it is."""
    x, y = data.x_train[:samples].to(DTYPES[config.dtype]), data.y_train[:samples]
    generator = config.generator("curvature")
    of_run = {"loss": LOSSES[config.loss], "sigma": config.sigma, "law": config.law, "pairs": pairs}
    found = pull.measure(model, x, y, generator=generator, **of_run)
    eta, batch = config.lr, config.batch_size
    walk = theory.random_walk(eta, config.sigma, max(found.trace_G, 0.0), batch)
    return {
        "seed": config.seed,
        "sigma": config.sigma,
        "niw_norm": float(model.niw.detach().double().norm()),
        "kappa": eta * found.along,
        "kappa_2": eta * found.across**0.5 if found.across >= 0 else np.nan,
        "floor": float(walk),
        "jitter": 4 * eta**2 * found.of_W / batch,
        "stderr": eta * found.stderr,
    }


def integrate(run: pd.DataFrame, *, law: str = "full") -> pd.DataFrame:
    """The law of |W_NI|^2 iterated from the first row of one run of `record`: columns step, niw_norm, spread.

    E |W(t+1)|^2 = (1 - 2 kappa + kappa_2^2) |W|^2 + eta^2 sigma^2 tr G / |B|

    is exact for one step of SGD with independent samples (derived; from equation (4), without expansion). Its
    coefficients, measured at the rows, are interpolated linearly in between; |W_NI| at the rows is not used again.
    law     "full"; "parallel": kappa_2 = kappa, a pull along W, i.e. (1 - kappa)^2 |W|^2; "no floor": without the last
            term; "constant": with the coefficients of the first row throughout
    spread  standard deviation of ln |W_NI| that the gradient noise along W leaves, propagated in the same way
    Raises ValueError for an unknown law and for fewer than 2 rows.
    """
    if law not in LAWS or len(run) < 2:
        raise ValueError(f"law={law!r} must be one of {LAWS}, and run, with {len(run)} rows, have 2 or more.")
    steps = np.arange(int(run["step"].iloc[0]), int(run["step"].iloc[-1]) + 1)
    kappa, kappa_2, floor, jitter = (_between(run, name, steps) for name in ("kappa", "kappa_2", "floor", "jitter"))
    kappa_2 = kappa if law == "parallel" else np.fmax(kappa_2, np.abs(kappa))
    if law == "constant":
        kappa, kappa_2, floor, jitter = (values[:1].repeat(len(steps)) for values in (kappa, kappa_2, floor, jitter))
    square, variance = np.empty(len(steps)), np.zeros(len(steps))
    square[0] = run["niw_norm"].iloc[0] ** 2
    growth, added = 1 - 2 * kappa + kappa_2**2, floor * (law != "no floor")
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(len(steps) - 1):
            square[t + 1] = growth[t] * square[t] + added[t]
            variance[t + 1] = growth[t] ** 2 * variance[t] + jitter[t] * square[t] ** 2
        spread = np.sqrt(variance) / (2 * square)
    return pd.DataFrame({"step": steps, "niw_norm": np.sqrt(square), "spread": spread})


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `record` with |W_NI| of each law in a column of its name, and the spread of the full law."""
    parts = []
    for _, run in table.groupby("run"):
        if len(run) < 2:
            continue
        laws = {law: integrate(run, law=law).set_index("step") for law in LAWS}
        columns = {law: run["step"].map(curve["niw_norm"]) for law, curve in laws.items()}
        parts.append(run.assign(**columns, spread=run["step"].map(laws["full"]["spread"])))
    return pd.concat(parts, ignore_index=True)


def deviations(table: pd.DataFrame) -> pd.DataFrame:
    """Largest |ln(law / measured)| over all snapshots of each run of `compare`: phase, sigma, seed, law, off, step.

    step: where it is reached; first: the first snapshot at which it exceeds ln 1.25 (NaN if none does).
    """
    rows = []
    for (phase, sigma, seed), run in table.groupby(["phase", "sigma", "seed"]):
        for law in LAWS:
            off = np.abs(np.log(run[law] / run["niw_norm"])).fillna(np.inf)
            place = off.idxmax()
            over = run["step"][off > np.log(1.25)]
            rows.append((phase, sigma, seed, law, off[place], run["step"][place], over.min() if len(over) else np.nan))
    return pd.DataFrame(rows, columns=["phase", "sigma", "seed", "law", "off", "step", "first"])


def _between(run: pd.DataFrame, column: str, steps: np.ndarray) -> Array:
    known = run[["step", column]].dropna()
    if known.empty:
        return np.full(len(steps), np.nan)
    return np.interp(steps, known["step"], known[column])

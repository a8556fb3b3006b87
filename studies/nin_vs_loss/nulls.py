"""Does |W_NI| follow the loss? Its similarity with the loss beside that with clocks that know nothing of this loss."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from studies.statistics import mean_interval

Array = Float[np.ndarray, " n"]
NULLS = ("other seed", "-sqrt t", "-ln t", "warped", "shuffled")
WARPS = (0.5, 2.0)  # exponents g of the warped time T (t/T)^g
BLOCKS, DRAWS = 8, 32  # pieces of the shuffled loss, and shuffles averaged


def against_loss(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs with a node of a frame, beside the clean loss of the unperturbed network of the same seed, sigma = 0.

    Columns resample, sigma, seed, step, niw_norm, loss, at the steps at which the loss was measured.
    Raises ValueError if a seed has no unperturbed run in the frame.
    """
    plain = frame[frame["sigma"] == 0].dropna(subset=["train_loss"]).drop_duplicates(["seed", "step"])
    if missing := set(frame["seed"]) - set(plain["seed"]):
        raise ValueError(f"frame has no unperturbed run, sigma=0, of seed {sorted(missing)}; add one to the configs.")
    runs = frame.loc[frame["sigma"] > 0, ["resample", "sigma", "seed", "step", "niw_norm"]]
    return runs.merge(plain[["seed", "step", "train_loss"]].rename(columns={"train_loss": "loss"}), on=["seed", "step"])


def similarities(curves: pd.DataFrame, *, by: list[str]) -> pd.DataFrame:
    """Pearson correlations of ln|W_NI| over training, one row for each run: a group of `by` and a seed.

    loss         with ln L of the unperturbed network of the same seed (column loss of `curves`)
    other seed   with ln L of the next seed of the same group
    -sqrt t, -ln t   with functions of the step alone (ln of t + 1)
    warped       with ln L at the step T (t/T)^g, T the last step; mean over g of WARPS
    shuffled     with ln L whose increments were cut into BLOCKS pieces and permuted; mean over DRAWS
    partial      as loss, after linear regression of both on 1, sqrt t and ln(t + 1): the state given t
    partial, other   as partial, with the next seed's loss
    Correlations weigh the measured steps equally (log-spaced in `nin.train`). Raises ValueError for a single seed.
    """
    rows = []
    for key, group in curves.groupby(by):
        seeds = sorted(set(group["seed"]))
        if len(seeds) < 2:
            raise ValueError(f"curves has one seed, {seeds}, of {key}; the null of another seed's loss needs two.")
        of_seed = {seed: run.sort_values("step").set_index("step") for seed, run in group.groupby("seed")}
        for place, seed in enumerate(seeds):
            run, other = of_seed[seed], of_seed[seeds[(place + 1) % len(seeds)]]["loss"]
            steps = run.index.intersection(other.index).to_numpy()
            found = of_run(steps, run.loc[steps, "niw_norm"], run.loc[steps, "loss"], other[steps], seed=seed)
            rows.append(dict(zip(by, key, strict=True)) | {"seed": seed} | found)
    return pd.DataFrame(rows)


def of_run(steps: np.ndarray, niw: pd.Series, loss: pd.Series, other: pd.Series, *, seed: int) -> dict[str, float]:
    """The correlations of `similarities` for one run; the seed fixes the shuffles."""
    t, W, L, M = (np.asarray(values, dtype=float) for values in (steps, np.log(niw), np.log(loss), np.log(other)))
    generator = np.random.default_rng(seed)
    warped = [np.interp(t[-1] * (t / t[-1]) ** g, t, L) for g in WARPS]
    clock = np.stack([np.ones(len(t)), np.sqrt(t), np.log1p(t)], axis=1)
    return {
        "loss": correlation(W, L),
        "other seed": correlation(W, M),
        "-sqrt t": correlation(W, -np.sqrt(t)),
        "-ln t": correlation(W, -np.log1p(t)),
        "warped": float(np.mean([correlation(W, values) for values in warped])),
        "shuffled": float(np.mean([correlation(W, shuffled(L, generator)) for _ in range(DRAWS)])),
        "partial": correlation(rest(W, clock), rest(L, clock)),
        "partial, other": correlation(rest(W, clock), rest(M, clock)),
    }


def correlation(a: Array, b: Array) -> float:
    """Pearson correlation; NaN if either does not vary or is not finite."""
    good = np.isfinite(a).all() and np.isfinite(b).all() and a.std() > 0 and b.std() > 0
    return float(np.corrcoef(a, b)[0, 1]) if good else np.nan


def rest(values: Array, regressors: Float[np.ndarray, "n k"]) -> Array:
    """What a linear least-squares fit on the regressors leaves of the values."""
    return values - regressors @ np.linalg.lstsq(regressors, values, rcond=None)[0]


def shuffled(log_loss: Array, generator: np.random.Generator) -> Array:
    """The same start, fall and increments, which come in another order: BLOCKS pieces of increments permuted."""
    pieces = np.array_split(np.diff(log_loss), BLOCKS)
    order = generator.permutation(len(pieces))
    return log_loss[0] + np.concatenate([[0.0], np.cumsum(np.concatenate([pieces[k] for k in order]))])


def verdicts(table: pd.DataFrame, *, by: list[str], clock: str = "loss") -> pd.DataFrame:
    """The correlation with the loss minus that with each null: mean, 95 % interval over seeds, and a verdict.

    Columns by, null, mean, half, verdict: "beats" or "loses to" if the interval excludes 0, else "ties with". The null
    "partial, other" is compared with the partial correlation.
    clock   the column in place of the loss; with "shuffled" the verdicts of a loss that is not that of the run
    """
    rows = []
    for key, runs in table.groupby(by):
        for null in (*NULLS, "partial, other"):
            gain = mean_interval(runs["partial" if null == "partial, other" else clock] - runs[null])
            sign = 0 if not abs(gain.mean) > gain.half else np.sign(gain.mean)
            text = {1: "beats", -1: "loses to", 0: "ties with"}[int(sign)]
            rows.append(dict(zip(by, key, strict=True)) | {"null": null, "mean": gain.mean, "half": gain.half,
                                                          "verdict": text})  # fmt: skip
    return pd.DataFrame(rows)

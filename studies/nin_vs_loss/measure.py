"""How similarly the noise injection weights and the unperturbed loss evolve, and why: curvature follows the loss."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.phases import DecayFit, fit_decay, summarise
from nin.probes.curvature import local_hessian
from nin.training.config import DTYPES
from nin.training.ensemble import Ensemble
from nin.training.start import kappa_avg
from nin.training.trajectories import Trajectories


def similarity(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per run with a node: `summarise`, and how its NIW compare with the loss of the unperturbed network.

    The unperturbed network is the run of the same seed with sigma = 0, which must be in the frame.
    correlation   Pearson correlation of ln |W_NI| with ln of the unperturbed training loss, over evaluated steps
    exponent      slope of ln |W_NI| against ln of that loss: |W_NI| ~ L^exponent; 1: the NIW follow the loss
    ratio         tau of |W_NI| over tau of the unperturbed training loss
    Raises ValueError if a seed has no unperturbed run in the frame.
    """
    plain = frame[frame["sigma"] == 0]
    missing = set(frame["seed"]) - set(plain["seed"])
    if missing:
        raise ValueError(f"frame has no unperturbed run, sigma=0, of seed {sorted(missing)}; add one to the configs.")
    table = summarise(frame)
    tau = table[table["sigma"] == 0].groupby("seed")["tau_train"].first()
    rows = []
    for run, curves in frame[frame["sigma"] > 0].groupby("run"):
        reference = plain[plain["seed"] == curves["seed"].iloc[0]].drop_duplicates("step")
        both = curves[["step", "niw_norm"]].merge(reference[["step", "train_loss"]].dropna(), on="step").dropna()
        niw, loss = np.log(both["niw_norm"]), np.log(both["train_loss"])
        varies = len(both) > 2 and np.isfinite(niw).all() and niw.std() > 0
        rows.append(
            {
                "run": run,
                "correlation": np.corrcoef(niw, loss)[0, 1] if varies else np.nan,
                "exponent": np.polyfit(loss, niw, 1)[0] if varies else np.nan,
            }
        )
    joined = table.merge(pd.DataFrame(rows), on="run")
    return joined.assign(ratio=joined["tau_niw"] / joined["seed"].map(tau))


def softmax_curvature(outputs: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """tr(diag p - p p^T) = 1 - sum p^2 of the cross-entropy in its logits; at most 2 ell."""
    return 1 - outputs.softmax(-1).square().sum(-1)


def logit_curvature(networks: Sequence[nn.Module], x: Float[Tensor, "n ..."], y: Int[Tensor, " n"]) -> dict[str, float]:
    """The largest tr(diag p - p p^T) - 2 ell (excess, never above 0) and - ell (half) of any sample, without noise.

    ell is the cross-entropy of the sample; computed in float64 from the outputs of NoisyNetworks.
    """
    largest = {"excess": -np.inf, "half": -np.inf}
    for model in networks:
        with torch.no_grad():
            outputs = model.network(x).double()
        trace, loss = softmax_curvature(outputs), LOSSES["cross_entropy"](outputs, y)
        for name, factor in (("excess", 2), ("half", 1)):
            largest[name] = max(largest[name], float((trace - factor * loss).max()))
    return largest


def curvature_clock(
    trajectories: Trajectories, runs: Sequence[int], steps: Sequence[int], data: Dataset
) -> pd.DataFrame:
    """Curvature and loss along training, one row for each of the runs and snapshot steps.

    loss           clean training loss ell, mean over the evaluation samples
    softmax_trace  <tr(diag p - p p^T)>; sample by sample at most 2 ell
    excess         tr(diag p - p p^T) - 2 ell, the largest of all samples: never above 0
    layer_trace    tr <H> at the node's pre-activation, without noise
    rate           kappa_avg at that step: the rate per step at which |W_NI| should fall
    measured_rate  -d ln |W_NI| / dt between the recorded steps on either side
    """
    rows = []
    for run in runs:
        config = trajectories.configs[run]
        data = data.to(DTYPES[config.dtype])
        x, y = data.x_train[: config.eval_samples], data.y_train[: config.eval_samples]
        reached = [step for step in steps if (run, step) in trajectories.networks]
        for step in reached:
            model = trajectories.model(run, step)
            with torch.no_grad():
                outputs = model.network(x).double()
            loss = LOSSES[config.loss](outputs, y)
            hessian = local_hessian(model.network, model.layer, x, y, loss=LOSSES[config.loss])
            rows.append(
                {
                    "run": run,
                    "seed": config.seed,
                    "sigma": config.sigma,
                    "step": step,
                    "loss": float(loss.mean()),
                    "softmax_trace": float(softmax_curvature(outputs).mean()),
                    "excess": float((softmax_curvature(outputs) - 2 * loss).max()),
                    "layer_trace": float(hessian.trace()),
                    "rate": float(kappa_avg(Ensemble([model] * 2), [config] * 2, data)[0]),
                    "measured_rate": _rate(trajectories, run, step),
                }
            )
    return pd.DataFrame(rows)


def _rate(trajectories: Trajectories, run: int, step: int) -> float:
    """-d ln |W_NI| / dt from a line through the recorded steps within 20 % of this one, at least three."""
    steps, norms = trajectories.steps, trajectories.curves["niw_norm"][:, run]
    near = np.abs(steps - step) <= max(0.2 * step, 1)
    if near.sum() < 3:
        near = np.argsort(np.abs(steps - step))[:3]
    return float(-np.polyfit(steps[near], np.log(norms[near]), 1)[0])


def why_not_exponential(fit: DecayFit) -> str:
    """Why one exponential above a floor does not describe a curve, or "" if it does.

    Required: a finite tau; no second rate (`DecayFit.several_rates`); R^2 >= .99 of the logarithm; a 95 % interval of
    tau that spans less than a factor 2. The last two are our choice: at .99 a curve that falls by a factor e^3 lies
    within about 9 % (rms) of its fit.
    """
    if not np.isfinite(fit.tau):
        return "no decay"
    if fit.several_rates:
        return "several rates"
    if fit.r2 < 0.99:
        return f"R² = {fit.r2:.4f}"
    return "" if fit.high / fit.low < 2 else f"tau within a factor {fit.high / fit.low:.1f}"


def local_rate(steps: ArrayLike, values: ArrayLike, *, at: float, width: float = 0.25) -> float:
    """-d ln(values) / d step around the fraction `at` of the last step, by a line through the steps within `width`.

    width: half of the window, as a fraction of the last step. NaN for fewer than 3 finite, positive values there.
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    near = np.isfinite(y) & (y > 0) & (np.abs(x - at * x.max()) <= width * x.max())
    return float(-np.polyfit(x[near], np.log(y[near]), 1)[0]) if near.sum() >= 3 else np.nan


def decay_or_rate(frame: pd.DataFrame) -> pd.DataFrame:
    """For each resampling and curve (niw_norm, train_loss, test_loss): its tau where one exponential fits, else rates.

    Columns resample, curve, fitted (number of seeds that one exponential fits), seeds, why (the most frequent reason
    against it), tau (mean over the fitted seeds, in steps), early, late (mean local rate per step around the first and
    the last quarter of the run).
    """
    rows = []
    long = frame.melt(["resample", "seed", "step"], ["niw_norm", "train_loss", "test_loss"]).dropna()
    for (mode, curve), group in long.groupby(["resample", "variable"]):
        runs = [run for _, run in group.groupby("seed")]
        fits = [fit_decay(run["step"], run["value"]) for run in runs]
        reasons = [why_not_exponential(fit) for fit in fits]
        against = [reason for reason in reasons if reason]
        tau = [fit.tau for fit, reason in zip(fits, reasons, strict=True) if not reason]
        early, late = (np.mean([local_rate(r["step"], r["value"], at=at) for r in runs]) for at in (0.25, 0.75))
        rows.append(
            {"resample": mode, "curve": curve, "fitted": len(tau), "seeds": len(runs),
             "why": max(set(against), key=against.count) if against else "",
             "tau": np.mean(tau) if tau else np.nan, "early": early, "late": late}
        )  # fmt: skip
    return pd.DataFrame(rows)

"""How the response ages where the kernel grows: R = d ln(int K dt) / dt, with the exponent -1 and a prefactor."""

import numpy as np
import pandas as pd

from nin.theory.response import constant_kernel
from studies.statistics import Numbers
from studies.training_response.measure import CASE, slopes

SHARES = {"ce": 1.0, "sigmoid_mse": 0.5}  # t R of a constant kernel at large t, one datum


def prefactors(table: pd.DataFrame) -> pd.DataFrame:
    """step x response against its law for one datum, along each network's run.

    For CE, l' = -exp(-m) at large margin m, so that exp(m) = int K dt and R = K l' = d ln(int K dt) / dt. For
    sigmoid + MSE, l' = -exp(-2m) and R is half of that. For K ~ t^a, t R = (1 + a) c, c = 1 or 1/2.
    table       of `along_training` on one datum: seed, activation, loss, step, response, self_kernel
    Columns: seed, activation, loss, step, measured (t R / c), law (t K / int K dt, trapezoids between the readings).
    """
    parts = []
    for case, rows in table[table["loss"].isin(list(SHARES))].groupby(CASE, sort=False):
        rows = rows.sort_values("step")
        t, K = rows["step"].to_numpy(dtype=float), rows["self_kernel"].to_numpy()
        whole = np.concatenate([[0.0], np.cumsum(np.diff(t) * (K[1:] + K[:-1]) / 2)])
        measured = t * rows["response"].to_numpy() / SHARES[case[2]]
        new = pd.DataFrame({"step": rows["step"].to_numpy(), "measured": measured, "K": K, "whole": whole})
        new = new[new["step"] > 0]
        new = new.assign(law=new["step"] * new["K"] / new["whole"]).drop(columns=["K", "whole"])
        parts.append(new.assign(**dict(zip(CASE, case, strict=True))))
    return pd.concat(parts, ignore_index=True)


def at_the_end(table: pd.DataFrame, etas: dict[str, float]) -> pd.DataFrame:
    """Each network of `prefactors` at its last step: prefactor (t R / c), a, and the rival of a constant kernel.

    a           d ln K / d ln t over the last decade of steps
    rival       t R / c of one datum whose kernel stays at its initial value, after as many steps
    etas        learning rate of each loss
    Raises ValueError if the last step is below 100.
    """
    last = int(table["step"].max())
    if last < 100:
        raise ValueError(f"table ends at step {last}; an exponent needs at least 100 steps.")
    ends = prefactors(table).query("step == @last").rename(columns={"measured": "prefactor"})
    grows = slopes(table, "self_kernel", low=last // 10, high=last).rename(columns={"slope": "a"})
    start = table[table["step"] == 0][[*CASE, "self_kernel"]]
    ends = ends.merge(grows[[*CASE, "a"]], on=CASE).merge(start, on=CASE)
    rivals = [
        last * constant_kernel(row.loss, K=row.self_kernel, eta=etas[row.loss], steps=last + 1).logit[-1]
        / SHARES[row.loss] for row in ends.itertuples()
    ]  # fmt: skip
    return ends.assign(rival=rivals).drop(columns=["step", "self_kernel"])


def gain(a: Numbers, prefactor: Numbers) -> float:
    """g of prefactor = 1 + g a, by least squares: 1 if a growing kernel sets the prefactor, 0 if it has no effect."""
    a, excess = np.asarray(a, dtype=float), np.asarray(prefactor, dtype=float) - 1
    return float((a * excess).sum() / (a * a).sum())

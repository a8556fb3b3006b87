"""The claims of notebook 08 as checks, each with the value that its rival gives on the same runs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nin.checks import Check
from studies.statistics import geometric_band, loglog_slope
from studies.training_response.aging import gain
from studies.training_response.stochastic import GD, NOISE, SGD, changes, of_training, rank_ratio

PAPER = "arXiv 2405.04074"
POWER_LAWS = {"ce": "CE", "sigmoid_mse": "sigmoid + MSE"}
NETWORKS = ["loss", "activation"]
FULL_CLOCK = 40.0  # eta^2 sigma^2 t of prediction 13: .02^2 x .5^2 x 4e5
ABOVE = 1e-9  # above zero beyond rounding
SIGNS = {  # measure: words, side of the claim, source
    "effective_rank": ("effective rank", -1, PAPER),
    "flips": ("share of flips by noise", 1, "prediction 14"),
    "worst_neuron": ("error without the worst neuron", 1, PAPER),
    "error_all": ("error on all strings", -1, PAPER),
}


def aging(response: pd.DataFrame, kernel: pd.DataFrame) -> list[Check]:
    """Prediction 6 from the fits (`slopes`) of response and kernel; rivals: the squared error, and the other quantity.

    Sigmoid units have their own row, because they learn all strings much later.
    """
    aged, bare = (fit.groupby(NETWORKS)["slope"].mean() for fit in (response, kernel))
    r2, rows = response.groupby(NETWORKS)["r2"].mean(), []
    for loss, low, high in (("ce", -1.5, -0.9), ("sigmoid_mse", -1.4, -1.0)):
        for units in ("others", "sigmoid"):
            mine, grows = (_units(fit[loss], units) for fit in (aged, bare))
            name = f"aging, {POWER_LAWS[loss]}, {'sigmoid' if units == 'sigmoid' else 'other'} units"
            rival = _units(aged["mse"], units).min()
            rows += [
                Check(f"{name}: steepest slope", "prediction 6", mine.min(), low, 0, ">=", rival),
                Check(f"{name}: flattest slope", "prediction 6", mine.max(), high, 0, "<=", grows.max()),
            ]
    good = pd.concat([_units(r2[loss], "others") for loss in POWER_LAWS])
    moves = pd.concat([_units(bare[loss], "others") for loss in POWER_LAWS])
    falls = pd.concat([_units(aged[loss], "others") for loss in POWER_LAWS])
    return [
        *rows,
        Check("aging: smallest R^2", "prediction 6", good.min(), 0.92, 0, ">=", _units(r2["mse"], "others").min()),
        Check("bare kernel: smallest slope", "prediction 6", moves.min(), 0, 0, ">=", falls.max()),
        Check("bare kernel: largest slope", "prediction 6", moves.max(), 0.35, 0, "<=", falls.abs().max()),
    ]


def _units(values: pd.Series, units: str) -> pd.Series:
    """Of a series indexed by activation: sigmoid units, or the others."""
    return values[(values.index == "sigmoid") == (units == "sigmoid")]


def exponents(response: pd.DataFrame, kernel: pd.DataFrame) -> list[Check]:
    """The exponent -1 in the last decade, whatever the kernel does; rival: constant-kernel law x kernel, -1 + a."""
    checks = []
    fits = response.merge(kernel, on=["seed", "activation", "loss"], suffixes=("", "_kernel"))
    means = fits.groupby(NETWORKS)[["slope", "slope_kernel"]].mean()
    for loss, label in POWER_LAWS.items():
        for units in ("others", "sigmoid"):
            mine = means.loc[loss]
            mine = mine[(mine.index == "sigmoid") == (units == "sigmoid")]
            worst = mine.loc[(mine["slope"] + 1).abs().idxmax()]
            name = f"last decade, {label}, {'sigmoid' if units == 'sigmoid' else 'other'} units: exponent"
            rival = -1 + worst["slope_kernel"]
            checks.append(Check(name, PAPER, worst["slope"], -1, 0.1, "=", rival))
    return checks


def prefactor(ends: pd.DataFrame) -> list[Check]:
    """(prefactor - 1) / a over all networks with one datum is 1; rival: a constant kernel after as many steps."""
    return [
        Check(f"one string, {label}: (prefactor - 1) / a", PAPER, gain(rows["a"], rows["prefactor"]), 1, 0.15, "=",
              gain(rows["a"], rows["rival"]))
        for label, rows in ((POWER_LAWS[loss], rows) for loss, rows in ends.groupby("loss", sort=False))
    ]  # fmt: skip


def width(moved: pd.DataFrame) -> list[Check]:
    """Prediction 4 in the NTK scaling; rivals: eta ~ 1/H with v ~ N(0, 1/H), no effect of width, and little width."""
    fall = {scaling: _fall(rows) for scaling, rows in moved.groupby("scaling")}
    ntk = moved[moved["scaling"] == "ntk"]
    means = ntk.groupby("hidden")["drift"].mean()
    narrow = ntk[ntk["hidden"] == means.index.min()]["drift"].to_numpy()
    same = np.concatenate([np.roll(narrow, k) for k in range(len(means))])  # the narrowest at every width
    null = loglog_slope(np.repeat(means.index.to_numpy(), len(narrow)), same).value
    checks = [
        Check("drift ~ H^, NTK scaling: not steeper", "prediction 4", fall["ntk"], -1.1, 0, ">=", fall["standard"]),
        Check("drift ~ H^, NTK scaling: not flatter", "prediction 4", fall["ntk"], -0.45, 0, "<=", null),
    ]
    wide = means[means.index >= 2048]
    if len(wide):
        checks.append(
            Check("drift at H >= 2048, NTK scaling", "prediction 4", wide.max(), 0.01, 0, "<=", means.iloc[0])
        )
    return checks


def _fall(rows: pd.DataFrame) -> float:
    return loglog_slope(rows["hidden"], rows["drift"]).value


def stage(grid: pd.DataFrame, moved: pd.DataFrame) -> list[Check]:
    """Prediction 7; rival: the widest network in the NTK scaling, whose weights hardly move."""
    share = grid.groupby(["step", "activation", "loss"])["output_share"].mean()
    largest = (share[grid["step"].max()] / share[0]).max()
    wide = moved[(moved["scaling"] == "ntk") & (moved["hidden"] == moved["hidden"].max())]["share"].mean()
    return [Check("output-weight share, end / start, largest", "prediction 7", largest, 0.7, 0, "<=", wide)]


def distance(profile: pd.DataFrame, shuffled: pd.DataFrame) -> list[Check]:
    """Prediction 8: the largest rise of the kernel from distance 2 to 5 or 5 to 8; rival: distances of other strings.

    Both tables: those of `by_distance`, with a column state.
    """
    return [
        Check(f"kernel, {state}: largest rise with distance 2, 5, 8", "prediction 8", _rise(profile, state), 0, 0, "<=",
              _rise(shuffled, state))
        for state in dict.fromkeys(profile["state"])
    ]  # fmt: skip


def _rise(profile: pd.DataFrame, state: str) -> float:
    rows = profile[(profile["state"] == state) & profile["distance"].isin([2, 5, 8])]
    means = rows.groupby(["activation", "loss", "distance"])["value"].mean().unstack("distance")
    return float(means.diff(axis=1).max().max())


def methods(ages: dict[str, float]) -> list[Check]:
    """Prediction 10: Adam's slope lies .8 above that of SGD; rival: momentum, which only rescales the response."""
    above, rival = ages["adam"] - ages["sgd"], ages["momentum"] - ages["sgd"]
    return [Check("Adam's slope above SGD's", "prediction 10", above, 0.8, 0, ">=", rival)]


def splitting(split: pd.DataFrame) -> list[Check]:
    """Prediction 9: growth of (1 - across) / (1 - within) at the border, geometric mean; rival: biases of 0."""
    last = split["step"].max()
    ratio = split.set_index(["bias", "activation", "seed", "step"])["ratio"].unstack("step")
    grows = (ratio[last] / ratio[0]).groupby(["bias", "activation"]).agg(lambda rows: geometric_band(rows).mean)
    rival, drawn = grows[0.0], grows[grows.index.get_level_values("bias").max()]
    return [
        Check(f"splitting at the border, {activation}: growth", "prediction 9", value, 3, 0, ">=", rival[activation])
        for activation, value in drawn.items()
    ]


def caps(cap: pd.DataFrame) -> list[Check]:
    """Prediction 11 on runs that fit (loss < .01); rivals: the kernel that the smallest rate leaves, at the largest."""
    ends = cap.groupby(["activation", "eta"])[["stability", "self_kernel"]].mean()
    low, high = cap["eta"].min(), cap["eta"].max()
    uncapped = (high * ends.xs(low, level="eta")["self_kernel"]).max()
    slowest = ends.xs(low, level="eta")["stability"].max()
    fitted = cap[cap["train_loss"] < 0.01]["stability"].max()
    least = ends.xs(high, level="eta")["stability"].min()
    return [
        Check("eta mean Theta, end of interpolating runs, largest", "prediction 11", fitted, 2, 0, "<=", uncapped),
        Check("eta mean Theta, end at the largest eta, smallest", "prediction 11", least, 1.2, 0, ">=", slowest),
    ]


def spread(noisy: pd.DataFrame, clock: str, at: Sequence[float]) -> float:
    """Largest relative deviation of the mean self-kernels of several (eta, sigma) at equal `clock` from their mean."""
    worst = 0.0
    for _, rows in noisy[noisy["step"] > 0].groupby("activation"):
        curves = [np.log(run.groupby(clock)["self_kernel"].mean()) for _, run in rows.groupby(["eta", "sigma"])]
        read = np.exp([np.interp(np.log(at), np.log(curve.index), curve) for curve in curves])
        worst = max(worst, float(np.abs(read / read.mean(0) - 1).max()))
    return worst


def clock(table: pd.DataFrame, at: Sequence[float] = (1.0, 2.0, 4.0, 8.0)) -> list[Check]:
    """Prediction 12: self-kernels agree at equal eta^2 sigma^2 t; rival: at equal t, in the same range of steps."""
    noisy = table[table["training"] == NOISE]
    shared = [u for u in at if u <= noisy.groupby(["eta", "sigma"])["u"].max().min()]
    if not shared:
        return []
    first = noisy[noisy["step"] > 0].iloc[0]
    steps = [u * first["step"] / first["u"] for u in shared]
    off, rival = spread(noisy, "u", shared), spread(noisy, "step", steps)
    return [Check("label noise: off a function of eta^2 sigma^2 t", "prediction 12", off, 0, 0.13, "=", rival)]


def reduction(table: pd.DataFrame) -> list[Check]:
    """Predictions 13 and 14, fragility and generalisation: label noise against GD, paired seeds.

    Prediction 13's bound needs its length, u = eta^2 sigma^2 t = 40 (shorter runs: no row); its rival is SGD without
    label noise. The other rows have the end of a 95 % interval nearest to no change, positive if the change surely goes
    to the side that is named; their rival is the same of GD's networks against those of other seeds.
    """
    checks = []
    long_enough = of_training(table, NOISE)["u"].max() > FULL_CLOCK * (1 - 1e-9)
    for activation in dict.fromkeys(table["activation"]):
        if long_enough:
            ratio, rival = (rank_ratio(table, activation, way) for way in (NOISE, SGD))
            name = f"{activation}: effective rank, label noise / GD"
            checks.append(Check(name, "prediction 13", ratio, 0.35, 0, "<=", rival))
        real, null = changes(table, activation, NOISE), changes(table, activation, GD, other_seeds=True)
        for measure, (words, side, source) in SIGNS.items():
            side = -1 if (measure, activation) == ("flips", "relu") else side  # prediction 14: they fall for ReLU
            name = f"{activation}: {words} surely {'rises' if side > 0 else 'falls'}, GD to label noise"
            mine, other = (side * change[measure].mean - change[measure].half for change in (real, null))
            checks.append(Check(name, source, mine, ABOVE, 0, ">=", other))
    return checks


def conserved(table: pd.DataFrame) -> list[Check]:
    """Prediction 15, ReLU: the balance under GD and under label noise; rivals: SGD's, and GD's."""
    rows = table[(table["activation"] == "relu") & (table["step"] == table["step"].max())]
    means = {way: of_training(rows, way)[["moved", "left"]].mean() for way in (GD, SGD, NOISE)}
    moved, left = means[GD]["moved"], means[NOISE]["left"]
    return [
        Check("ReLU, GD: drift of the balance", "prediction 15", moved, 1e-3, 0, "<=", means[SGD]["moved"]),
        Check("ReLU, label noise: balance left", "prediction 15", left, 0.7, 0, "<=", means[GD]["left"]),
    ]


def plasticity(flip: pd.DataFrame) -> list[Check]:
    """Prediction 16: relearning after the longest training / after the shortest, or / fresh learning; rival: others."""
    means = flip.groupby(["loss", "before"])["relearning"].agg(lambda rows: geometric_band(rows).mean).unstack()
    befores = sorted(before for before in means if before > 0)
    again, fresh = means[befores[-1]] / means[befores[0]], means[befores[-1]] / means[0]
    others = [
        Check(f"relearning, {label}: after long / short training", "prediction 16", again[loss], 2, 0, "<=",
              again["sigmoid_mse"])
        for loss, label in (("mse", "MSE"), ("ce", "CE"))
    ]  # fmt: skip
    slow = Check("relearning, sigmoid + MSE: after long training / fresh, at least", "prediction 16",
                 fresh["sigmoid_mse"], 100, 0, ">=", fresh["ce"])  # fmt: skip
    return [*others, slow]

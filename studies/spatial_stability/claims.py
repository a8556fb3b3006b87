"""The claims of arXiv 2210.01506 on spatial stability as ratios over seeds, each with a control."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from studies.statistics import Band, geometric_band, loglog_slope, verdict

COLUMNS = ["claim", "architecture", "at", "ratio", "low", "high", "control", "rival", "rival_low", "rival_high",
           "beyond", "verdict"]  # fmt: skip
D_FALLS = "D falls with depth after training: D_k / D_1"
D_STAYS = "D does not fall with depth before training: D_k / D_1"
D_LOWER = "training lowers D: D / D before"
G_GROWS = "G rises with depth after training: G_k / G_1"
G_HIGHER = "training raises G: G / G before"
R_LOWER = "training lowers R: R / R before"
CHANNELS = "channel pooling: shuffling raises D, shuffled / trained"
SPACE = "spatial pooling: share of homogeneous filters, after / before"
DATA = "R falls with the training set: R at 2 n / R at n"
DEEP = ("last hidden", "output")
FIXED = ("first", "middle", *DEEP)


@dataclass(frozen=True)
class Claim:
    """The claim that a ratio, one value per seed, lies above 1 (side=1) or below 1 (side=-1), beyond its control.

    control     what the control is, in words; controls: its ratios, for the same seeds; None: no control
    """

    text: str
    architecture: str
    at: str
    side: int
    ratios: pd.Series | np.ndarray
    control: str = "none"
    controls: pd.Series | np.ndarray | None = None

    def row(self) -> tuple:
        """The row of `claims`."""
        band = geometric_band(self.ratios)
        found = verdict(band, side=self.side)
        rival, beyond = Band(np.nan, np.nan, np.nan), np.nan
        if self.controls is not None:
            rival = geometric_band(self.controls)
            contrast = geometric_band(np.asarray(self.ratios) / np.asarray(self.controls))
            beyond = contrast.high if self.side < 0 else contrast.low
            if found == "reproduced" and verdict(contrast, side=self.side) != "reproduced":
                found = "within control"
        values = band.mean, band.low, band.high, self.control, rival.mean, rival.low, rival.high, beyond
        return self.text, self.architecture, self.at, *values, found


def claims(
    measured: pd.DataFrame, spectra: pd.DataFrame | None = None, size: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The claims, one row for each architecture and layer: `COLUMNS`.

    measured, spectra    the tables of `before_and_after`; size: that of `after_training` for several sizes
    at            the layer: first, last hidden, output; "filters" for a claim about filters
    ratio, with its 95 % interval over seeds (low, high): a claim says that it is above or below 1
    control       where the effect should be absent, in words; rival, with its interval: the same ratio there
    beyond        the end of the 95 % interval of ratio / control, paired by seed, that is nearer to 1 or beyond it
    verdict       `studies.statistics.verdict` of the ratio; "within control" if it is on the claim's side of 1, but
                  ratio / control is not
    """
    found = []
    for architecture, frame in measured.groupby("architecture", sort=False):
        found += _with_depth(architecture, frame)
        found += _by_training(architecture, frame)
        if spectra is not None and "shuffled" in set(frame["state"]):
            found += _about_pooling(architecture, frame, spectra[spectra["architecture"] == architecture])
    for architecture, frame in () if size is None else size.groupby("architecture", sort=False):
        output = frame[frame["at"] == "output"]
        slopes = [loglog_slope(part["n_train"], part["R"]).value for _, part in output.groupby("seed")]
        found.append(Claim(DATA, architecture, "output", -1, 2 ** np.array(slopes)))
    table = pd.DataFrame([claim.row() for claim in found], columns=COLUMNS)
    return table.sort_values("claim", kind="stable", ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Ratios and verdicts at a glance: one row for each claim and layer, one column for each architecture.

    "+": reproduced, "(+)": within control, "-": not reproduced, "0": no detectable effect.
    """
    signs = {"reproduced": "+", "within control": "(+)", "not reproduced": "-", "no detectable effect": "0"}
    text = [f"{row.ratio:.2f} {signs.get(row.verdict, '?')}" for row in table.itertuples()]
    columns = list(dict.fromkeys(table["architecture"]))
    order = pd.MultiIndex.from_frame(table[["claim", "at"]].drop_duplicates())
    wide = table.assign(text=text).pivot(index=["claim", "at"], columns="architecture", values="text")
    return wide.reindex(index=order, columns=columns).fillna("")


def still_hold(without: pd.DataFrame, under: pd.DataFrame) -> pd.DataFrame:
    """Which claims that are reproduced without noise in training are reproduced with it; tables of `claims`.

    Columns: claim, architecture, at, ratio and verdict without noise, ratio_noisy, verdict_noisy.
    """
    keys = ["claim", "architecture", "at"]
    both = without.merge(under, on=keys, suffixes=("", "_noisy"))
    kept = both[(both["verdict"] == "reproduced") & (both["claim"] != D_STAYS)]  # training does not enter the latter
    return kept[[*keys, "ratio", "verdict", "ratio_noisy", "verdict_noisy"]].reset_index(drop=True)


def _values(frame: pd.DataFrame, quantity: str, state: str, at: str) -> pd.Series:
    """A quantity of one layer in one state, by seed."""
    rows = frame[(frame["state"] == state) & (frame["at"] == at)]
    return rows.set_index("seed")[quantity].sort_index()


def _with_depth(architecture: str, frame: pd.DataFrame) -> Iterator[Claim]:
    """Deep layers against the first; the control is the same before training, or what the head alone does."""

    def ratio(quantity: str, state: str, at: str, to: str = "first") -> pd.Series:
        return _values(frame, quantity, state, at) / _values(frame, quantity, state, to)

    for at in DEEP:
        before = "the same before training"
        control, controls = before, ratio("D", "initial", at)
        yield Claim(D_STAYS, architecture, at, 1, controls)
        if at == "output":
            control, controls = "the head alone, D_K / D_(K-1)", ratio("D", "trained", at, "last hidden")
        yield Claim(D_FALLS, architecture, at, -1, ratio("D", "trained", at), control, controls)
        yield Claim(G_GROWS, architecture, at, 1, ratio("G", "trained", at), before, ratio("G", "initial", at))


def _by_training(architecture: str, frame: pd.DataFrame) -> Iterator[Claim]:
    """Trained against initial at a fixed layer; the control of D is G at the same layer, and the reverse."""
    for at in FIXED:
        D, G, R = (_values(frame, q, "trained", at) / _values(frame, q, "initial", at) for q in "DGR")
        yield Claim(D_LOWER, architecture, at, -1, D, "G at this layer", G)
        yield Claim(G_HIGHER, architecture, at, 1, G, "D at this layer", D)
        if at != "first":
            yield Claim(R_LOWER, architecture, at, -1, R)


def _about_pooling(architecture: str, frame: pd.DataFrame, spectra: pd.DataFrame) -> Iterator[Claim]:
    """Shuffled against trained channels, and the homogeneous filters after training against before."""
    for at in DEEP:
        trained = _values(frame, "D", "shuffled", at) / _values(frame, "D", "trained", at)
        control = None
        if "shuffled initial" in set(frame["state"]):
            control = _values(frame, "D", "shuffled initial", at) / _values(frame, "D", "initial", at)
        yield Claim(CHANNELS, architecture, at, 1, trained, "shuffling before training", control)
    shares = spectra.assign(rough=spectra["mode"] == spectra.groupby("layer")["mode"].transform("max"))
    changes = []
    for rows in (shares[shares["mode"] == 0], shares[shares["rough"]]):
        share = rows.groupby(["state", "seed"])["share"].mean()
        changes.append(share["trained"] / share["initial"])
    yield Claim(SPACE, architecture, "filters", 1, changes[0], "the roughest filters", changes[1])

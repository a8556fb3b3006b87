"""The paper's claims as ratios, beside a control and beside the floor of the probe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nin.checks import Check
from studies import statistics
from studies.statistics import Band, geometric_band, mean_interval

SOURCE = "interactions section 1"
COLUMNS = ["claim", "architecture", "ratio", "low", "high", "control", "control_low", "control_high", "over_floor",
           "over_floor_low", "over_floor_control", "verdict"]  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: that a ratio is above 1 (side 1) or below 1 (side -1), and further so than in a control.

    control    the network whose ratio shows what to expect if the claim does not hold: "untrained" or "permuted"
    ratio      from the rows of one network of one run (kind "both", all layers and orders), see `measure.by_layer`
    effect     the change that the claim is about, positive if as claimed, and `floor`: what the probe's mismatch alone
               gives, from the last hidden layer, whose truth is that of the output. None: no probe is used
    """

    text: str
    control: str
    side: int
    ratio: Callable[[pd.DataFrame], float]
    effect: Callable[[pd.DataFrame], float] | None = None
    floor: Callable[[pd.DataFrame], float] | None = None


def layers_of(rows: pd.DataFrame, quantity: str) -> np.ndarray:
    """A quantity of all orders together, layer by layer, the output last."""
    return rows[rows["order"] == 0].sort_values("depth")[quantity].to_numpy()


def by_order(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A quantity by layer (rows, the output last) and order (columns, from 1)."""
    return rows[rows["order"] > 0].pivot(index="depth", columns="order", values=quantity)


def mean_orders(rows: pd.DataFrame) -> np.ndarray:
    """sum_m m strength_m / sum_m strength_m of each layer, the output last."""
    strength = by_order(rows, "strength")
    return (strength @ strength.columns.to_numpy() / strength.sum(axis=1)).to_numpy()


def _order_of_output(rows: pd.DataFrame) -> float:
    """In units of (n + 1) / 2, the mean order if all orders were equally strong."""
    return mean_orders(rows)[-1] / ((rows["order"].max() + 1) / 2)


def _places(rows: pd.DataFrame, quantity: str) -> tuple[float, float, float]:
    """A quantity of the first, the middle (number L // 2 + 1 of L) and the last hidden layer."""
    hidden = layers_of(rows, quantity)[:-1]
    return hidden[0], hidden[len(hidden) // 2], hidden[-1]


def _last_over_first(quantity: str) -> Callable[[pd.DataFrame], float]:
    def ratio(rows: pd.DataFrame) -> float:
        first, _, last = _places(rows, quantity)
        return last / first

    return ratio


def _low_over_middle(quantity: str, *, output: bool) -> Callable[[pd.DataFrame], float]:
    """The mean of orders 1 and 2 over that of orders 3 and 4: at the output, or the geometric mean of hidden layers."""

    def ratio(rows: pd.DataFrame) -> float:
        table = by_order(rows, quantity)
        ratios = table.loc[:, 1:2].mean(axis=1) / table.loc[:, 3:4].mean(axis=1)
        return ratios.iloc[-1] if output else float(np.exp(np.log(ratios.iloc[:-1]).mean()))

    return ratio


def _disagreement(rows: pd.DataFrame, *, output: bool) -> float:
    """1 - IoU of orders 3 and 4 over 1 - IoU of orders 1 and 2."""
    return _low_over_middle("apart", output=output)(rows.assign(apart=1 - rows["generalisation"])) ** -1


def _simplest_over_least(quantity: str) -> Callable[[pd.DataFrame], float]:
    """The quantity of the hidden layer with the lowest mean order over that of the one with the highest."""

    def ratio(rows: pd.DataFrame) -> float:
        orders, values = mean_orders(rows)[:-1], layers_of(rows, quantity)[:-1]
        return values[orders.argmin()] / values[orders.argmax()]

    return ratio


def _mismatch(quantity: str) -> Callable[[pd.DataFrame], float]:
    """|last hidden layer - output|: 1 - completeness, the redundancy, or the difference in another quantity."""

    def floor(rows: pd.DataFrame) -> float:
        return abs(np.diff(layers_of(rows, quantity)[-2:])[0])

    return floor


def _rise(quantity: str, start: int, end: int) -> Callable[[pd.DataFrame], float]:
    """The change between two of the three places of `_places`."""
    return lambda rows: _places(rows, quantity)[end] - _places(rows, quantity)[start]


CLAIMS = (
    Claim("low orders are stronger (mean order of the output over (n + 1) / 2)", "untrained", -1, _order_of_output),
    Claim("completeness rises with depth (last over first)", "untrained", 1, _last_over_first("completeness"),
          _rise("completeness", 0, 2), _mismatch("completeness")),
    Claim("redundancy rises at first (middle over first)", "untrained", 1,
          lambda rows: _places(rows, "redundancy")[1] / _places(rows, "redundancy")[0],
          _rise("redundancy", 0, 1), _mismatch("redundancy")),
    Claim("redundancy falls in the end (last over middle)", "untrained", -1,
          lambda rows: _places(rows, "redundancy")[2] / _places(rows, "redundancy")[1],
          _rise("redundancy", 2, 1), _mismatch("redundancy")),
    Claim("IoU of seeds falls with order, output (1, 2 over 3, 4)", "permuted", 1,
          _low_over_middle("generalisation", output=True)),
    Claim("IoU of seeds falls with order, hidden layers (1, 2 over 3, 4)", "permuted", 1,
          _low_over_middle("generalisation", output=False)),
    Claim("1 - IoU rises with order, output (3, 4 over 1, 2)", "permuted", 1,
          lambda rows: _disagreement(rows, output=True)),
    Claim("1 - IoU rises with order, hidden layers (3, 4 over 1, 2)", "permuted", 1,
          lambda rows: _disagreement(rows, output=False)),
    Claim("stability falls with order, output (1, 2 over 3, 4)", "permuted", 1,
          _low_over_middle("stability", output=True)),
    Claim("stability falls with order, hidden layers (1, 2 over 3, 4)", "permuted", 1,
          _low_over_middle("stability", output=False)),
    Claim("IoU of seeds rises with depth (last over first)", "untrained", 1, _last_over_first("generalisation"),
          _rise("generalisation", 0, 2), _mismatch("generalisation")),
    Claim("stability rises with depth (last over first)", "untrained", 1, _last_over_first("stability"),
          _rise("stability", 0, 2), _mismatch("stability")),
    Claim("layers of lower order generalise better (lowest over highest)", "permuted", 1,
          _simplest_over_least("generalisation")),
    Claim("layers of lower order are more stable (lowest over highest)", "permuted", 1,
          _simplest_over_least("stability")),
)  # fmt: skip


def claims(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims, one row for each architecture, see COLUMNS.

    frame         the table of `measure.by_layer`
    ratio         see CLAIMS; geometric mean over seeds, with its 95 % interval (Student's t of the logarithms)
    control       the same ratio of the control, with its interval
    over_floor    effect / floor of the trained networks, and of the control (both over the trained networks' floor);
                  NaN for claims without a probe
    verdict       "no detectable effect": the interval contains 1, or there are too few seeds for one. "not reproduced":
                  it lies on the other side of 1. "within chance": it overlaps that of the control. "below the floor":
                  the effect is not larger than what the mismatch of the probe alone gives. Else "reproduced"
    """
    both, rows = frame[frame["kind"] == "both"], []
    for claim in CLAIMS:
        for architecture, runs in both.groupby("architecture", sort=False):
            ours, control = (
                [rows for _, rows in runs[runs["network"] == name].groupby("seed")] for name in ("model", claim.control)
            )
            band, beside = _band(claim.ratio, ours), _band(claim.ratio, control)
            over = Band(np.nan, np.nan, np.nan)
            other = np.nan
            if claim.effect is not None:
                floors = np.array([claim.floor(run) for run in ours])
                interval, of_control = (
                    mean_interval(np.array([claim.effect(run) for run in those]) / floors) for those in (ours, control)
                )
                over = Band(interval.mean, interval.mean - interval.half, interval.mean + interval.half)
                other = of_control.mean
            said = verdict(band, beside, claim.side, over.low if claim.effect is not None else np.inf)
            rows.append((claim.text, architecture, band.mean, band.low, band.high, beside.mean, beside.low, beside.high,
                         over.mean, over.low, other, said))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _band(ratio: Callable[[pd.DataFrame], float], runs: Sequence[pd.DataFrame]) -> Band:
    with np.errstate(invalid="ignore", divide="ignore"):
        return geometric_band([ratio(run) for run in runs])


def verdict(band: Band, control: Band, side: int, over_floor: float) -> str:
    """See `claims`; over_floor: the lower end of the effect in units of the floor."""
    end = control.high if side > 0 else control.low
    said = statistics.verdict(band, side=side, control=side * np.inf if np.isnan(end) else end)
    return "below the floor" if said == "reproduced" and not over_floor > 1 else said


def claim_checks(table: pd.DataFrame) -> list[Check]:
    """Each row of `claims`: the end of its interval that is nearer to 1 against the control's farther end and 1.

    The rival is the control's mean, which lies on the wrong side of its own farther end. Claims with a floor have a
    second check, that the effect exceeds the floor, whose rival is the control's effect.
    """
    sides = {claim.text: claim.side for claim in CLAIMS}
    checks = []
    for row in table.itertuples():
        name, up = f"{row.architecture}: {row.claim}", sides[row.claim] > 0
        measured, limit = (row.low, max(1, row.control_high)) if up else (row.high, min(1, row.control_low))
        # a control of one run has no interval: its value is the limit
        limit = limit if np.isfinite(limit) else row.control
        checks.append(Check(name, SOURCE, measured, limit, 0, ">=" if up else "<=", rival=row.control))
        if np.isfinite(row.over_floor):
            text = f"{row.architecture}: {row.claim.split(' (')[0]}, effect over the floor"
            checks.append(Check(text, SOURCE, row.over_floor_low, 1, 0, ">=", rival=row.over_floor_control))
    return checks

"""The turn of a node as a stopping rule: when it comes, and the test accuracy there, beside other rules."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nin.probes.memorisation import MemorisationMeter

KEYS = ["fraction", "sigma", "seed"]
NODE = "node"  # columns node0, node1, ...


def node_columns(table: pd.DataFrame) -> list[str]:
    """The columns with the norms of single nodes."""
    return [name for name in table if name.startswith(NODE) and name[len(NODE) :].isdigit()]


def turns(table: pd.DataFrame) -> pd.DataFrame:
    """When each run's node turns, and when its test loss does: one row for each run with a node.

    table: rows of `measure.follow`, of runs that differ in KEYS alone.
    turn        first step at which the meter has turned; NaN: never
    lowest      step of the lowest |W_NI| before the turn
    loss_step   step of the lowest test loss; best_step: of the best test accuracy (the first, if several)
    lead        ln(loss_step / turn): above 0 if the node turns first
    fitted      fraction of the wrong labels that is fitted at the turn
    rise        largest rise of ln |W_NI| in the run
    best, at_turn, at_lowest, at_end, at_loss   test accuracy [%] at these steps; a run that never turns goes to its end
    """
    rows = []
    for keys, run in table[table["sigma"] > 0].groupby(KEYS):
        run = run.sort_values("step").reset_index(drop=True)
        turned = run["turned"].to_numpy().astype(bool)
        last = len(run) - 1
        place = int(turned.argmax()) if turned.any() else last
        lowest = int(run["niw"][: place + 1].argmin())
        accuracy, loss = 100 * run["test_accuracy"], run["test_loss"]
        loss_step = run["step"][loss.argmin()]
        turn = float(run["step"][place]) if turned.any() else np.nan
        rows.append(
            dict(zip(KEYS, keys, strict=True))
            | {"turn": turn, "lowest": run["step"][lowest], "loss_step": loss_step}
            | {"best_step": run["step"][accuracy.argmax()], "lead": np.log(loss_step / turn)}
            | {"fitted": run["fitted"][place], "rise": run["rise"].max(), "best": accuracy.max()}
            | {"at_turn": accuracy[place], "at_lowest": accuracy[lowest], "at_end": accuracy[last]}
            | {"at_loss": accuracy[loss.argmin()]}
        )
    return pd.DataFrame(rows)


def rules(table: pd.DataFrame, *, sigma: float) -> pd.DataFrame:
    """Test accuracy [%] of stopping rules, a row for each fraction, seed and rule: KEYS, rule, accuracy, loss.

    best        the best step of the run with the node (no rule: it looks at the test data)
    turn        the node turns, fixed noise of this sigma, all training samples
    borrowed    rival: the same run, stopped at the median turn of the runs with other fractions, which know nothing
                of this one
    end         the last step of the same run
    held-out loss, held-out accuracy   lowest loss, best accuracy of a held-out tenth, without a node, which trains on
                the other nine tenths; the lowest of the whole run, as if patience were infinite
    no node, best; no node, end   the same training without a node
    loss: accuracy of `best` minus that of the rule, in points; for rules without a node, against the same `best`.
    """
    fixed = table[(table["resample"] == "fixed") & (table["sigma"] == sigma) & ~table["held_out"]]
    of_node, rows = turns(fixed), []
    for row in of_node.itertuples():
        run = _run(fixed, row.fraction, row.seed)
        others = of_node[of_node["fraction"] != row.fraction]["turn"].dropna()
        borrowed = len(run) - 1 if others.empty else int((run["step"] - others.median()).abs().argmin())
        plain = _run(table[(table["sigma"] == 0) & ~table["held_out"]], row.fraction, row.seed)
        held = _run(table[(table["sigma"] == 0) & table["held_out"]], row.fraction, row.seed)
        found = {
            "best": row.best,
            "turn": row.at_turn,
            "borrowed": 100 * run["test_accuracy"][borrowed],
            "end": row.at_end,
            "held-out loss": 100 * held["test_accuracy"][held["valid_loss"].argmin()],
            "held-out accuracy": 100 * held["test_accuracy"][held["valid_accuracy"].argmax()],
            "no node, best": 100 * plain["test_accuracy"].max(),
            "no node, end": 100 * plain["test_accuracy"].iloc[-1],
        }
        where = {"fraction": row.fraction, "sigma": sigma, "seed": row.seed}
        rows += [where | {"rule": r, "accuracy": value, "loss": row.best - value} for r, value in found.items()]
    return pd.DataFrame(rows)


def by_nodes(table: pd.DataFrame, counts: Sequence[int]) -> pd.DataFrame:
    """The turn of each run as read by its first m nodes alone: KEYS, nodes, turn (NaN: never)."""
    rows, names = [], node_columns(table)
    for keys, run in table[table["sigma"] > 0].groupby(KEYS):
        run = run.sort_values("step")
        for count in counts:
            for first in range(0, len(names) - count + 1, count):
                meter = MemorisationMeter()
                for step, norms in zip(run["step"], run[names[first : first + count]].to_numpy(), strict=True):
                    meter.enter(int(step), norms)
                turn = np.nan if meter.turn is None else float(meter.turn)
                rows.append(dict(zip(KEYS, keys, strict=True)) | {"nodes": count, "first": first, "turn": turn})
    return pd.DataFrame(rows)


def _run(table: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """The rows of one run in order; ValueError if there is none."""
    run = table[(table["fraction"] == fraction) & (table["seed"] == seed)]
    if run.empty:
        raise ValueError(f"table has no run of fraction={fraction}, seed={seed} that this rule needs; train it too.")
    return run.sort_values("step").reset_index(drop=True)

"""Small tables for the figures of notebook 11."""

import numpy as np
import pandas as pd

FRACTIONS = (0.0, 0.3)
SIGMAS = (1.0, 2.0)


def linear() -> pd.DataFrame:
    steps, tables = np.arange(0, 800, 10), []
    for d in (64, 192):
        for noise in (0.0, 0.3, 1.0):
            for mode, floor in (("fixed", noise / 2), ("step", 0.05)):
                niw = np.exp(-steps / 50) + floor
                columns = {"step": steps, "niw": 1.02 * niw, "stderr": 0.03 * niw, "theory": niw, "resample": mode}
                tables.append(pd.DataFrame({"d": d, "n": 128, "label_noise": noise} | columns))
    return pd.concat(tables)


def linear_turns() -> dict[str, list]:
    noise = [0.1, 0.3, 1.0]
    rows = pd.DataFrame({"d": [64] * 3 + [192] * 3, "label_noise": noise * 2})
    rows = rows.assign(node=80 / rows["label_noise"], loss=60 / rows["label_noise"], few=50 / rows["label_noise"])
    rows["node_measured"] = [np.nan, 300.0, 90.0] * 2
    return rows.assign(loss_measured=rows["node_measured"] / 1.1).to_dict("list")


def runs() -> pd.DataFrame:
    steps, tables = np.array([0, 10, 30, 100, 300, 1000]), []
    for fraction in FRACTIONS:
        for mode, sigma in (("fixed", 1.0), ("fixed", 2.0), ("epoch", 1.0)):
            for seed in (0, 1):
                grows = fraction * steps / 1000 if mode == "fixed" else -0.5 * steps / 1000
                columns = {"niw": 1 + grows + 0.01 * seed, "train_loss": 2 / (1 + steps / 100)}
                columns |= {"test_loss": 0.5 + 1 / (1 + steps / 30), "test_accuracy": 0.9 - fraction * steps / 2000}
                columns["fitted"] = steps / 1500 if fraction else np.full(6, np.nan)
                where = {"fraction": fraction, "sigma": sigma, "resample": mode, "seed": seed}
                tables.append(pd.DataFrame(where | {"step": steps} | columns))
    return pd.concat(tables)


def turns() -> pd.DataFrame:
    rows = [
        {"fraction": fraction, "sigma": sigma, "seed": seed, "turn": 300 / sigma + seed if fraction else np.nan,
         "loss_step": 500.0 + seed, "best_step": 200.0 + seed, "lead": 0.4 * sigma - 0.1 * seed if fraction else np.nan,
         "rise": fraction + 0.01, "best": 90.0, "at_turn": 85.0 + seed, "at_end": 70.0 + seed}
        for fraction in FRACTIONS for sigma in SIGMAS for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def rules() -> pd.DataFrame:
    names = ("turn", "borrowed", "held-out loss", "held-out accuracy", "end", "no node, end")
    rows = [
        {"fraction": fraction, "seed": seed, "rule": rule, "loss": (1 + place) * fraction + 0.1 * seed}
        for fraction in FRACTIONS for seed in (0, 1) for place, rule in enumerate(names)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def cases() -> pd.DataFrame:
    found = turns()
    found = found[found["sigma"] == 1.0]
    return pd.concat([found.assign(case="as above"), found.assign(case="convolutional")])

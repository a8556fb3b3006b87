"""Which number, known before training, predicts where catapults and divergence begin, and where does it fail?"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import nin
from benchmarks.report import table
from nin.support import paths
from nin.support.threads import threads
from studies.phase_borders import losses, scores
from studies.phase_borders.measure import CANDIDATES, DIVERGENCES, OWN, SEEDS, measure
from studies.phase_borders.networks import Case, cases

FOLDER = paths.root() / "data"
QUICK = ("depth 1", "width 32")  # with one noise scale and one seed: for tests
FILES = {"borders": "phase_borders.csv", "losses": "phase_borders_by_loss.csv"}


def run() -> str:
    """Measure all cases, about an hour on one core, write the tables of FILES into data/, and report."""
    return report(*measure_all(cases(), folder=FOLDER))


def stored() -> str:
    """The report on the tables that the last run wrote."""
    borders, control = (pd.read_csv(FOLDER / FILES[name]) for name in ("borders", "losses"))
    return report(borders, control)


def quick(folder: Path) -> str:
    """Two cases with one seed and one noise scale, and one loss at three learning rates, within a minute."""
    chosen = [case for case in cases() if case.name in QUICK]
    return report(*measure_all(chosen, folder=folder, seeds=1, ratios=(0.1,), rates=losses.RATES["mse"]))


def measure_all(
    chosen: Sequence[Case],
    *,
    folder: Path,
    seeds: int = SEEDS,
    ratios: Sequence[float] | None = None,
    rates: Sequence[float] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The borders of all cases, those of both losses (only MSE if rates are given), and the names of cases left out.

    Each table is written after each case, so that an interrupted run loses one case.
    """
    borders, left_out = [], [case.name for case in chosen if not case.available]
    with threads(1):
        for case in chosen:
            if not case.available:
                continue
            begin = time.process_time()
            borders.append(measure(case, seeds=seeds, ratios=ratios))
            _write(folder / FILES["borders"], pd.concat(borders))
            print(f"{case.name}: {time.process_time() - begin:.0f} s", file=sys.stderr, flush=True)
        data = nin.load_data("digits")
        both = {"mse": rates} if rates else losses.RATES
        control = [losses.borders_in_sigma(loss, data, seeds=range(seeds), rates=both[loss]) for loss in both]
        _write(folder / FILES["losses"], pd.concat(control))
    return pd.concat(borders, ignore_index=True), pd.concat(control, ignore_index=True), left_out


def report(borders: pd.DataFrame, control: pd.DataFrame, left_out: Sequence[str] = ()) -> str:
    """The tables: candidates over all cases, the best one by group and by case, divergence, MSE and cross-entropy."""
    node, plain = borders[~borders["own"]], borders[borders["own"]]
    settings = scores.by_setting(borders, CANDIDATES)
    of_node = settings[~settings["own"]]
    best = _score(of_node).sort_values("error").iloc[0]["candidate"]
    missing = f" Left out, without their data (set NIN_DATA): {', '.join(left_out)}." if left_out else ""
    parts = [
        f"{borders['case'].nunique()} cases; digits, 64-128-128-128-10 ReLU, cross-entropy, |B| = 128 unless the case "
        "says otherwise. Measured: eta at which the expected noisy loss spikes within 50 steps, on a grid of factor "
        "1.12. Errors are |log2(measured / predicted)|, with 95 % intervals over resampled cases; signed > 0: "
        f"predicted too early.{missing}",
        f"The node makes the catapult (plain SGD spikes only above {1 / OWN:.1f} times its rate); geometric means over "
        f"the seeds of a setting:\n\n{_candidates(of_node)}",
        f"The same, run by run, each of which scatters with its first batches:\n\n{_candidates(node)}",
        f"Plain SGD is unstable by itself at the onset, and the node is weak:\n\n{_candidates(plain)}",
        f"By group, settings where the node makes the catapult:\n\n{_groups(of_node, best)}",
        f"{best} case by case, geometric means over the seeds:\n\n{_cases(settings, best)}",
        f"Divergence and onset in units of eta_1:\n\n{_constants(borders)}",
        f"MSE against cross-entropy, ReLU network, fixed eta, 95 % intervals over seeds (rivals: "
        f"{', '.join(f'{name} {slope:g}' for name, slope in losses.RIVALS.items())}):\n\n{_losses(control)}",
    ]
    return "\n\n".join(parts)


def _score(rows: pd.DataFrame, names: Sequence[str] = CANDIDATES) -> pd.DataFrame:
    return scores.score(rows, names, generator=np.random.default_rng(0))


def _interval(row: pd.Series, name: str) -> str:
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _candidates(rows: pd.DataFrame) -> str:
    lines = [
        (row["candidate"], row["count"], *(_interval(row, name) for name in scores.STATISTICS))
        for _, row in _score(rows).iterrows()
    ]
    return table(("candidate", "rows", "median error", "within a factor 1.5", "signed"), lines)


def _groups(rows: pd.DataFrame, best: str) -> str:
    names = list(dict.fromkeys(("kappa_H", "kappa_avg", "one_step", "ahead_10", "sharpness", "self_consistent", best)))
    lines = []
    for group, part in rows.groupby("group", sort=False):
        found = _score(part, names).set_index("candidate")
        lines.append((group, len(part), *(_interval(found.loc[name], "error") for name in names)))
    return table(("group", "settings", *names), lines)


def _cases(rows: pd.DataFrame, best: str) -> str:
    error = scores.errors(rows, best)
    lines = [
        (row["case"], f"{row['sigma']:g}", "SGD" if row["own"] else "node", f"{row[best]:.3g}", f"{row['onset']:.3g}",
         f"{e:+.2f}", f"{scores.errors(rows, 'kappa_H')[k]:+.2f}")
        for k, ((_, row), e) in enumerate(zip(rows.iterrows(), error, strict=True))
    ]  # fmt: skip
    return table(("case", "sigma", "made by", "predicted", "measured", "log2 error", "of kappa_H"), lines)


def _constants(borders: pd.DataFrame) -> str:
    """Measured over predicted rates, and their scatter: the constants of nin.probes.prediction.

    blow_up_1, blow_up_10: the rates at which L~ rises to 2.5 times its start in one step, and to 10 times within ten.
    """
    lines = []
    for name, rows in (("node", borders[~borders["own"]]), ("SGD", borders[borders["own"]])):
        for border in ("onset", "divergence"):
            for rival in ("one_step", "ahead_10", "onset", *(DIVERGENCES if border == "divergence" else ())):
                ratios = (rows[border] / rows[rival]).to_numpy(dtype=float)
                ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
                if border != rival and len(ratios):
                    within = (np.abs(np.log2(ratios / np.median(ratios))) < scores.CLOSE).mean()
                    lines.append(
                        (name, f"{border} / {rival}", len(ratios), f"{np.median(ratios):.2f}",
                         f"{scores.scatter(ratios):.2f}", f"{within:.2f}")
                    )  # fmt: skip
    return table(("made by", "ratio", "runs", "median", "scatter, a factor", "within 1.5 of the median"), lines)


def _losses(control: pd.DataFrame) -> str:
    lines = []
    for loss, rows in control.groupby("loss", sort=False):
        for name in ("catapult", "divergence"):
            slope = losses.slopes(rows, name)
            kappas = rows.groupby("eta")[f"kappa_{name}"].median()
            lines.append((loss, name, f"{slope.mean:.2f} +- {slope.half:.2f}",
                          ", ".join(f"{eta:g}: {kappa:.3g}" for eta, kappa in kappas.items())))  # fmt: skip
    return table(("loss", "border", "d ln sigma / d ln eta", "kappa_H at the border, median over seeds, by eta"), lines)


def _write(path: Path, frame: pd.DataFrame) -> None:
    paths.write(path, frame.to_csv(index=False, float_format="%.4g").encode())

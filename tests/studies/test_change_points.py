"""Catches: jumps found at the wrong step, smooth changes passed off as sudden, coincidences passed off as more."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from studies.four_probes.change_points import change_point, change_points, together

STEPS = np.array([0, 1, 3, 7, 15, 31, 63])


@pytest.mark.parametrize("k", range(1, len(STEPS)))
def test_a_jump_is_found_where_it_is(k):
    step, explained = change_point(STEPS, np.where(np.arange(len(STEPS)) < k, 2.0, -1.0))
    assert np.log2(step + 1) == pytest.approx(k - 0.5) and explained == pytest.approx(1)


def test_a_straight_line_has_three_quarters_explained():
    number = np.arange(2000.0)
    step, explained = change_point(number, 3 - 0.5 * number)
    assert explained == pytest.approx(0.75, abs=1e-6) and step == pytest.approx(999.5, abs=1e-3)


def test_against_a_search_over_all_pairs_of_constants():
    generator = np.random.default_rng(0)
    values = generator.normal(size=len(STEPS))
    best = min(
        range(1, len(STEPS)),
        key=lambda k: np.var(values[:k]) * k + np.var(values[k:]) * (len(values) - k),
    )
    step, explained = change_point(STEPS, values)
    assert step + 1 == pytest.approx(np.sqrt((STEPS[best - 1] + 1) * (STEPS[best] + 1)))
    within = np.var(values[:best]) * best + np.var(values[best:]) * (len(values) - best)
    assert explained == pytest.approx(1 - within / (np.var(values) * len(values)))


@pytest.mark.parametrize("values", [[1.0] * 7, [np.nan] * 7, [1, 2, 3, np.nan, np.nan, np.nan, np.nan], [0.1] * 7])
def test_what_does_not_change_has_no_change_point(values):
    assert np.isnan(change_point(STEPS, np.array(values))).all()


def test_snapshots_without_a_value_are_passed_over():
    values = np.array([0, 0, np.nan, np.nan, 1, 1, 1.0])
    assert change_point(STEPS, values) == pytest.approx((np.sqrt(2 * 16) - 1, 1))


def test_every_run_and_quantity_has_a_row():
    rows = [
        (run, name, s, float(s >= cut)) for run, name, cut in ((0, "a", 3), (1, "a", 15), (0, "b", 7)) for s in STEPS
    ]
    table = change_points(
        pd.DataFrame(rows, columns=["run", "quantity", "step", "value"]).sample(frac=1, random_state=0)
    )
    found = {(row.run, row.quantity): np.log2(row.step + 1) for row in table.itertuples()}
    assert found == pytest.approx({(0, "a"): 1.5, (1, "a"): 3.5, (0, "b"): 2.5})


def points(**columns) -> pd.DataFrame:
    tables = [pd.DataFrame({"run": range(len(v)), "quantity": name, "step": v}) for name, v in columns.items()]
    return pd.concat(tables, ignore_index=True)


def test_shares_and_chance_against_all_permutations():
    a, b = [1, 10, 100, 1000, 30], [2, 9, 900, 100, 3000]
    row = together(points(a=a, b=b)).iloc[0]
    near = lambda p, q: abs(np.log((p + 1) / (q + 1))) <= np.log(2) * (1 + 1e-9)  # noqa: E731
    assert row["share"] == np.mean([near(p, q) for p, q in zip(a, b, strict=True)]) == 0.4
    shares = [np.mean([near(p, q) for p, q in zip(a, order, strict=True)]) for order in permutations(b)]
    assert row["chance"] == pytest.approx(np.mean(shares), abs=0.02)
    assert row["p"] == pytest.approx(np.mean(np.array(shares) >= 0.4), abs=0.03)
    assert row["runs"] == 5 and row["low"] < 0.4 < row["high"]


def test_quantities_that_change_together_are_distinguished_from_others():
    generator = np.random.default_rng(1)
    a = np.exp(generator.uniform(0, 7, 20))
    table = together(points(a=a, b=1.2 * a, c=generator.permutation(a))).set_index(["first", "second"])
    assert table.loc[("a", "b"), "p"] < 0.01 and table.loc[("a", "b"), "rank"] == 1
    assert table.loc[("a", "c"), "p"] > 0.05


def test_one_time_for_all_runs_is_no_more_than_chance():
    row = together(points(a=[10.0] * 6, b=[11.0] * 6)).iloc[0]
    assert row["share"] == row["chance"] == row["p"] == 1 and np.isnan(row["rank"])


def test_runs_without_a_change_are_left_out():
    assert together(points(a=[1.0, np.nan, 3.0], b=[1.0, 2.0, np.nan])).iloc[0]["runs"] == 1
    assert together(points(a=[np.nan], b=[1.0])).empty

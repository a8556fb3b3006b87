"""Catches: jumps found at the wrong step, smooth changes passed off as sudden, coincidences passed off as more."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from studies.four_probes.change_points import change_point, change_points, number_by_chance, together

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


SIGMAS, SEEDS = (0.0, 1.0), (0, 1, 2, 3)


def points(**columns) -> pd.DataFrame:
    """Steps (sigmas, seeds) of each quantity."""
    rows = [
        (sigma, seed, name, steps[i][j])
        for name, steps in columns.items()
        for i, sigma in enumerate(SIGMAS[: len(steps)])
        for j, seed in enumerate(SEEDS[: len(steps[i])])
    ]
    return pd.DataFrame(rows, columns=["sigma", "seed", "quantity", "step"])


def near(p, q):
    return abs(np.log((p + 1) / (q + 1))) <= np.log(2) * (1 + 1e-9)


def test_shares_and_chance_against_all_orders_of_the_seeds():
    a, b = [[1, 10, 100, 1000], [5, 50, 500, 5]], [[2, 9, 900, 100], [5, 400, 60, 6]]
    row = together(points(a=a, b=b)).iloc[0]
    shares = [
        np.mean([near(a[i][j], b[i][order[j]]) for i in range(2) for j in range(4)]) for order in permutations(range(4))
    ]
    assert row["share"] == shares[0] == 0.5
    assert row["chance"] == pytest.approx(np.mean(shares))
    assert row["p"] == pytest.approx(np.mean(np.array(shares) >= shares[0]))
    assert row["runs"] == 8


def test_what_a_phase_delays_in_all_seeds_is_no_evidence():
    """Both change late at one sigma, for every seed: exchanging runs singly would call that a relation."""
    both = [[10, 10, 10, 10], [1000, 1000, 1000, 1000]]
    row = together(points(a=both, b=both)).iloc[0]
    assert row["share"] == row["chance"] == row["p"] == 1 and row["rank"] == pytest.approx(1)


def test_quantities_that_change_together_are_distinguished_from_others():
    a = [[1, 10, 100, 1000], [2, 20, 200, 2000]]
    turned = [steps[1:] + steps[:1] for steps in a]
    table = together(points(a=a, b=a, c=turned)).set_index(["first", "second"])
    assert table.loc[("a", "b"), "p"] == pytest.approx(1 / 24) and table.loc[("a", "b"), "rank"] == 1
    assert table.loc[("a", "c"), "p"] > 0.05


def test_the_number_of_pairs_by_chance():
    """Exact for one pair: the probability that a random order has p < level."""
    a, b = [[1, 10, 100, 1000], [5, 50, 500, 5]], [[1, 10, 100, 1000], [5, 50, 500, 6]]
    shares = np.array([
        np.mean([near(a[i][j], b[i][order[j]]) for i in range(2) for j in range(4)]) for order in permutations(range(4))
    ])  # fmt: skip
    p = [np.mean(shares >= share) for share in shares]
    counts = number_by_chance(points(a=a, b=b))
    assert counts.mean() == pytest.approx(np.mean(np.array(p) < 0.05), abs=0.02) and counts.max() == 1


def test_runs_without_a_change_are_left_out():
    row = together(points(a=[[1.0, np.nan, 3.0]], b=[[1.0, 2.0, np.nan]])).iloc[0]
    assert row["runs"] == 1 and row["share"] == 1
    assert together(points(a=[[np.nan]], b=[[1.0]])).empty


def test_too_many_seeds_are_refused():
    rows = [(0.0, seed, name, 1.0) for seed in range(7) for name in "ab"]
    with pytest.raises(ValueError, match="7 seeds"):
        together(pd.DataFrame(rows, columns=["sigma", "seed", "quantity", "step"]))

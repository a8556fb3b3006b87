"""Catches: a value that is drawn otherwise than it was measured because csv has no word for it."""

import numpy as np
import pandas as pd
import pytest

from nin.figures import Saved, panels, redraw, save, tables

DATES = pd.to_datetime(["2020-01-02 03:04:05", "2021-02-03 00:00:00"])
KEPT = {
    "not missing": ["NA", "nan"],
    "leading zeros": ["02", "1e3"],
    "words": ["True", "False"],
    "infinite words": ["inf", "-1"],
    "empty": ["", "a"],
    "all empty": ["", ""],
    "missing": ["01", None],
    "blanks": [" a ", 'é,"\n'],
    "booleans": [True, False],
    "some booleans": [True, None],
    "dates": DATES,
    "zone": DATES.tz_localize("Europe/Berlin"),
    "no date": [DATES[0], pd.NaT],
    "durations": pd.to_timedelta([1, 2.5], "s"),
    "floats": [0.1 + 0.2, 5e-324],
    "infinities": [np.inf, -np.inf],
    "missing numbers": [np.nan, 1.0],
    "large": [2**62 + 1, -(2**62)],
    "unsigned": np.uint64([2**64 - 1, 0]),
    "complex": [1 + 2j, 0.1j],
    "categories": pd.Categorical(["02", "01"], categories=["02", "01"]),
}


def same(one, other):
    missing = pd.isna(one), pd.isna(other)
    return missing[0] == missing[1] and (
        missing[0] or (one == other and isinstance(one, str) == isinstance(other, str))
    )


@pytest.mark.parametrize("name", KEPT)
def test_what_is_saved_is_read_back(name):
    data = pd.DataFrame({name: KEPT[name], "other": [1, 2]})
    content, kinds = tables.written(data)
    back = tables.read(content, kinds)
    assert all(map(same, data[name].tolist(), back[name].tolist())), (kinds, back)
    assert back["other"].tolist() == [1, 2] and set(kinds) <= {name}
    assert tables.written(back)[0] == content


REFUSED = {
    "mixed": (pd.DataFrame({"x": [1, "a"]}), r"data column 'x' \(int, str\) does not survive csv; make it"),
    "booleans and numbers": (pd.DataFrame({"x": [True, 2]}), r"data column 'x' \(bool, int\)"),
    "booleans and words": (pd.DataFrame({"x": [True, "True"]}), r"data column 'x' \(bool, str\)"),
    "empty and missing": (pd.DataFrame({"x": ["", None], "y": 1}), "'x'.*and either empty text or missing"),
    "lists": (pd.DataFrame({"x": [[1], [2]]}), r"data column 'x' \(list\)"),
    "arrays": (pd.DataFrame({"x": [np.ones(2)] * 2}), r"data column 'x' \(ndarray\)"),
    "integers and missing": (pd.DataFrame({"x": pd.array([2**60 + 1, None], dtype="Int64")}), "'x'"),
    "bare days": (pd.DataFrame({"x": [DATES[0].date()]}), r"data column 'x' \(date\)"),
    "an index": (pd.DataFrame({"x": [1]}, index=["a"]), r"an index \(without a name\), .*data.reset_index\(\)"),
    "a named one": (pd.DataFrame({"x": [1], "y": 2}).set_index("x"), r"an index \('x'\)"),
    "two indices": (pd.DataFrame({"x": [1], "y": 2, "z": 3}).set_index(["x", "y"]), r"an index \('x', 'y'\)"),
    "days as index": (pd.DataFrame({"x": [1, 2]}, index=DATES), "an index"),
    "two levels": (pd.DataFrame({("a", "b"): [1]}), "columns of several levels"),
    "numbered": (pd.DataFrame({0: [1]}), "data has the column 0; name each by a text"),
    "nameless": (pd.DataFrame({"": [1]}), "data has the column ''"),
    "twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "the column 'a' twice"),
    "none": (pd.DataFrame(), "data has no columns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_csv_would_lose_is_refused_before_it_is_drawn(name, tmp_path):
    data, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        save(never, "mine", data=data, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def never(data):
    pytest.fail("it was drawn")


def words(data):
    """Fails unless it gets what was saved."""
    assert data["layer"].tolist() == ["02", "NA"] and data["day"].tolist() == DATES.tolist()
    figure, axes = panels(1, 1)
    axes[0, 0].plot(data["day"], data["y"])
    return figure


def test_a_figure_is_drawn_again_from_the_same_values(tmp_path):
    data = pd.DataFrame({"layer": ["02", "NA"], "day": DATES, "y": [1.0, 2.0]})
    save(words, "mine", data=data[data["y"] > 0], folder=tmp_path)
    assert Saved("mine", "quick", tmp_path).sidecar["columns"] == {"layer": "text", "day": "datetime64[us]"}
    before = (tmp_path / "mine.svg").read_bytes()
    redraw("mine", folder=tmp_path)
    assert (tmp_path / "mine.svg").read_bytes() == before


def test_tables_of_before_are_read_as_before():
    content = b"a,b\n02,NA\n3,x\n"
    pd.testing.assert_frame_equal(tables.read(content, None), pd.DataFrame({"a": [2, 3], "b": [None, "x"]}))


@pytest.mark.parametrize("kinds", [{"c": "text"}, {"a": "os.system"}, {"b": "int64"}, {"a": ["text"]}])
@pytest.mark.usefixtures("unchecked")
def test_kinds_of_strangers_are_refused(kinds):
    with pytest.raises(ValueError, match=r"column .?[abc]"):
        tables.read(b"a,b\n1,x\n", kinds)

"""Catches: bad input that is accepted, or answered with words from deep inside torch, NumPy, pandas or the parser.

Each case must end in one line that names the argument, its value and what is allowed, raised in nin itself; on the
command line, exit code 2. `python tests/bad_input/test_bad_input.py` counts them by topic.
"""

import contextlib
import re
import sys
import traceback
import warnings
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import bad_commands
import bad_datasets
import bad_figures
import bad_nodes
import bad_phases
import bad_probes
import bad_runs
import bad_training

TOPICS = {
    topic.__name__: topic.CASES
    for topic in (
        bad_runs, bad_training, bad_nodes, bad_datasets, bad_phases, bad_probes, bad_figures, bad_commands
    )
}  # fmt: skip
ALL = [pytest.param(*case, id=case[0]) for cases in TOPICS.values() for case in cases]


def verdict(expression: str, said: str) -> str:
    """ "good", "accepted", or why the answer to a case is cryptic."""
    import scene

    try:
        eval(expression, vars(scene))
    except AssertionError as error:
        return f"cryptic: {error}"
    except Exception as error:
        text, place = str(error), Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        what = f"{type(error).__name__} in {place.name}: {text}"
        if not isinstance(error, (ValueError, TypeError, OSError)) or isinstance(error, UnicodeError):
            return f"cryptic: {what}"
        if "nin" not in place.parts and place.name != "scene.py":
            return f"from deep inside: {what}"
        if "\n" in text.strip() or not text:
            return f"several lines: {what}"
        if not re.search(".*".join(re.escape(part) for part in said.split(" ... ")), text):
            return f"without {said!r}: {what}"
        return "good"
    return "accepted"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A case that is accepted writes nothing into the clone, and reads no one's data."""
    monkeypatch.setenv("NIN_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("NIN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("expression", "said"), ALL)
def test_bad_input_is_named(expression, said):
    assert verdict(expression, said) == "good"


def test_there_are_enough_cases_and_none_twice():
    expressions = [expression for cases in TOPICS.values() for expression, _ in cases]
    assert len(expressions) >= 300 and len(set(expressions)) == len(expressions)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"{'topic':16}{'cases':>7}{'good':>7}{'cryptic':>9}{'accepted':>10}")
    total = [0, 0, 0, 0]
    for topic, cases in TOPICS.items():
        with contextlib.redirect_stderr(None if "-v" in sys.argv else sys.stderr):
            found = [verdict(*case) for case in cases]
        if "-v" in sys.argv:
            for case, one in zip(cases, found, strict=True):
                if one != "good":
                    print(f"    {case[0]}\n        {one[:300]!r}")
        row = [len(found), found.count("good"), 0, found.count("accepted")]
        row[2] = row[0] - row[1] - row[3]
        total = [a + b for a, b in zip(total, row, strict=True)]
        print(f"{topic:16}{row[0]:7}{row[1]:7}{row[2]:9}{row[3]:10}")
    print(f"{'all':16}{total[0]:7}{total[1]:7}{total[2]:9}{total[3]:10}")

"""Catches: a parameter dropped or read wrongly, a bad value that starts a run, a failure that hides or stops others,
figures of a profile overwritten by other parameters, a notebook that only our runner can run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import written
from nbformat.v4 import new_code_cell, new_notebook

from nin import checks
from nin.__main__ import main
from nin.companion import notebooks, runner
from nin.companion.notebooks import begin, find, heading, profile_values
from nin.companion.parameters import Parameter, parameters, parse, parse_all, read_cell
from nin.companion.report import report
from nin.companion.runner import run
from nin.model import image_files
from nin.support import former, paths, provenance

PARAMETERS = """profile: str = "quick"  # parameter set
lr: float = 0.05  # learning rate, lr = eta, per step [> 0]
n: int | None = None  # samples, None for all [>= 1]
widths: tuple[int, ...] = (8, 4)  # units of each layer [>= 1, <= 64]
flag: bool = False  # draw the theory"""

WRITE = """import json, os, sys
from pathlib import Path
figures = Path(os.environ["NIN_FIGURES"]) / profile
figures.mkdir(parents=True, exist_ok=True)
state = dict(lr=lr, n=n, widths=widths, flag=flag, profile=profile, cwd=os.getcwd(), python=sys.executable)
(figures / "state.json").write_text(json.dumps(state))"""

CHECKS = """(figures / "checks.csv").write_text("notebook,name,source,measured,predicted,tolerance,relation,holds\\n"
    "NAME,slope,eq. (4),-1.98765,-2.0,0.1,=,HOLDS\\n")"""


def save(path: Path, *cells: str, source: str = PARAMETERS) -> Path:
    return written.notebook(path, source, *cells, title="# What it asks\ntext")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with one good notebook, a failing one, and two profiles, in place of the clone."""
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.delenv("NIN_FIGURES", raising=False)
    folder = tmp_path / "notebooks"
    save(folder / "01_good.ipynb", WRITE, CHECKS.replace("NAME", "01_good").replace("HOLDS", "True"))
    save(folder / "02_bad.ipynb", "raise RuntimeError('first\\nsecond')", "print('never')")
    (folder / "profiles").mkdir()
    (folder / "profiles" / "quick.yaml").write_text("# the defaults\n{}\n")
    (folder / "profiles" / "paper.yaml").write_text("01_good:\n  lr: 1e-3\n  widths: [16, 1e1]\n")
    return tmp_path


def state(figures: Path) -> dict:
    return json.loads((figures / "state.json").read_text())


def parameter(type_: str, default: object = None, range_: str = "") -> Parameter:
    return Parameter("x", type_, default, range=range_)


def test_notebooks_do_not_import_papermill():
    """Its progress bar warns in every kernel that has no widgets."""
    code = "import sys, nin.companion.notebooks; assert 'papermill' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reads_what_papermill_drops():
    source = (
        PARAMETERS + '\nlaw: Literal["gaussian", "uniform"] = "uniform"  # law\nmany: list[int] = [\n    1,\n    -2,\n]'
    )
    by_name = {p.name: p for p in read_cell(source)}
    assert list(by_name) == ["profile", "lr", "n", "widths", "flag", "law", "many"]
    assert by_name["lr"] == Parameter("lr", "float", 0.05, "learning rate, lr = eta, per step", "> 0")
    assert by_name["n"] == Parameter("n", "int | None", None, "samples, None for all", ">= 1")
    assert by_name["widths"].default == (8, 4)
    assert by_name["law"].type == 'Literal["gaussian", "uniform"]'
    assert by_name["many"] == Parameter("many", "list[int]", [1, -2])


def test_comment_of_a_value_over_several_lines_stands_on_the_last():
    assert read_cell("x: list[int] = [\n    1,  # one\n]  # sizes [>= 1]")[0].help == "sizes"


@pytest.mark.parametrize(
    "source, message",
    [
        ("a: int = 1\nb: float = 2 * 3.0", r"nb, parameters cell, line 2: b = 2 \* 3.0 is derived.*later cell"),
        ("a: int = len('x')", r"line 1: a = len\('x'\) is derived, not a literal"),
        ("lr = 0.1", r"line 1: `lr = 0.1` is not an annotated literal; write it with its type, as in `lr: float"),
        ("import os", r"line 1: `import os` is not an annotated literal; move it"),
        ("a: int", r"line 1: `a: int` has no default; give it one"),
        ("a: int = 1\na: int = 2", "line 2: a is set twice; remove one"),
        ("a: dict = {}", r"line 1: type dict is not supported; use int, float, bool, str, Literal"),
        ("a: int | float = 1", r"type int \| float is not supported"),
        ("a: tuple[int, int] = (1, 2)", r"type tuple\[int, int\] is not supported"),
        ("a: Literal[b] = 1", r"type Literal\[b\] is not supported"),
        ("a: int = 0  # count [>= 1]", r"line 1: a=0: expected an integer >= 1"),
        ("a: float = '1e-3'", r"a='1e-3' is not of type float"),
        ("a: tuple[int, ...] = [1]", r"a=\[1\] is not of type tuple\[int, ...\]"),
        ("a: bool = 'true'", "a='true' is not of type bool"),
        ("a: float = 1.0  # time [s]", r"\[s\] is not a range; write \[> 0\], .* units in parentheses"),
        ("a: str = 'b'  # name [> 0]", r"a: str takes no range; remove \[> 0\]"),
        ("a: int = = 1", "line 1: invalid syntax; write plain Python"),
    ],
)
def test_a_cell_that_cannot_be_read_names_line_and_cure(source, message):
    with pytest.raises(ValueError, match=message):
        read_cell(source, name="nb")


def test_exactly_one_parameters_cell(tmp_path):
    path = tmp_path / "01_none.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("x = 1")]), path)
    with pytest.raises(ValueError, match=r"01_none.ipynb has 0 code cells tagged 'parameters', expected one"):
        parameters(path)
    two = [new_code_cell("x: int = 1", metadata={"tags": ["parameters"]}) for _ in range(2)]
    nbformat.write(new_notebook(cells=two), path)
    with pytest.raises(ValueError, match="has 2 code cells"):
        parameters(path)


@pytest.mark.parametrize(
    "type_, text, value",
    [
        ("float", "1e-3", 0.001),
        ("float", "5", 5.0),
        ("float", " .5 ", 0.5),
        ("int", "1e3", 1000),
        ("int", 3.0, 3),
        ("int", "9007199254740993", 2**53 + 1),
        ("bool", "true", True),
        ("bool", "No", False),
        ("bool", "yes", True),
        ("bool", False, False),
        ("str", "a,b", "a,b"),
        ("float | None", "none", None),
        ("float | None", "None", None),
        ("float | None", None, None),
        ("float | None", "2", 2.0),
        ('Literal["a", "b"]', "b", "b"),
        ("Literal[1, 2]", "2", 2),
        ("tuple[float, ...]", "[1, 2]", (1.0, 2.0)),
        ("tuple[float, ...]", "1,2", (1.0, 2.0)),
        ("tuple[float, ...]", "(1, 2,)", (1.0, 2.0)),
        ("tuple[float, ...]", ["1e-3", 2], (0.001, 2.0)),
        ("list[int]", "7", [7]),
        ("list[int]", "[]", []),
        ("list[str]", "['a', \"b\", c]", ["a", "b", "c"]),
        ('list[Literal["a", "b"]]', "b,a", ["b", "a"]),
        ("tuple[int, ...] | None", "null", None),
    ],
)
def test_values_mean_what_people_mean(type_, text, value):
    parsed = parse(parameter(type_), text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "type_, range_, text, message",
    [
        ("float", "", "abc", "x='abc': expected a finite number"),
        ("float", "", "", "x='': expected a finite number"),
        ("float", "> 0", "nan", "x='nan': expected a finite number > 0"),
        ("float", "", "inf", "x='inf': expected a finite number"),
        ("float", "", True, "x=True: expected a finite number"),
        ("float", "", 10**400, "expected a finite number"),
        ("float", "> 0", "0", "x='0': expected a finite number > 0"),
        ("float", "0 < x < 1", "1", "x='1': expected a finite number > 0, < 1"),
        ("float", "0 < x < 1", "0", "> 0, < 1"),
        ("int", ">= 1, <= 8", "9", "x='9': expected an integer >= 1, <= 8"),
        ("int", "", "1.5", "x='1.5': expected an integer"),
        ("int", "", None, "x=None: expected an integer"),
        ("int", "", [1], r"x=\[1\]: expected an integer"),
        ("tuple[int, ...]", ">= 1", "2,0", "x='2,0': expected an integer >= 1"),
        ("list[int]", "", "1,,2", "x='1,,2': expected an integer"),
        ("list[int]", "", 3, r"x=3: expected a list, as in \[1, 2\] or 1,2"),
        ("list[int]", "", " ", "expected a list"),
        ("bool", "", "maybe", "x='maybe': expected one of true, yes, false, no"),
        ("bool", "", 1, "x=1: expected one of true"),
        ("str", "", 5, "x=5: expected a text"),
        ('Literal["gaussian", "uniform"]', "", "gausian", "choose one of gaussian, uniform; the nearest is gaussian"),
    ],
)
def test_bad_values_name_parameter_value_and_what_is_allowed(type_, range_, text, message):
    with pytest.raises(ValueError, match=message):
        parse(parameter(type_, range_=range_), text)


@pytest.mark.parametrize(
    "range_, inside, outside",
    [("> 0", 1e-9, 0), (">= 1", 1, 0.99), ("< -1.5", -2, -1.5), ("<= 2e0", 2, 2.1), ("0 <= x < 1", 0, 1)],
)
def test_ranges(range_, inside, outside):
    assert parse(parameter("float", range_=range_), inside) == inside
    with pytest.raises(ValueError, match="expected a finite number"):
        parse(parameter("float", range_=range_), outside)


def test_unknown_parameter_lists_those_there_are():
    known = read_cell(PARAMETERS)
    with pytest.raises(ValueError, match=r"02_x has no parameter 'width'; it has profile, .*; the nearest is widths\."):
        parse_all(known, {"width": 3}, name="02_x")


def test_find_by_number_name_and_path(clone):
    path = clone / "notebooks" / "01_good.ipynb"
    assert find("01") == find("01_good") == find("01_good.ipynb") == find(path) == path
    with pytest.raises(ValueError, match="notebook='7' is not a notebook; name one of 01_good, 02_bad, or give a path"):
        find("7")
    with pytest.raises(ValueError, match="notebook='0' fits several notebooks; name one of 01_good, 02_bad"):
        find("0")
    assert heading(path) == "What it asks"


def test_profiles_by_name(clone):
    assert profile_values("quick") == {}
    with pytest.raises(ValueError, match="profile='papr' is unknown; choose one of paper, quick"):
        profile_values("papr")
    (clone / "notebooks" / "profiles" / "odd.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="odd.yaml must map notebook names"):
        profile_values("odd")


def test_a_notebook_begins_with_the_values_of_its_scope(clone):
    scope = {"profile": "p", "lr": 1.0, "n": 2, "widths": [3], "flag": True, "other": 5}
    begin("01", scope, data={"digits": "abc"})
    source = provenance.source()
    assert source.parameters == {name: scope[name] for name in ("profile", "lr", "n", "widths", "flag")}
    assert (source.notebook, source.profile, source.data) == ("01_good", "p", {"digits": "abc"})
    with pytest.raises(ValueError, match="scope lacks lr, n of 01_good"):
        begin("01", {"profile": "p", "widths": [], "flag": True})


@pytest.mark.slow
def test_a_failure_is_saved_and_the_others_run(clone, capfd):
    bad, good = run(["02", "01"], progress=False)
    assert capfd.readouterr() == ("", "")
    assert (bad.notebook, bad.error) == ("02_bad", "RuntimeError: first second")
    outputs = [o for cell in nbformat.read(bad.executed, 4).cells for o in cell.get("outputs", [])]
    assert [(o.output_type, o.ename) for o in outputs] == [("error", "RuntimeError")]

    assert good.error is None
    assert good.executed == clone / "runs" / "quick" / "01_good.ipynb"
    assert good.figures == clone / "figures" / "quick"
    assert [path.name for path in good.written] == ["checks.csv", "state.json"]
    assert 20e6 < good.peak_bytes < 2e9
    assert 0 < good.seconds < 60
    seen = state(good.figures)
    assert seen["cwd"] == str((clone / "notebooks").resolve())
    assert seen["python"] == sys.executable
    assert (seen["lr"], seen["n"], seen["widths"], seen["flag"]) == (0.05, None, [8, 4], False)


@pytest.mark.slow
def test_what_a_failed_notebook_left_of_a_former_run_is_told(clone, capsys):
    folder = clone / "figures" / "quick"
    folder.mkdir(parents=True)
    for name, notebook in (("02a", "02_bad"), ("01a", "01_good")):
        (folder / f"{name}.json").write_text(json.dumps({"draw": "x", "arguments": {}, "notebook": notebook}))
    checks.save([checks.Check("old", "s", 1, 1)], notebook="02_bad", profile="quick")
    outcomes = run(["02"], progress=False)
    assert former.figures(folder) == {"02a": "02_bad"} and former.checks(folder) == ["02_bad"]
    assert report(outcomes, seconds=1.0, budget=False) == 1
    shown = capsys.readouterr().out
    assert "of a former run of 02_bad, and not made again: 02a, its checks" in shown and "0 checks" in shown


@pytest.mark.slow
def test_a_profile_and_an_out_folder_without_another_kernelspec_in_the_way(clone, monkeypatch):
    spec = clone / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(clone / "jupyter"))
    monkeypatch.chdir(clone)
    before = dict(os.environ)
    (outcome,) = run(["01"], profile="paper", out=Path("mine"), progress=False)
    assert dict(os.environ) == before
    assert outcome.error is None
    assert outcome.executed == clone / "mine" / "01_good.ipynb"
    seen = state(clone / "mine" / "figures" / "paper")
    assert (seen["lr"], seen["widths"], seen["profile"]) == (0.001, [16, 10], "paper")
    assert not (clone / "figures").exists()


@pytest.mark.slow
def test_a_relative_figures_folder_is_that_of_the_caller(clone, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", "mine")
    monkeypatch.chdir(clone)
    (outcome,) = run(["01"], progress=False)
    assert outcome.figures == clone / "mine" / "quick"
    assert state(outcome.figures)["profile"] == "quick"


@pytest.mark.slow
def test_other_parameters_leave_the_profiles_figures_alone(clone, capsys):
    assert main(["run", "--profile", "quick", "01", "lr=1e-2", "flag=yes"]) == 0
    assert state(clone / "runs" / "custom" / "figures" / "quick")["flag"] is True
    assert (clone / "runs" / "custom" / "01_good.ipynb").exists()
    assert not (clone / "figures").exists()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    rows = [line.split() for line in lines]
    assert "01_good slope eq. (4) -1.988 = -2 0.1 yes".split() in rows
    assert "01_good state json".split() in rows
    assert lines[-1] == "1 checks, 0 do not hold; 1 notebooks, 0 failed."


@pytest.mark.slow
def test_exit_code_1_for_failures_broken_checks_and_missing_checks(clone, capsys):
    folder = clone / "notebooks"
    save(folder / "03_broken.ipynb", WRITE, CHECKS.replace("NAME", "03_broken").replace("HOLDS", "False"))
    assert main(["run", "03"]) == 1
    assert "1 checks, 1 do not hold; 1 notebooks, 0 failed." in capsys.readouterr().out
    assert main(["run", "02"]) == 1
    out = capsys.readouterr().out
    assert "02_bad: RuntimeError: first second" in out
    assert "checks\n  none" in out
    save(folder / "03_broken.ipynb", "pass")
    assert main(["run", "03"]) == 1
    assert "no checks were written by 03_broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "01", "lr=abc"], "lr='abc': expected a finite number > 0"),
        (["run", "01", "rl=1"], "01_good has no parameter 'rl'; it has profile, lr, n, widths, flag"),
        (["run", "01", "lr=1", "lr=2"], "a parameter is given twice"),
        (["run", "01", "profile=paper"], "profile='paper': the runner sets it; choose it with --profile"),
        (["run", "09"], "notebook='09' is not a notebook"),
        (["run", "--profile", "papr"], "profile='papr' is unknown"),
        (["run", "--out", "FILE"], "File exists"),
    ],
)
def test_bad_arguments_end_with_2_before_anything_runs(clone, capsys, arguments, message):
    (clone / "file").write_text("")
    assert main([str(clone / "file") if a == "FILE" else a for a in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert not list(clone.rglob("state.json"))


def test_unknown_option_and_command_end_with_2(clone, capsys):
    for arguments in (["run", "--fast"], ["list", "01"], ["go"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "unrecognized arguments: --fast" in capsys.readouterr().err


def test_bad_profile_values_and_a_missing_profile_parameter(clone):
    profiles = clone / "notebooks" / "profiles"
    (profiles / "odd.yaml").write_text("01_good: {lr: -1}\n")
    with pytest.raises(ValueError, match="lr=-1: expected a finite number > 0"):
        run(["01"], profile="odd")
    (profiles / "odd.yaml").write_text("01_good: {rate: 1}\n")
    with pytest.raises(ValueError, match="odd.yaml: 01_good has no parameter 'rate'"):
        run(["01"], profile="odd")
    save(clone / "notebooks" / "04_other.ipynb", source="lr: float = 1.0")
    with pytest.raises(ValueError, match=r"04_other.ipynb lacks the parameter `profile: str"):
        run(["04"])


def test_no_notebooks_is_an_error(clone, capsys):
    for path in notebooks.every():
        path.unlink()
    assert main(["run"]) == 2
    assert main(["list"]) == 2
    assert capsys.readouterr().err.count("there are no notebooks in") == 2


def test_list_shows_type_default_range_and_meaning(clone, capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "01_good: What it asks" in out
    row = "n int | None None >= 1 samples, None for all".split()
    assert row in [line.split() for line in out.splitlines()]


def test_a_reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -m nin list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, cwd=paths.root())
    assert done.stderr == ""


def test_prepares_notebooks_with_their_values_and_outputs_without_running_them(clone, capsys):
    path = clone / "notebooks" / "01_good.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells[2].outputs = [nbformat.v4.new_output("stream", text="kept")]
    nbformat.write(book, path)
    assert main(["run", "01", "--profile", "paper", "flag=yes", "--prepare-only", "--out", str(clone / "mine")]) == 0
    assert capsys.readouterr().out.split() == [str(clone / "mine" / "01_good.ipynb")]
    prepared = nbformat.read(clone / "mine" / "01_good.ipynb", as_version=4)
    assert [cell.source for cell in prepared.cells[:2]] == [cell.source for cell in book.cells[:2]]
    values = {}
    exec(prepared.cells[2].source, values)
    assert (values["lr"], values["widths"], values["flag"], values["profile"]) == (0.001, [16, 10], True, "paper")
    kept = [(cell.source, cell.outputs) for cell in prepared.cells[3:]]
    assert kept == [(cell.source, cell.outputs) for cell in book.cells[2:]]
    assert not (clone / "figures").exists() and not (clone / "mine" / "figures").exists()
    assert nbformat.read(path, as_version=4) == book


@pytest.mark.slow
def test_plain_papermill_works_on_it(clone, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(clone / "plain"))
    path = clone / "notebooks" / "01_good.ipynb"
    papermill.execute_notebook(path, clone / "out.ipynb", {"lr": 0.5}, progress_bar=False)
    assert state(clone / "plain" / "quick")["lr"] == 0.5


@pytest.mark.slow
def test_data_that_cannot_be_had_are_refused_before_a_kernel_starts(clone, monkeypatch, capsys):
    """With both remedies; only if the notebook loads them, by the name that its parameter has."""

    def offline(*args):
        raise ConnectionError("no route to host")

    monkeypatch.delenv("NIN_DATA", raising=False)
    monkeypatch.setattr(image_files, "download", offline)
    source = PARAMETERS + '\ndata: str = "digits"  # real data'
    save(
        clone / "notebooks/03_loads.ipynb", "from nin import load_data", WRITE + "\nload_data(data, n=3)", source=source
    )
    assert main(["run", "03", "data=mnist"]) == 2
    told = capsys.readouterr().err
    assert "mnist: train-images" in told and "Connect to a network, or set NIN_DATA to a folder" in told
    assert not list((clone / "runs").rglob("*.ipynb"))
    save(clone / "notebooks/03_loads.ipynb", WRITE + "\nnumber = data", source=source)
    assert run(["03"], overrides={"data": "mnist"})[0].error is None


@pytest.mark.slow
def test_data_of_notebooks_that_are_up_to_date_are_not_asked_for(clone, monkeypatch):
    source, asked = PARAMETERS + '\ndata: str = "digits"  # real data', []
    monkeypatch.setattr(runner, "located", lambda name: asked.append(name))
    save(clone / "notebooks/03_loads.ipynb", "load_data = print", WRITE + "\nload_data(data)", source=source)
    for up_to_date in (False, True):
        (outcome,) = run(["03"])
        assert outcome.error is None and outcome.up_to_date == up_to_date
    assert asked == ["digits"]

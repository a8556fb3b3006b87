"""Catches what keeps a notebook from being a claim: parameters that cannot be set, cells that are not compared,
numbers too fine to compare, paths that hold in one folder only, errors and warnings swept aside.

Each rule is a function notebook -> problems, shown to find a bad notebook before it is asked about ours."""

import ast
import re

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from nin.companion.notebooks import every, profile_values
from nin.companion.parameters import TAG, Parameter, parse_all, read_cell
from nin.support import paths

NOTEBOOKS = every()
PROFILES = sorted(path.stem for path in (paths.notebooks() / "profiles").glob("*.yaml"))
CHECKED = "nbval-check-output"
MAX_LINES = 20
MAX_DIGITS = 3
FILE = re.compile(r"\.(csv|json|ya?ml|txt|pdf|png|svg|npz?|pt|parquet|gz|ipynb|py)$")
DECIMAL = re.compile(r"(?<![\w.])-?(\d+\.\d+|\d+(?=[eE][-+]?\d))(?:[eE][-+]?\d+)?(?![\w.]*\.\d)")


def code(book: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def unreadable_parameters(book: NotebookNode) -> list[str]:
    tagged = [cell.source for cell in code(book) if TAG in tags(cell)]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells tagged {TAG}"]
    try:
        known = read_cell(tagged[0])
    except ValueError as error:
        return [str(error)]
    numeric = [p for p in known if re.search(r"\b(int|float)\b", p.type)]
    found = [f"{p.name} has no comment" for p in known if not p.help]
    found += [f"{p.name} has no range" for p in numeric if not p.range]
    if ("profile", "str") not in [(p.name, p.type) for p in known]:
        found.append("no `profile: str`")
    return found


def unchecked_outputs(book: NotebookNode) -> list[str]:
    """Cells that are tagged to be compared, which nbval would not compare."""
    checked = [(i, cell) for i, cell in enumerate(book.cells) if CHECKED in tags(cell)]
    found = [] if checked else [f"no cell is tagged {CHECKED}"]
    found += [f"cell {i} is checked and has no execution count" for i, c in checked if not c.get("execution_count")]
    return found + [f"cell {i} is checked and has no output" for i, c in checked if not c.get("outputs")]


def fine_numbers(book: NotebookNode) -> list[str]:
    """Numbers in compared output that another machine may print otherwise."""
    found = []
    for cell in code(book):
        for output in cell.outputs if CHECKED in tags(cell) else ():
            for number in DECIMAL.findall(output.get("text") or output.get("data", {}).get("text/plain", "")):
                if len(number.replace(".", "").lstrip("0")) > MAX_DIGITS:
                    found.append(f"{number} has more than {MAX_DIGITS} digits")
    return found


def run_records(book: NotebookNode) -> list[str]:
    """Metadata that each run writes anew."""
    places = [("notebook", book.metadata)] + [(f"cell {i}", cell.metadata) for i, cell in enumerate(book.cells)]
    return [f"{place} has {key!r} metadata" for place, m in places for key in ("papermill", "execution") if key in m]


def path_strings(book: NotebookNode) -> list[str]:
    """Strings that name a file or folder, unless joined to a path: they hold in one working directory or machine."""
    found = []
    for cell in code(book):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            return [f"`{cell.source.splitlines()[0]}` does not begin plain Python"]
        nodes = list(ast.walk(tree))
        joined = {id(n.right) for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)}
        for node in nodes:
            text = node.value if isinstance(node, ast.Constant) else None
            if not isinstance(text, str) or "\n" in text:
                continue
            folder = text.startswith(("./", "../", "~", "figures/", "data/", "runs/")) or text in (".", "..")
            if folder or re.match(r"/\w", text) or (FILE.search(text) and "//" not in text and id(node) not in joined):
                found.append(f"{text!r} is a path; take it from nin.support.paths")
    return found


def hidden_warnings(book: NotebookNode) -> list[str]:
    hiding = re.compile(r"warnings\.(filterwarnings|simplefilter)|catch_warnings")
    return [f"{m[0]} hides warnings" for cell in code(book) for m in hiding.finditer(cell.source)]


def errors(book: NotebookNode) -> list[str]:
    """Errors, and what stands in red: warnings, or progress with its times."""
    outputs = [output for cell in code(book) for output in cell.outputs]
    found = [f"{output.ename} in the outputs" for output in outputs if output.output_type == "error"]
    return found + [f"{output.text!r} in red" for output in outputs if output.get("name") == "stderr"]


def missing_headings(book: NotebookNode) -> list[str]:
    lines = [line for cell in book.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    headings = {line.lstrip("#").strip().rstrip("?") for line in lines if line.startswith("#")}
    return [f"no heading {wanted!r}" for wanted in ("Checks", "What could be wrong") if wanted not in headings]


def long_cells(book: NotebookNode) -> list[str]:
    sizes = [(i, len(cell.source.splitlines())) for i, cell in enumerate(book.cells) if cell.cell_type == "code"]
    return [f"cell {i} has {lines} lines, at most {MAX_LINES}" for i, lines in sizes if lines > MAX_LINES]


def foreign_kernel(book: NotebookNode) -> list[str]:
    name = book.metadata.get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"kernel {name!r}, expected 'python3'"]


RULES = (
    unreadable_parameters,
    unchecked_outputs,
    fine_numbers,
    run_records,
    path_strings,
    hidden_warnings,
    errors,
    missing_headings,
    long_cells,
    foreign_kernel,
)


def good() -> NotebookNode:
    """A notebook that breaks no rule."""
    profile = 'profile: str = "quick"  # parameter set\nlr: float = 0.05  # learning rate, per step [> 0]'
    printed = [new_output("stream", text="slope -2.01 +- 0.0312, 1500 steps, 1.5e-05\n")]
    cells = [
        new_markdown_cell("# Question\n## Checks\n## What could be wrong?"),
        new_code_cell(profile, metadata={"tags": [TAG]}),
        new_code_cell('save(draw, "a_loss/step", label="loss.")\nread_csv(paths.root() / "data" / "a.csv")'),
        new_code_cell("print(1)", metadata={"tags": [CHECKED]}, execution_count=1, outputs=printed),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def spoil(book: NotebookNode, what: str) -> NotebookNode:
    """Break one rule of a good notebook."""
    parameters, plain, checked = book.cells[1:]
    match what:
        case "no parameters":
            parameters.metadata["tags"] = []
        case "derived":
            parameters.source += "\nhalf: float = 0.05 / 2  # half of it [> 0]"
        case "no comment":
            parameters.source += "\nflag: bool = True"
        case "no range":
            parameters.source += "\nmany: tuple[int, ...] = (1, 2)  # sizes"
        case "no profile":
            parameters.source = parameters.source.splitlines()[1]
        case "no checked cell":
            checked.metadata["tags"] = []
        case "no count":
            checked.execution_count = None
        case "no output":
            checked.outputs = []
        case "digits":
            checked.outputs[0].text = "slope -2.012\n"
        case "digits of a power":
            checked.outputs[0].text = "1.2345e-07\n"
        case "papermill":
            book.metadata["papermill"] = {}
        case "execution":
            plain.metadata["execution"] = {"iopub.status.busy": "2026"}
        case "relative":
            plain.source = 'open("../data/a")'
        case "bare file":
            plain.source = 'read_csv("curve.csv")'
        case "absolute":
            plain.source = 'open("/srv/data")'
        case "magic":
            plain.source = "%matplotlib inline"
        case "warnings":
            plain.source = 'warnings.filterwarnings("ignore")'
        case "error":
            plain.outputs = [new_output("error", ename="ValueError", evalue="x", traceback=[])]
        case "red":
            plain.outputs = [new_output("stream", name="stderr", text="50%, 3 s")]
        case "no checks":
            book.cells[0].source = "# Question\n## What could be wrong"
        case "no doubt":
            book.cells[0].source = "# Question\n## Checks\nWhat could be wrong"
        case "long":
            plain.source = "x = 1\n" * 20 + "x = 2"
        case "kernel":
            book.metadata["kernelspec"]["name"] = "ir"
    return book


@pytest.mark.parametrize(
    "rule, what, message",
    [
        (unreadable_parameters, "no parameters", "0 cells tagged parameters"),
        (unreadable_parameters, "derived", "half = 0.05 / 2 is derived"),
        (unreadable_parameters, "no comment", "flag has no comment"),
        (unreadable_parameters, "no range", "many has no range"),
        (unreadable_parameters, "no profile", "no `profile: str`"),
        (unchecked_outputs, "no checked cell", "no cell is tagged nbval-check-output"),
        (unchecked_outputs, "no count", "cell 3 is checked and has no execution count"),
        (unchecked_outputs, "no output", "cell 3 is checked and has no output"),
        (fine_numbers, "digits", "2.012 has more than 3 digits"),
        (fine_numbers, "digits of a power", "1.2345 has more than 3 digits"),
        (run_records, "papermill", "notebook has 'papermill' metadata"),
        (run_records, "execution", "cell 2 has 'execution' metadata"),
        (path_strings, "relative", "'../data/a' is a path"),
        (path_strings, "bare file", "'curve.csv' is a path"),
        (path_strings, "absolute", "'/srv/data' is a path"),
        (path_strings, "magic", "`%matplotlib inline` does not begin plain Python"),
        (hidden_warnings, "warnings", "warnings.filterwarnings hides warnings"),
        (errors, "error", "ValueError in the outputs"),
        (errors, "red", "'50%, 3 s' in red"),
        (missing_headings, "no checks", "no heading 'Checks'"),
        (missing_headings, "no doubt", "no heading 'What could be wrong'"),
        (long_cells, "long", "cell 2 has 21 lines, at most 20"),
        (foreign_kernel, "kernel", "kernel 'ir', expected 'python3'"),
    ],
)
def test_rule_sees_a_bad_notebook_and_passes_a_good_one(rule, what, message):
    assert rule(good()) == []
    (problem,) = rule(spoil(good(), what))
    assert message in problem


def test_every_rule_is_shown_to_fail():
    (shown,) = test_rule_sees_a_bad_notebook_and_passes_a_good_one.pytestmark
    assert {rule for rule, _, _ in shown.args[1]} == set(RULES)


def test_no_notebook_or_profile_is_overlooked():
    assert NOTEBOOKS and [path.stem[:2] for path in NOTEBOOKS] == [f"{n:02}" for n in range(1, len(NOTEBOOKS) + 1)]
    assert set(PROFILES) >= {"paper", "quick", "test"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, rule):
    assert rule(nbformat.read(path, as_version=4)) == []


def wrong_profile(values: dict, known: dict[str, list[Parameter]], *, defaults: bool) -> list[str]:
    """What a profile gives that its notebooks do not take, or, of the quick profile, that is not the default."""
    found = []
    for notebook, given in values.items():
        if notebook not in known:
            found.append(f"{notebook} is no notebook")
            continue
        try:
            parsed = parse_all(known[notebook], given, name=notebook)
        except ValueError as error:
            found.append(str(error))
            continue
        at = {p.name: p.default for p in known[notebook]}
        found += [f"{name}={v!r} is not the default" for name, v in parsed.items() if defaults and v != at[name]]
        found += ["profile is the runner's to set"] if "profile" in given else []
    return found


@pytest.mark.parametrize(
    "values, defaults, problems",
    [
        ({"01_a": {"lr": "5e-2"}}, True, []),
        ({"01_a": {"lr": 0.1}}, False, []),
        ({"01_a": {"lr": 0.1}}, True, ["lr=0.1 is not the default"]),
        ({"01_b": {}}, False, ["01_b is no notebook"]),
        ({"01_a": {"lr": -1}}, False, ["lr=-1: expected a finite number > 0."]),
        ({"01_a": {"profile": "quick"}}, False, ["profile is the runner's to set"]),
    ],
)
def test_wrong_profile_is_seen(values, defaults, problems):
    known = {"01_a": read_cell(good().cells[1].source)}
    assert wrong_profile(values, known, defaults=defaults) == problems


@pytest.mark.parametrize("profile", PROFILES)
def test_profile(profile):
    sources = {path.stem: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
    tagged = {stem: next(c.source for c in code(book) if TAG in tags(c)) for stem, book in sources.items()}
    known = {stem: read_cell(source) for stem, source in tagged.items()}
    values = profile_values(profile)
    assert values or profile == "quick"
    assert wrong_profile(values, known, defaults=profile == "quick") == []

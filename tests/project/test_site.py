"""Catches: a notebook, figure, check or public module that the site forgets; a docstring or formula that it misreads;
a broken link that its checker overlooks."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import nbformat
import pytest

from nin import checks
from studies.robust_learning.figures import robustness

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
NOT_INSTALLED = "sphinx is not installed: `make site` installs it"


def load(name: str):
    """A module of the site; its folder has the name of one of Python's own modules."""
    sys.path.insert(0, str(SITE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SITE))


NAMES = ("api_pages", "docstrings", "links", "mathml", "pages")
api_pages, docstrings, links, mathml, pages = map(load, NAMES)


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return pages.sources()


def test_every_notebook_is_on_the_first_page(sources):
    names = [path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")]
    assert names and set(names) <= set(pages.notebooks())
    for name in names:
        assert f"(notebooks/{name}.ipynb)" in sources["index.md"]
        assert f"\nnotebooks/{name}\n" in sources["index.md"]
    assert "{{" not in sources["index.md"]


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_every_figure_is_in_the_gallery(sources, profile):
    pictures = sorted((ROOT / "figures" / profile).glob("*.png"))
    if not pictures and profile == "quick":
        pytest.skip(f"there are no figures in figures/{profile} of this copy")
    assert any(path.with_suffix(".json").exists() for path in pictures)
    for path in pictures:
        if path.with_suffix(".json").exists():
            for suffix in pages.FILES:
                assert f'href="{profile}/{path.stem}.{suffix}"' in sources[f"figures/{profile}.md"]


def test_each_figure_says_how_to_make_it(sources):
    text = sources["figures/paper.md"]
    figure = next(figure for figure in pages.shown()["paper"] if figure.name == "02b_decay_times")
    assert "python -m nin run 02 --profile paper" in text
    assert 'nin.figures.redraw("02b_decay_times", profile="paper")' in text
    assert text.count("<summary>How to make it</summary>") == len(pages.shown()["paper"])
    assert pages.making(figure).count("`") == 0  # html, which shows them as they are


def test_tasks_name_what_there_is(sources):
    """Every name leads to its place on a page of the API, and every module is of use for some task."""
    for task, names in api_pages.TASKS.items():
        for name in names:
            module, _, member = name.rpartition(".")
            found = name if name in api_pages.MODULES else module
            assert found in api_pages.MODULES, name
            assert name in api_pages.MODULES or member in api_pages.public(importlib.import_module(module)), name
        assert docstrings.escape(task) in sources["api/index.md"]
    named = {
        name if name in api_pages.MODULES else name.rpartition(".")[0]
        for names in api_pages.TASKS.values()
        for name in names
    }
    assert named == set(api_pages.MODULES)


def test_every_check_is_in_the_table(sources):
    assert "paper" in pages.shown() and len(checks.table(ROOT / "figures" / "paper")) > 0
    for profile in pages.shown():
        for name in checks.table(ROOT / "figures" / profile)["name"]:
            assert f"| {docstrings.escape(name)} |" in sources["checks.md"]


def test_every_page_of_the_reference_is_on_the_site(sources):
    files = {f"docs/reference/{path.name}" for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert len(files) == 5 and files == set(pages.reference_pages())
    for place in files:
        assert f"\n{place.removesuffix('.md')}\n" in sources["index.md"]


def test_sources_of_checks_are_links(sources):
    place = "docs/reference/noise-injection-nodes.html"
    linked = pages.source("NIN, prediction 13, eq. (10)", "08_training_response")
    assert f'<a href="{place}#prediction-13">' in linked and f'<a href="{place}#equation-10">' in linked
    assert pages.source("identity 99", "06_spatial_stability") == "identity 99"
    assert f'| <a href="{place}#prediction-19">NIN\\, prediction 19</a> |' in sources["checks.md"]
    assert "training-response.html#prediction-13" in sources["checks.md"]


def test_every_public_name_has_its_place(sources):
    for name in api_pages.MODULES:
        module = importlib.import_module(name)
        page = sources[f"api/{name}.rst"]
        assert name in sources["api/index.md"]
        assert f".. automodule:: {name}\n" in page
        assert api_pages.public(module)
        for member in api_pages.public(module):
            assert re.search(rf"::? {re.escape(f'{name}.{member}')}\n|``{re.escape(f'{name}.{member}')}``", page), (
                member
            )
    assert ".. autofunction:: nin.theory.kappa\n" in sources["api/nin.theory.rst"]
    assert "``nin.load_data`` is :py:obj:`nin.model.data.load_data`" in sources["api/nin.rst"]
    assert ".. autoclass:: nin.probes.curvature.Thermometer\n" in sources["api/nin.probes.curvature.rst"]


def test_a_caption_is_what_the_draw_function_says(sources):
    shown = pages.caption(robustness)
    assert "Gain in test accuracy over the plain network" in shown
    assert shown.split(",")[0] in sources["figures/paper.md"]


def test_staged_copies_are_the_committed_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PROFILES", ("paper",))
    pages.stage(tmp_path / "source")
    for name in pages.notebooks():
        copy = tmp_path / "source" / "notebooks" / f"{name}.ipynb"
        assert copy.read_bytes() == (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()
    for target in pages.linked(pages.guide_page()):
        assert (tmp_path / "source" / target).read_bytes() == (ROOT / target).read_bytes()
    for place in pages.reference_pages():
        assert (tmp_path / "source" / place).read_bytes() == (ROOT / place).read_bytes()
    assert len(list((tmp_path / "source").glob("extra/figures/paper/*.csv"))) == len(pages.shown()["paper"])


def test_the_repository_is_that_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("no link")
    assert pages.repository() is None and "mybinder" not in pages.launch()
    (tmp_path / "README.md").write_text("[it](https://mybinder.org/v2/gh/ada/nin/HEAD?urlpath=lab)")
    assert pages.repository() == "ada/nin"
    assert pages.launch().count("https://mybinder.org/v2/gh/ada/nin/HEAD?urlpath=") == 2


def test_links_of_documents_are_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.md").write_text("![c](c.png) [up](../a/b.md) [out](../../elsewhere)")
    (tmp_path / "a" / "c.png").touch()
    assert pages.linked("[b](a/b.md#x) [d](https://d/) [e](#e) [f](f.md)", tmp_path) == ["a/b.md", "a/c.png"]


MARKUP = [
    *("|W_NI| and |x|", "x_T, y_", "*args", "**bold", "`name`_ `a``", "half `open", "``", "` a `", "a\\b", "___"),
    *("<H>: a", ".. note::", ":param x: y", "1. one", "- item", "[1]_", "::", "http://x"),
]


@pytest.mark.parametrize("text", MARKUP)
def test_prose_leaves_nothing_to_misread(text):
    """Without sphinx: outside of literals each sign of punctuation stands behind a backslash."""
    outside = re.sub(r"\\ ``[^`]+``\\ ", "", docstrings.prose(text))
    assert not re.search(r"[!-/:-@\[-`{-~]", re.sub(r"\\.", "", outside))


@pytest.mark.parametrize("text", [*MARKUP, "see `nin.inject`, `x`."])
def test_docutils_reads_prose_as_written(text):
    core = pytest.importorskip("docutils.core", reason=NOT_INSTALLED)
    tree = core.publish_doctree("\n".join(docstrings.as_rest([text])), settings_overrides={"report_level": 1})
    (paragraph,) = tree.children
    assert paragraph.tagname == "paragraph"
    assert {child.tagname for child in paragraph.children} <= {"#text", "literal"}
    assert paragraph.astext().replace("`", "") == text.replace("`", "")


def docstrings_of_nin() -> list[str]:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "nin").rglob("*.py")]
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return [
        text
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    ]


def test_every_docstring_keeps_its_words():
    """Without sphinx: nothing is lost but white space, backslashes, backticks and the frame of a block."""

    def words(text: str) -> str:
        return re.sub(r"[\s\\`]", "", text)

    assert len(docstrings_of_nin()) > 300
    for text in docstrings_of_nin():
        made = re.sub(
            r"^\.\. code-block:: \w+$", "", "\n".join(docstrings.as_rest(text.splitlines())), flags=re.MULTILINE
        )
        assert words(made) == words(text)


def test_docutils_reads_every_docstring_without_a_warning():
    core = pytest.importorskip("docutils.core", reason=NOT_INSTALLED)
    rest = ["\n".join(docstrings.as_rest(text.splitlines())) for text in docstrings_of_nin()]
    text = "\n\n".join(part.replace(".. code-block:: ", ".. code:: ") for part in rest)
    settings = {"report_level": 1, "halt_level": 1, "syntax_highlight": "none"}
    tags = {node.tagname for node in core.publish_doctree(text, settings_overrides=settings).findall()}
    flat = {"#text", "document", "paragraph", "literal", "literal_block"}
    assert tags <= flat | {"definition_list", "definition_list_item", "term", "definition"}


def test_blocks_of_a_docstring():
    lines = [
        "Words",
        "go on.",
        "",
        "x    a size",
        "       of one",
        "yy   another",
        "Then more.",
        "",
        ">>> 1",
        "1",
        "",
        "a  b",
        "c",
    ]
    assert docstrings.as_rest(lines) == [
        "Words go on\\.", "",
        "\\ ``x``\\ ", "   a size", "   of one", "\\ ``yy``\\ ", "   another", "",
        "Then more\\.", "",
        ".. code-block:: pycon", "", "   >>> 1", "   1", "",
        "\\ ``a``\\ ", "   b", "", "c", "",
    ]  # fmt: skip
    assert docstrings.as_rest(["   a = b", "   c = d"])[0] == ".. code-block:: text"


def test_letters_of_a_style_become_code_points():
    letters = {"double-struck": "ℝ", "script": "ℛ", "fraktur": "ℜ", "bold": "𝐑", "normal": None}
    for variant, wanted in letters.items():
        element = f'<mi mathvariant="{variant}">R</mi>'
        match = re.fullmatch(r'<(m[ion]) mathvariant="([\w-]+)">(\w)</\1>', element)
        assert mathml.styled(match) == (f"<mi>{wanted}</mi>" if wanted else element)


def formulas_of(markdown: str) -> list[str]:
    return [formula.strip("$") for formula in re.findall(r"\$\$.*?\$\$|\$[^$]+\$", markdown, flags=re.DOTALL)]


def test_every_formula_is_read():
    pytest.importorskip("py_mini_racer", reason="KaTeX's engine is not installed: `make site` installs it")
    formulas = []
    for name in pages.notebooks():
        cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        formulas += formulas_of(text)
    of_the_notebooks = len(formulas)
    for place in pages.reference_pages():
        formulas += formulas_of((ROOT / place).read_text())
    assert of_the_notebooks > 100 and len(formulas) > of_the_notebooks + 300
    assert all("<math" in mathml.mathml(formula, block=True) for formula in formulas)
    with pytest.raises(Exception, match="Undefined control sequence"):
        mathml.mathml(r"\nosuch", block=False)


def test_functions_have_a_space_before_an_argument_without_brackets():
    pytest.importorskip("py_mini_racer", reason="KaTeX's engine is not installed: `make site` installs it")
    assert "<mspace" in mathml.mathml(r"\log\tau", block=False)
    assert "<mspace" not in mathml.mathml(r"\log(\tau)", block=False)


def test_broken_links_are_seen(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.html").write_text(
        '<a id="here" href="#here"></a><a href="#gone"></a><a href="sub/"></a><a href="sub/index.html#x%20y"></a>'
        '<a href="sub/index.html#z"></a><img src="no.png"><a href="../out.html"></a><a href="https://x/y#z"></a>'
    )
    (tmp_path / "sub" / "index.html").write_text('<p id="x y"><a href="../a.html#here"></a></p>')
    broken, inside, outside = links.check(tmp_path)
    assert broken == [
        "a.html: #gone is not an anchor of that page",
        "a.html: sub/index.html#z is not an anchor of that page",
        "a.html: no.png is not there",
        "a.html: ../out.html is not there",
    ]
    assert (inside, outside) == (8, 1)
    assert links.main(str(tmp_path)) == 1


def test_a_site_without_pages_is_no_success(tmp_path):
    assert links.main(str(tmp_path)) == 1


@pytest.mark.parametrize("repo", [None, "ada/nin"])
def test_the_settings_can_be_read(monkeypatch, repo):
    pytest.importorskip("sphinx", reason=NOT_INSTALLED)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(pages, "repository", lambda: repo)
    monkeypatch.delitem(sys.modules, "conf", raising=False)
    conf = load("conf")
    assert conf.html_theme_options.get("repository_url") == (repo and f"https://github.com/{repo}")
    assert ("launch_buttons" in conf.html_theme_options) == bool(repo)
    assert conf.nb_execution_mode == "off"


def pins(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_locks_hold_names_and_versions_that_the_main_one_does_not():
    exact = re.compile(r"([A-Za-z0-9._-]+)==[0-9][A-Za-z0-9.]*")
    locked = {re.split("[=;]", line)[0] for line in pins(ROOT / "requirements.lock")}
    for folder, some in ((SITE, {"sphinx", "myst-nb"}), (ROOT / "tests", {"shapiq", "curvlinops-for-pytorch"})):
        names = {exact.fullmatch(line)[1] for line in pins(folder / "requirements.lock")}
        assert some <= names and not names & locked

"""Stage the sources of the site: notebooks as committed, figures, checks, API pages, the README as a guide.

    python site/pages.py FOLDER

Everything is generated into FOLDER, which is emptied first. Sphinx is not needed here.
"""

import ast
import html
import importlib
import inspect
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import citations
import pandas as pd
from docstrings import escape

from nin import checks
from nin.companion.papers.captions import caption
from nin.figures import Saved, profiles, saved
from nin.support import paths

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("paper", "quick")
AS_IT_IS = "extra"  # the folder of files that are copied without being read
FILES = ("pdf", "svg", "png", "csv", "json")
CHECK_COLUMNS = ["claim", "source", "measured", "predicted", "± tolerance", "rival", "holds"]
CLAIMS = "docs/claims.md"  # written by claims_page.py
NETWORKS = "docs/networks.md"  # written by networks_page.py
MODULES = (
    "nin",
    "nin.theory",
    "nin.theory.pooling",
    "nin.theory.response",
    "nin.phases",
    "nin.model.data",
    "nin.model.networks",
    "nin.sweeps.store",
    "nin.figures",
    "nin.checks",
    "nin.probes.asking",
    "nin.probes.for_sweeps",
    "nin.probes.curvature",
    "nin.probes.response",
    "nin.probes.interactions",
    "nin.probes.stability",
)


def repository() -> str:
    """OWNER/REPO of the Binder link in README.md; ValueError if it has none."""
    found = re.search(r"mybinder\.org/v2/gh/([^/\s]+/[^/\s]+)/", (ROOT / "README.md").read_text())
    if not found:
        raise ValueError("README.md has no Binder link of the form mybinder.org/v2/gh/OWNER/REPO/...")
    return found[1]


def notebooks() -> list[str]:
    """Names of all notebooks, in order."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


def shown() -> dict[str, list[Saved]]:
    """The saved figures of each profile that have a picture, in order of their names."""
    found = {}
    for profile in PROFILES:
        if profile in profiles():
            found[profile] = [figure for figure in saved(profile) if figure.path.with_suffix(".png").exists()]
    return {profile: figures for profile, figures in found.items() if figures}


def answers() -> dict[str, tuple[str, str]]:
    """Question and answer of each notebook, from the table of README.md; else the notebook's title and nothing."""
    rows = re.findall(r"^\| `(\d\d_\w+)` \| (.*?) \| (.*?) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    told = {name: (question, answer) for name, question, answer in rows}
    return {name: told.get(name) or (title(name), "") for name in notebooks()}


def title(notebook: str) -> str:
    """The first heading of a notebook, without its number."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    text = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^#\s*(\d\d\s+)?", "", text.splitlines()[0])


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; its cells are already Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def index_page(documents: list[str]) -> str:
    """The first page: index.md with the table of notebooks and what README.md links to filled in."""
    rows = [[f"[{name[:2]}](notebooks/{name}.ipynb)", *texts] for name, texts in answers().items()]
    given = {
        "repository": repository(),
        "notebooks": table(["notebook", "question", "answer"], rows),
        "notebook_pages": "\n".join(f"notebooks/{name}" for name in notebooks()),
        "figure_pages": "\n".join(f"figures/{profile}" for profile in shown()),
        "documents": "\n".join(documents),
        "reference_pages": "\n".join(page.removesuffix(".md") for page in reference_pages()),
    }
    text = (ROOT / "site" / "index.md").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: given[match[1]], text)


def reference_pages() -> list[str]:
    """Places of the pages of docs/reference in the clone, the index first."""
    pages, _ = citations.index()
    return [f"docs/reference/{name}.md" for name in ("README", *pages.values())]


def guide_page() -> str:
    """README.md without its introduction, which the first page gives in other words."""
    text = (ROOT / "README.md").read_text()
    return "# Guide\n\n" + text[text.index("\n## ") + 1 :]


def linked(markdown: str, folder: Path = ROOT) -> list[str]:
    """Files of the clone that a Markdown text in a folder links to, and those that its Markdown files link to."""
    found: dict[str, None] = {}
    waiting = [(markdown, folder)]
    while waiting:
        text, beside = waiting.pop()
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)[^)]*\)", text):
            path = (beside / target).resolve()
            place = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
            if path.is_file() and place and place not in found:
                found[place] = None
                waiting += [(path.read_text(), path.parent)] if path.suffix == ".md" else []
    return list(found)


def figures_page(profile: str) -> str:
    """Every figure of a profile with its caption and its files, notebook by notebook."""
    parts = [f"# Figures, {profile} profile", f"Drawn by `python -m nin run --profile {profile}`."]
    parts += ["Each comes with its table (csv) and its provenance (json)."]
    notebook = None
    for figure in shown()[profile]:
        if figure.sidecar["notebook"] != notebook:
            notebook = figure.sidecar["notebook"]
            parts.append(heading("##", str(notebook)))
        parts += [f"### {escape(figure.name)}", picture(figure), escape(caption(figure.draw)), files(figure)]
    return "\n\n".join(parts) + "\n"


def heading(level: str, notebook: str) -> str:
    """A notebook's number and question as a heading, the link to its page below; its bare name if it is not here."""
    if notebook not in notebooks():
        return f"{level} {escape(notebook)}"
    number = notebook[:2]
    return f"{level} {number} {escape(title(notebook))}\n\nOf [notebook {number}](/notebooks/{notebook}.ipynb)."


def picture(figure: Saved) -> str:
    """The picture of a figure, fetched once it is near the screen."""
    place, alt = f"{figure.profile}/{figure.name}.png", html.escape(figure.name.replace("_", " "))
    return f'<a href="{place}"><img class="figure" loading="lazy" src="{place}" alt="{alt}"></a>'


def files(figure: Saved) -> str:
    """Links to all files of a figure."""
    there = [suffix for suffix in FILES if figure.path.with_suffix(f".{suffix}").exists()]
    return " · ".join(f'<a href="{figure.profile}/{figure.name}.{suffix}">{suffix}</a>' for suffix in there)


def checks_page() -> str:
    """Every claim and its outcome, profile by profile, notebook by notebook."""
    parts = ["# Checks", "Each claim: measured, predicted, tolerance, rival, holds. Failed claims stay in the table."]
    for profile in shown():
        frame = checks.table(paths.figures(profile))
        holds = int(frame["holds"].sum())
        parts.append(f"## {profile.capitalize()} profile: {holds} of {len(frame)} hold")
        for notebook, rows in frame.groupby("notebook", sort=True):
            parts.append(heading("###", notebook))
            parts.append(
                table(["claim", "source", "measured", "predicted", "± tolerance", "rival", "holds"], check_rows(rows))
            )
    return "\n\n".join(parts) + "\n"


def check_rows(frame: pd.DataFrame) -> list[list[str]]:
    """The cells of checks: three digits, the relation before what is predicted; no rival is an empty cell."""
    return [
        [
            escape(row.name),
            source(str(row.source), row.notebook),
            f"{row.measured:.3g}",
            f"{escape(row.relation)} {row.predicted:.3g}",
            f"{row.tolerance:.3g}",
            "" if pd.isna(row.rival) else f"{row.rival:.3g}",
            "yes" if row.holds else "**no**",
        ]
        for row in frame.itertuples(index=False)
    ]


def source(text: str, notebook: str) -> str:
    """The source of a check, each citation linked to its place in the reference if it has one there."""
    cited = citations.numbered(text, f"notebooks/{notebook}.ipynb") or citations.papers(text)
    parts, end = [], 0
    for one in cited:
        place, words = f"docs/reference/{one.page}.html#{one.anchors[0]}", escape(text[one.start : one.end])
        parts += [escape(text[end : one.start]), words if one.missing() else f'<a href="{place}">{words}</a>']
        end = one.end
    return "".join([*parts, escape(text[end:])])


def public(module: ModuleType) -> list[str]:
    """The public names of a module: `__all__`, else the functions and classes it defines, in order."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if callable(getattr(module, name))]
    own = inspect.getmembers(module, lambda thing: getattr(thing, "__module__", None) == module.__name__)
    names = [name for name, thing in own if not name.startswith("_") and (inspect.isclass(thing) or callable(thing))]
    return sorted(names, key=lambda name: inspect.getsourcelines(getattr(module, name))[1])


def constants(module: ModuleType) -> list[str]:
    """The source of a module's one-line constants, comments included."""
    if getattr(module, "__path__", None):  # a package: those it imports from its files
        named = [name for name in getattr(module, "__all__", ()) if name.isupper()]
        return [f"{name} = {getattr(module, name)!r}" for name in named]
    source = inspect.getsource(module)
    lines = source.splitlines()
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    short = [lines[node.lineno - 1] for node in assigned if node.lineno == node.end_lineno]
    return [line for line in short if re.match(r"[A-Z][A-Z_, ]+\b", line)]


def api_page(name: str) -> str:
    """The page of a public module, for autodoc to fill in."""
    module = importlib.import_module(name)
    parts = [f"{name}\n{'=' * len(name)}", f".. automodule:: {name}"]
    if constants(module):
        parts.append(
            ".. code-block:: python\n   :class: constants\n\n" + "\n".join(f"   {line}" for line in constants(module))
        )
    for member in public(module):
        home = getattr(module, member).__module__
        if home != name and home in MODULES:
            parts.append(f"``{name}.{member}`` is :py:obj:`{home}.{member}`.")
        elif inspect.isclass(getattr(module, member)):
            parts.append(f".. autoclass:: {name}.{member}\n   :members:")
        else:
            parts.append(f".. autofunction:: {name}.{member}")
    return "\n\n".join(parts) + "\n"


def api_index() -> str:
    """The list of public modules."""
    lines = [f"- [{name}]({name}.rst): {escape(first_line(importlib.import_module(name)))}" for name in MODULES]
    toctree = ["```{toctree}", ":hidden:", "", *MODULES, "```"]
    return "\n".join(["# Python API", "", *lines, "", *toctree]) + "\n"


def first_line(module: ModuleType) -> str:
    """The first paragraph of a module's docstring, on one line."""
    return " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())


def sources() -> dict[str, str]:
    """Every generated page by its place in the source folder."""
    guide = guide_page()
    documents = [
        target.removesuffix(".md")
        for target in linked(guide)
        if target.endswith(".md") and target not in (CLAIMS, NETWORKS, *reference_pages())
    ]
    return (
        {"index.md": index_page(documents), "guide.md": guide, "checks.md": checks_page(), "api/index.md": api_index()}
        | {f"figures/{profile}.md": figures_page(profile) for profile in shown()}
        | {f"api/{name}.rst": api_page(name) for name in MODULES}
    )


def stage(folder: Path) -> None:
    """Write the sources of the site into a folder, emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    made = sources()
    for place, text in made.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    copies = {f"notebooks/{name}.ipynb": f"notebooks/{name}.ipynb" for name in notebooks()}
    copies |= {target: target for target in [*linked(made["guide.md"]), CLAIMS, NETWORKS, *reference_pages()]}
    for profile, figures in shown().items():
        drawn = [figure.path.with_suffix(f".{suffix}") for figure in figures for suffix in FILES]
        copies |= {f"{AS_IT_IS}/figures/{profile}/{path.name}": path for path in drawn if path.exists()}
    for target, place in copies.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place, folder / target)


if __name__ == "__main__":
    stage(Path(sys.argv[1]))

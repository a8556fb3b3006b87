"""Stage the sources of the site: notebooks as committed, figures, checks, API pages, the README as a guide.

    python site/pages.py FOLDER

Everything is generated into FOLDER, which is emptied first. Sphinx is not needed here.
"""

import html
import json
import re
import shutil
import sys
from pathlib import Path

import api_pages
import citations
import pandas as pd
from api_pages import table
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


def repository() -> str | None:
    """OWNER/REPO of the launch buttons in README.md, which `make badge` writes; None before that."""
    found = re.search(r"mybinder\.org/v2/gh/([^/\s]+/[^/\s]+)/", (ROOT / "README.md").read_text())
    return found[1] if found else None


def launch() -> str:
    """The buttons of the first page; how to run it here where there is no copy to launch."""
    here = "To run the notebooks here, see the [guide](guide.md)."
    if not (repo := repository()):
        return here
    at = f"https://mybinder.org/v2/gh/{repo}/HEAD?urlpath="
    links = {
        "Open the explorer": "voila%2Frender%2Fnotebooks%2Fexplore.ipynb",
        "Open the notebooks": "lab/tree/notebooks",
    }
    buttons = " ".join(f'<a class="launch" href="{at}{place}">{text}</a>' for text, place in links.items())
    return f"{buttons}\n\nBoth open on Binder; the rocket on a notebook's page opens that one. {here}"


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


def index_page(documents: list[str]) -> str:
    """The first page: index.md with the table of notebooks and what README.md links to filled in."""
    rows = [[f"[{name[:2]}](notebooks/{name}.ipynb)", *texts] for name, texts in answers().items()]
    given = {
        "launch": launch(),
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
        parts += [f"### {escape(figure.name)}", picture(figure), escape(caption(figure.draw))]
        parts += [files(figure), making(figure)]
        parts += [f"**{escape(fault)}**"] if (fault := figure.fault()) else []
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


def making(figure: Saved) -> str:
    """The commands that compute a figure, draw it again from its table, and export it for a paper."""
    profile, name = html.escape(figure.profile), html.escape(figure.name)
    number = html.escape(str(figure.sidecar["notebook"])[:2])
    lines = [
        f"python -m nin run {number} --profile {profile}   # computes it",
        f"python -m nin figures export {name} --profile {profile} --venue icml --to paper/   # for a paper",
        f'nin.figures.redraw("{name}", profile="{profile}")   # in Python: draws it again from its table',
    ]
    return "<details><summary>How to make it</summary><pre>" + "<br>".join(lines) + "</pre></details>"


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
            ("yes" if row.holds else "**no**") + " (of a former run)" * row.former,
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


def sources() -> dict[str, str]:
    """Every generated page by its place in the source folder."""
    guide = guide_page()
    documents = [
        target.removesuffix(".md")
        for target in linked(guide)
        if target.endswith(".md") and target not in (CLAIMS, NETWORKS, *reference_pages())
    ]
    return (
        {
            "index.md": index_page(documents),
            "guide.md": guide,
            "checks.md": checks_page(),
            "api/index.md": api_pages.index(),
        }
        | {f"figures/{profile}.md": figures_page(profile) for profile in shown()}
        | {f"api/{name}.rst": api_pages.page(name) for name in api_pages.MODULES}
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

"""Catches: exports of the wrong width, that differ on repetition, broken LaTeX, silent choices, half-made failures."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from nin.__main__ import main
from nin.companion.papers import captions, fitting, pgf
from nin.companion.papers import export as exporting
from nin.companion.papers.export import VENUES, export
from nin.figures import Saved, begin, find, panels, save, saved
from nin.figures.style import alone

FIGURES = Path(__file__).parents[2] / "figures"
EVERY = sorted(path.stem for path in (FIGURES / "paper").glob("*.json"))
COLUMNS = [(venue, column) for venue in VENUES for column in VENUES[venue].widths]
SAMPLE = ("02b_decay_times", "03c_interventions", "08d_methods")
DATA = pd.DataFrame({"x": np.linspace(0, 1, 7) / 3, "y": np.geomspace(1, 2, 7), "image": np.arange(7)})


def draw(data, *, power=1):
    """Square & root of y_0, 95 % band; data: x, y.

    data: x, y, image. Lines are means_of "everything" {all}.
    """
    figure, axes = panels(1, 2)
    axes[0, 0].plot(data["x"], data["y"] ** power, label="$y$")
    axes[0, 0].legend(fontsize=4)
    axes[0, 0].set(xlabel="leaky_relu & 10 %, #1", xlim=(-1, 1), yscale="log", ylim=(1e-9, 9))
    axes[0, 1].imshow(np.outer(data["image"], data["image"]))
    return figure


def told(data):
    """What is seen.

    More of it. data: x (`y`), z; terms: w.
    quantities: name -> label. Bold where p < 0.05. Raises ValueError for a table without x.
    """


def narrow(data):
    """Twelve panels below each other."""
    return panels(12, 1, height=0.1)[0]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Figures "curve" (profiles quick and paper), "other" and "narrow" (quick)."""
    folder = tmp_path_factory.mktemp("drawn")
    parameters = {"profile": "paper", "eta": 0.05, "sigmas": [1.0, 2.5], "n_train": None, "name": "a_b%"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIN_FIGURES", str(folder))
        begin("07_my_test", profile="quick", parameters={"seeds": 2}, data={"digits": "0123456789abcdef"})
        save(draw, "curve", data=DATA.assign(y=1.0))
        save(draw, "other", data=DATA, power=2)
        save(narrow, "narrow", data=DATA)
        begin("07_my_test", profile="paper", parameters=parameters, data={"my_digits": "0123456789abcdef"})
        save(draw, "curve", data=DATA.assign(seed=[0, 1, 2, 3, 3, 3, 3]))
    return folder


@pytest.fixture
def folder(drawn, tmp_path, monkeypatch):
    """A folder with a copy of the figures in figures/."""
    shutil.copytree(drawn, tmp_path / "figures")
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path / "figures"))
    return tmp_path


def width(path):
    """Width in inches, as the file itself says it."""
    content = path.read_bytes()
    if path.suffix == ".pdf":
        return float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", content)[1]) / 72
    if path.suffix == ".svg":
        return float(re.search(rb'<svg [^>]*width="([\d.]+)pt"', content, re.DOTALL)[1]) / 72
    return int.from_bytes(content[16:20], "big") / exporting.DPI


def check_snippet(text, included):
    kinds = re.findall(r"\\(begin|end)\{(figure\*?)\}", text)
    assert len(kinds) == 2 and kinds[0] == ("begin", kinds[1][1]) and kinds[1][0] == "end"
    bare = re.sub(r"\\.", "", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$|\\label\{.*|\\(includegraphics|includesvg|input)\{.*", "", text)
    outside = re.sub(r"(?m)^%.*|\\providecommand.*", "", outside)
    assert not re.search(r"(?<!\\)[_&%#^<>|~\"`](?!`)", outside.replace("``", "").replace("''", ""))
    assert f"{{{included}}}" in text and outside.isascii()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_paper_figure_fits_a_venue(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(FIGURES))
    done = export(Saved(name, "paper"), tmp_path, venue="icml")
    assert [path.name for path in done.files] == [f"{name}.pdf", f"{name}.tex"] and done.problem == ""
    assert width(done.files[0]) == pytest.approx(6.75)
    check_snippet(done.files[1].read_text(), f"{name}.pdf")


@pytest.mark.slow
@pytest.mark.parametrize("venue, column", COLUMNS)
def test_each_venue_gets_its_width(venue, column, tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_FIGURES", str(FIGURES))
    for name, format in zip(SAMPLE, ("pdf", "svg", "png"), strict=True):
        done = export(Saved(name, "paper"), tmp_path, venue=venue, column=column, format=format)
        assert width(done.files[0]) == pytest.approx(VENUES[venue].widths[column], abs=1 / exporting.DPI)
        assert done.width == pytest.approx(VENUES[venue].widths[column])
        wide = column == "full" and venue in ("icml", "prl")
        assert ("figure*" in done.files[1].read_text()) == wide


def test_widths_are_those_of_the_venues():
    widths = {venue: tuple(VENUES[venue].widths.values()) for venue in VENUES}
    assert widths == {"neurips": (5.5,), "icml": (3.25, 6.75), "prl": (3.375, 7.0), "jmlr": (6.0,)}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pdf", "svg", "png"])
def test_same_bytes_on_repetition(folder, format):
    before = dict(mpl.rcParams)
    first, again = (export(find("curve"), folder / place, venue="prl", format=format) for place in "ab")
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in again.files]
    other = export(find("curve", "quick"), folder / "c", venue="prl", format=format)
    assert other.files[0].read_bytes() != first.files[0].read_bytes()
    assert dict(mpl.rcParams) == before and mpl.pyplot.get_fignums() == []


def test_text_has_the_size_of_the_venue_and_is_never_tiny(folder):
    look = VENUES["jmlr"].fonts | {"figure.figsize": (6, 3)}
    figure = exporting.draw(find("curve"), look)
    mpl.pyplot.close(figure)
    sizes = {text.get_fontsize() for text in figure.axes[0].get_legend().get_texts()}
    assert sizes == {fitting.SMALLEST_TEXT}
    assert figure.axes[0].xaxis.label.get_fontsize() == pytest.approx(look["axes.labelsize"])


def test_caption_leaves_out_arguments_and_errors_wherever_they_stand():
    assert captions.caption(told) == "What is seen. More of it. Bold where p < 0.05."


def test_caption_says_what_is_shown_and_where_it_comes_from(folder):
    text = export(find("curve"), folder, venue="icml", column="one").files[1].read_text()
    check_snippet(text, "curve.pdf")
    assert r"\caption{Square \& root of $y_{0}$, 95 \% band. " in text
    assert r"Lines are means\_of ``everything'' \{all\}. Notebook 07\_my\_test, profile paper;" in text
    assert r"eta = 0.05, sigmas = (1, 2.5), name = a\_b\%; seeds 0--3; data my\_digits 01234567" in text
    assert "n_train" not in text and r"\label{fig:curve}" in text


@pytest.mark.parametrize(
    "text, expected",
    [
        (r"a\b{c}~^", r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}"),
        ("σ ≤ Δ", r"$\sigma$ $\le$ $\Delta$"),
        ("eta^2 sigma_cat t", r"$\eta^{2}$ $\sigma_{\mathrm{cat}}$ t"),
        ("beta band, alphabet, <H>", r"$\beta$ band, alphabet, \textless{}H\textgreater{}"),
        ('`f_x` and "g_0"', r"\texttt{f\_x} and ``$g_{0}$''"),
        ("5 # $ 7", r"5 \# \$ 7"),
    ],
)
def test_latex_is_escaped(text, expected):
    assert captions.latex(text) == expected


def test_each_figure_comes_from_the_best_profile(folder, capsys):
    found = [(figure.name, figure.profile) for figure in saved()]
    assert found == [("curve", "paper"), ("narrow", "quick"), ("other", "quick")]
    assert {figure.profile for figure in saved("quick")} == {"quick"} and len(saved("quick")) == 3
    (folder / "figures/quick/narrow.json").unlink()
    assert main(["figures", "export", "--all", "--to", str(folder / "new"), "--venue", "jmlr", "--format", "svg"]) == 0
    assert {path.name for path in (folder / "new").iterdir()} == {"curve.svg", "curve.tex", "other.svg", "other.tex"}
    shown = capsys.readouterr().out
    assert re.search(r"curve +paper +6 x", shown) and re.search(r"other +quick +6 x", shown)


def test_list_shows_profiles_and_captions(folder, capsys):
    assert main(["figures", "list"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("figures/paper") < shown.index("figures/quick")
    assert re.search(r"other +07 +Square & root of y_0, 95 % band\.", shown)
    assert main(["figures", "list", "--profile", "paper"]) == 0
    assert "other" not in capsys.readouterr().out


def test_names_may_stand_behind_options(folder):
    assert main(["figures", "export", "curve", "--to", str(folder / "new"), "other"]) == 0
    assert (folder / "new" / "other.pdf").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["curv"], "figure='curv' is unknown.* Did you mean 'curve'"),
        (["curve", "othr"], "Did you mean 'other'"),
        (["curve", "--venue", "neurps"], "venue='neurps' is unknown.* Did you mean 'neurips'"),
        (["curve", "--format", "pdff"], "format='pdff' is unknown.* Did you mean 'pdf'"),
        (["curve", "--column", "ful"], "column='ful' is unknown.* Did you mean 'full'"),
        (["curve", "--column", "one"], "neurips has a single column"),
        (["curve", "--profile", "papr"], "profile='papr' is unknown.* Did you mean 'paper'"),
        (["other", "--profile", "paper"], "figure='other' is unknown; choose one of curve"),
        ([], "name the figures to export, or give --all"),
        (["curve", "--all"], "name the figures to export, or give --all"),
    ],
)
def test_bad_arguments_write_nothing(folder, capsys, arguments, message):
    assert main(["figures", "export", "--to", str(folder / "new"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err) and not (folder / "new").exists()


@pytest.mark.parametrize("command", [["list", "curve"], ["sheet", "--to", "x.pdf", "curve"], ["export", "--size=3"]])
def test_unknown_arguments_are_named(folder, command):
    with pytest.raises(SystemExit, match="2"):
        main(["figures", *command])


def test_damage_is_named(folder, capsys):
    sidecar = folder / "figures" / "paper" / "curve.json"
    content = json.loads(sidecar.read_text())
    for changed, message in [
        (
            content | {"draw": "nin.plots.phase_sweep.gone"},
            "drawn by nin.plots.phase_sweep.gone, which no longer exists",
        ),
        (content | {"arguments": {"size": 1}}, "cannot draw .*curve.csv .TypeError.*run 07_my_test again"),
        ({}, "curve.json is damaged"),
    ]:
        sidecar.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            export(find("curve"), folder / "new")
    sidecar.write_text(json.dumps(content))
    (folder / "figures" / "paper" / "curve.csv").unlink()
    with pytest.raises(ValueError, match="curve.csv is missing; run 07_my_test again"):
        export(find("curve"), folder / "new")
    assert not (folder / "new").exists() and mpl.pyplot.get_fignums() == []


def test_no_figures_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NIN_FIGURES", str(tmp_path))
    for command in (["list"], ["export", "curve"], ["sheet", "--to", str(tmp_path / "sheet.pdf")]):
        assert main(["figures", *command]) == 2
        assert "there are no figures in" in capsys.readouterr().err


@pytest.mark.slow
def test_what_does_not_fit_is_told(folder, capsys):
    command = ["figures", "export", "narrow", "--venue", "prl", "--column", "one", "--to", str(folder / "new")]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert re.search(r"narrow: it has no one-column form: it would be 1\d in high, .*; take --column full", told)
    assert not (folder / "new").exists()


def test_panels_flow_into_one_column(folder):
    """Those beside each other stand below each other, with the label of their common scale; the legend below them."""
    look = exporting.look_of("icml", "one")
    with alone(look):
        figure, axes = panels(2, 5, sharex=True, sharey="row")
        for ax in axes.flat:
            ax.plot([1, 2], [1, 2], label="a long name of a curve")
        axes[1, 0].set_ylabel("y")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
        figure.settle()
    assert figure.get_figwidth() == 3.25 and axes.shape == (2, 5) and len(figure.blocks) == 3
    places = np.array([[ax.get_position().x0, ax.get_position().y0] for ax in axes[0]])
    assert len(set(places[:, 0].round(3))) == 2 and len(set(places[:, 1].round(3))) == 3
    assert [ax.get_ylabel() for ax in axes[1]] == ["y", "", "y", "", "y"]
    assert all(axes[0, 0].get_shared_y_axes().joined(axes[0, 0], ax) for ax in axes[0])
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 < min(ax.bbox.y0 for ax in axes.flat) and legend.width < figure.bbox.width
    assert fitting.problem(figure) == ""


def test_exponents_and_indices_are_large_enough(folder):
    """In a figure and by `fitting.smallest`; those of matplotlib itself are smaller, and are so afterwards."""
    figure = mpl.figure.Figure()
    small = figure.text(0.5, 0.5, r"$10^{-3}$ and $W_{NI}$", fontsize=7)
    assert fitting.smallest(small) == pytest.approx(4.9) and fitting.smallest(figure.text(0, 0, "1", fontsize=7)) == 7
    with fitting.large_scripts():
        assert fitting.smallest(small) == pytest.approx(6.0)
        twice = figure.text(0.5, 0.5, "$a^{b_{c}}$", fontsize=7)
        assert fitting.enlarge(figure) and fitting.smallest(twice) == pytest.approx(6.0, abs=1e-3)
    assert fitting.smallest(small) == pytest.approx(4.9)


def test_large_exponents_leave_small_ones_behind():
    """Formulas are kept for each size of exponents: none is drawn with that of the other."""
    parser, formula = mpl.mathtext.MathTextParser("path"), "$10^{-3}$"
    small = parser.parse(formula).width
    with fitting.large_scripts():
        large = parser.parse(formula).width
        with fitting.large_scripts():
            assert parser.parse(formula).width == large
    assert parser.parse(formula).width == small < large
    with fitting.large_scripts():
        assert parser.parse(formula).width == large


def test_panels_are_laid_out_where_a_drawing_puts_them(folder):
    """A figure for one column, with an image that keeps its aspect and its colour bar; the rival is not laid out."""
    boxes = []
    for place in (
        lambda figure: figure._lay_out(),
        lambda figure: figure.draw_without_rendering(),
        lambda figure: None,
    ):
        with alone(exporting.look_of("icml", "one")):
            figure, axes = panels(1, 3)
            figure.colorbar(axes[0, 0].imshow(np.eye(4)), ax=axes[0, 0])
            axes[0, 1].set(xlabel="x", ylabel="a label\nof two lines", aspect="equal")
            place(figure)
            boxes.append([ax.bbox.bounds for ax in figure.axes])
    assert boxes[0] == boxes[1] != boxes[2] and len(boxes[0]) == 4


def test_labels_are_escaped_for_tex(monkeypatch):
    assert pgf.tex("leaky_relu & #1") == r"leaky\_relu \& \#1"
    assert pgf.tex(r"$a_1$ of b_1, \_") == r"$a_1$ of b\_1, \_"
    assert pgf.tex(r"5 $ and \$x_1\$") == r"5 \$ and \$x\_1\$"
    drawn = []
    monkeypatch.setattr(pgf.RendererPgf, "draw_text", lambda self, gc, x, y, s, *args: drawn.append(s))
    before = pgf.RendererPgf.draw_text
    with pgf.escaped():
        pgf.RendererPgf.draw_text(None, None, 0, 0, "a_b", None, 0)
    assert drawn == [r"a\_b"] and pgf.RendererPgf.draw_text is before


def test_a_snippet_defines_what_matplotlib_writes():
    text = captions.snippet("my figure", "text", {}, format="pgf", wide="", again="x")
    assert text.index(r"\providecommand{\mathdefault}[1]{#1}") < text.index(r"\input{my figure.pgf}")


def test_pgf_without_tex_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setattr(pgf, "which", lambda name: None)
    assert main(["figures", "export", "curve", "--format", "pgf", "--to", str(folder / "new")]) == 2
    assert "needs TeX to measure text, and none of pdflatex" in capsys.readouterr().err
    assert not (folder / "new").exists()


@pytest.mark.skipif(not any(map(shutil.which, pgf.TEX_SYSTEMS)), reason="there is no TeX")
def test_pgf_comes_with_its_images(folder):
    first, again = (export(find("curve"), folder / place, format="pgf") for place in "ab")
    assert [path.name for path in first.files] == ["curve-img0.png", "curve.pgf", "curve.tex"]
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in again.files]
    assert r"{5.500000in}" in first.files[1].read_text()
    check_snippet(first.files[2].read_text(), "curve.pgf")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdfLaTeX")
@pytest.mark.parametrize("format", ["pgf", "pdf", "png"])
def test_latex_sets_the_snippets(folder, format):
    """With characters that TeX reads as commands, powers of ten, minus signs, an image, and a blank in a name."""
    source = folder / "figures/paper"
    for path in source.glob("curve.*"):
        shutil.copy(path, source / f"a curve{path.suffix}")
    files = [path for name in ("curve", "a curve") for path in export(find(name), folder / "new", format=format).files]
    snippets = [path.stem for path in files if path.suffix == ".tex"]
    text = "".join(rf"\input{{{name}.tex}}" for name in snippets)
    packages = r"\usepackage{graphicx}\usepackage{pgf}"
    (folder / "new/paper.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}{text}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    set_ = subprocess.run(command, cwd=folder / "new", capture_output=True, text=True, check=False)
    assert set_.returncode == 0 and "1 page" in set_.stdout, set_.stdout[-1500:]


@pytest.mark.slow
def test_sheet_has_every_figure_on_pages_and_the_same_bytes(folder, capsys):
    for name in [f"c{number}" for number in range(10)]:
        for suffix in ("json", "csv", "png"):
            shutil.copy(folder / f"figures/paper/curve.{suffix}", folder / f"figures/paper/{name}.{suffix}")
    (folder / "figures/paper/c0.png").unlink()  # is drawn instead
    files = [folder / "one.pdf", folder / "two.pdf"]
    for path in files:
        assert main(["figures", "sheet", "--to", str(path)]) == 0
    assert "13 figures on" in capsys.readouterr().out
    content = files[0].read_bytes()
    assert content == files[1].read_bytes() and b"CreationDate" not in content
    assert len(re.findall(rb"/Type /Page\b", content)) == 2 and content.count(b"/Subtype /Image") == 13

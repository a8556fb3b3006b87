"""Formulas as MathML, made by KaTeX while the site is built: no script, no server; unknown commands are errors.

sphinxcontrib-katex carries katex.min.js, ziamath the font STIX Two Math; neither's own code is used.
"""

import functools
import re
import shutil
import unicodedata
from importlib.metadata import distribution
from pathlib import Path

FONT = "STIXTwoMath-Regular.ttf"
VARIANTS = {
    "double-struck": ("MATHEMATICAL DOUBLE-STRUCK", "DOUBLE-STRUCK"),
    "script": ("MATHEMATICAL SCRIPT", "SCRIPT"),
    "fraktur": ("MATHEMATICAL FRAKTUR", "BLACK-LETTER"),
    "bold": ("MATHEMATICAL BOLD",),
    "bold-italic": ("MATHEMATICAL BOLD ITALIC",),
}


@functools.cache
def katex():
    """A JavaScript engine with KaTeX loaded."""
    import py_mini_racer

    engine = py_mini_racer.MiniRacer()
    engine.eval(Path(distribution("sphinxcontrib-katex").locate_file("sphinxcontrib/katex.min.js")).read_text())
    return engine


def mathml(latex: str, *, block: bool) -> str:
    """The <math> element of a formula; raises if KaTeX does not know a command.

    Browsers put no space between the name of a function and an argument without brackets, so a thin one is inserted.
    """
    made = katex().call("katex.renderToString", latex, {"displayMode": block, "output": "mathml"})
    made = re.sub(r"(?<=</mi><mo>\u2061</mo>)(?=<m(?:i|n|sup|sub|frac)\b)", '<mspace width="0.17em"/>', made)
    return re.sub(r'<(m[ion]) mathvariant="([\w-]+)">(\w)</\1>', styled, made)


def styled(element: re.Match) -> str:
    """A styled letter as the code point for it, because the only style of letters that browsers know is "normal"."""
    tag, variant, letter = element.groups()
    name = re.sub(r"^(LATIN|GREEK) | LETTER", "", unicodedata.name(letter))
    for prefix in VARIANTS.get(variant, ()):
        try:
            return f"<{tag}>{unicodedata.lookup(f'{prefix} {name}')}</{tag}>"
        except KeyError:
            continue
    return element[0]


def setup(app):
    """Register the renderer, and copy the font to the pages."""
    from docutils import nodes
    from sphinx.util import logging

    def write(translator, node, *, block):
        try:
            made = mathml(node.astext(), block=block)
        except Exception as error:
            logging.getLogger(__name__).warning("%s", str(error).splitlines()[0], location=node)
            made = translator.encode(node.astext())
        translator.body.append(f'<div class="formula">{made}</div>' if block else made)
        raise nodes.SkipNode

    def add_font(app, error):
        if error is None and app.builder.format == "html":
            font = Path(distribution("ziamath").locate_file(f"ziamath/fonts/{FONT}"))
            shutil.copy(font, Path(app.outdir) / "_static" / FONT)

    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(functools.partial(write, block=False), None),
        block_renderers=(functools.partial(write, block=True), None),
    )
    app.config.html_math_renderer_name = "mathml"
    app.connect("build-finished", add_font)

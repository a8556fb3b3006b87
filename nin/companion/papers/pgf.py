"""What a .pgf needs so that any LaTeX document can read it: a TeX system to measure its text, and escaped labels."""

import contextlib
import re
from collections.abc import Iterator
from shutil import which

from matplotlib.backends.backend_pgf import RendererPgf

TEX_SYSTEMS = ("pdflatex", "xelatex", "lualatex")


def tex_system() -> str:
    """The TeX system that measures the text of a .pgf; ValueError, saying what to install, if none is found."""
    found = next((name for name in TEX_SYSTEMS if which(name)), None)
    if found is None:
        raise ValueError(
            f"format='pgf' needs TeX to measure text, and none of {', '.join(TEX_SYSTEMS)} is on the PATH. Install TeX "
            "Live (Debian: apt install texlive-latex-recommended texlive-pictures), MacTeX or MiKTeX, or choose 'pdf'."
        )
    return found


@contextlib.contextmanager
def escaped() -> Iterator[None]:
    """Let matplotlib write and measure text with the characters escaped that LaTeX reads as commands."""
    draw, measure = RendererPgf.draw_text, RendererPgf.get_text_width_height_descent

    def draw_escaped(self, gc, x, y, s, *args, **kwargs):
        draw(self, gc, x, y, tex(s), *args, **kwargs)

    def measure_escaped(self, s, *args, **kwargs):
        return measure(self, tex(s), *args, **kwargs)

    try:
        RendererPgf.draw_text, RendererPgf.get_text_width_height_descent = draw_escaped, measure_escaped
        yield
    finally:
        RendererPgf.draw_text, RendererPgf.get_text_width_height_descent = draw, measure


def tex(text: str) -> str:
    r"""A label as LaTeX: _, & and # escaped outside of formulas; ^ and % are escaped by matplotlib.

    >>> tex("leaky_relu & $a_1$, 5 \\$")
    'leaky\\_relu \\& $a_1$, 5 \\$'
    """
    parts = re.split(r"(?<!\\)\$", text)
    if len(parts) % 2 == 0:  # no formula, as in matplotlib
        parts = [r"\$".join(parts)]
    return "$".join(part if place % 2 else re.sub(r"(?<!\\)([_&#])", r"\\\1", part) for place, part in enumerate(parts))

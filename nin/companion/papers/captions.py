r"""Captions: what a figure shows and where it comes from, as text and in a LaTeX figure.

>>> latex('tau_0 & `f_x`, 95 % of "all"')
"$\\tau_{0}$ \\& \\texttt{f\\_x}, 95 \\% of ``all''"
"""

import inspect
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

ESCAPES = {char: f"\\{char}" for char in "{}$&%#_"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
}
GREEK = "alpha|beta|gamma|delta|eta|kappa|lambda|rho|sigma|tau|xi|Theta"
TOKENS = re.compile(
    rf'`([^`]+)`|"([^"]+)"|\b(?P<base>(?:{GREEK})|[A-Za-z](?=_))(?:_(?P<index>[A-Za-z0-9]+))?(?:\^(?P<power>\d))?(?!\w)'
)
INCLUDE = {
    "pdf": (r"\includegraphics{%s.pdf}", "graphicx"),
    "png": (r"\includegraphics{%s.png}", "graphicx"),
    "svg": (r"\includesvg{%s.svg}", "svg, and Inkscape"),
    "pgf": (r"\providecommand{\mathdefault}[1]{#1}\input{%s.pgf}", "pgf"),
}


def caption(draw: Callable[..., Any]) -> str:
    """The caption of a draw function: its docstring without the sentences on arguments ("data: ...") and errors."""
    first, _, rest = (inspect.getdoc(draw) or draw.__name__.replace("_", " ")).partition("\n\n")
    first = re.sub(r"; data( as|:).*", ".", " ".join(first.split()))
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z]|[a-z_]+: )", " ".join(rest.split()))
    return " ".join([first, *(text for text in sentences if text and not re.match(r"[a-z_]+: |Raises ", text))])


def provenance(sidecar: Mapping[str, Any]) -> str:
    """The notebook, profile, parameters, seeds, data and commit in a figure's sidecar, as one LaTeX sentence."""
    parameters = dict(sidecar.get("parameters") or {})
    profile = parameters.pop("profile", sidecar.get("profile"))
    seeds = sidecar.get("seeds")
    if seeds:
        parameters.pop("seeds", None)
    shown = [f"{escape(name)} = {_value(value)}" for name, value in parameters.items() if value is not None]
    parts = [f"Notebook {escape(sidecar.get('notebook') or 'unknown')}, profile {escape(str(profile))}"]
    parts += [", ".join(shown)] if shown else []
    parts += [f"seeds {_value(seeds)}"] if seeds else []
    parts += [f"data {escape(name)} {escape(digest[:8])}" for name, digest in (sidecar.get("data") or {}).items()]
    commit = sidecar.get("commit")
    if commit:
        parts.append(f"commit {escape(commit[:8])}{' with changes' if commit.endswith('+') else ''}")
    return "; ".join(parts) + "."


def snippet(name: str, text: str, sidecar: Mapping[str, Any], *, format: str, wide: str, again: str) -> str:
    """The LaTeX figure that includes NAME.format at its own size; wide: "*" for a figure across both columns."""
    include, package = INCLUDE[format]
    return rf"""% python -m nin figures export {again}
% Needs package {package}. From another folder: \import{{FOLDER/}}{{{name}.tex}} of package import.
\begin{{figure{wide}}}[t]
  \centering
  {include % name}
  \caption{{{latex(text)} {provenance(sidecar)}}}
  \label{{fig:{name}}}
\end{{figure{wide}}}
"""


def latex(text: str) -> str:
    """Prose as LaTeX: special characters escaped; `code`, "quotes", Greek names and indices typeset."""
    text, parts, end = text.replace("+-", "±"), [], 0
    for match in TOKENS.finditer(text):
        parts += [escape(text[end : match.start()]), _typeset(match)]
        end = match.end()
    return "".join([*parts, escape(text[end:])])


def escape(text: str) -> str:
    """Escape the characters that LaTeX reads as commands; Greek letters become formulas."""
    return "".join(ESCAPES.get(char) or _letter(char) for char in text)


def _typeset(match: re.Match[str]) -> str:
    code, quote, base, index, power = match.groups()
    if code or quote:
        return rf"\texttt{{{escape(code)}}}" if code else f"``{latex(quote)}''"
    if len(base) == 1 and not index:
        return escape(match[0])
    symbol = base if len(base) == 1 else f"\\{base}"
    below = "" if not index else f"_{{{index}}}" if len(index) == 1 else rf"_{{\mathrm{{{index}}}}}"
    above = f"^{{{power}}}" if power else ""
    return f"${symbol}{below}{above}$"


def _letter(char: str) -> str:
    kind, _, name = unicodedata.name(char, "").partition(" LETTER ")
    if not kind.startswith("GREEK") or " " in name:
        return char
    name = {"LAMDA": "LAMBDA"}.get(name, name)
    name = name.capitalize() if "CAPITAL" in kind else name.lower()
    return f"$\\{name}$"


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return escape(f"{value:g}" if isinstance(value, float) else str(value))
    whole = all(isinstance(entry, int) for entry in value)
    if whole and len(value) > 2 and value == list(range(value[0], value[-1] + 1)):
        return f"{value[0]}--{value[-1]}"
    return f"({', '.join(_value(entry) for entry in value)})"

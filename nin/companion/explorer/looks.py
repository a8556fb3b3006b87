"""How the page looks: its style sheet, and the parts that are HTML."""

import base64
import html
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nin.companion.explorer import words
from nin.companion.explorer.borders import SIGMA
from nin.companion.explorer.figures import FRAME, LR
from nin.companion.explorer.setting import Setting
from nin.companion.explorer.trained import Found

# The colours of the phases, darker: text of a contrast of at least 4.5 on white.
TEXT_COLORS = {
    "decoupled": "#01649c",
    "decay": "#01704f",
    "growing": "#5f5f5f",
    "catapult": "#8a5800",
    "divergent": "#9a3c86",
}
SECONDS, HOLD = 8, 0.88  # of the animation; the part of it in which the curves are drawn
STYLE = f"""<style>
.nin-panel {{ max-width: 1160px; overflow: visible; }}
.nin-panel .widget-html, .nin-panel .jupyter-widgets {{ overflow: visible; }}
.nin-controls {{ display: flex; flex-flow: row wrap; gap: 4px 24px; }}
.nin-controls > * {{ flex: 1 1 340px; max-width: 540px; min-width: 0; }}
.nin-cards {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }}
.nin-card {{ border: 1px solid #ccc; border-radius: 4px; padding: 4px 8px; min-width: 0; }}
.nin-card img {{ width: 100%; }}
.nin-card p {{ margin: 2px 0 4px; font-size: 13px; line-height: 1.25; min-height: 32px; }}
.nin-card h2 {{ font-size: 15px; margin: 0; }} .nin-card button {{ width: 96%; }}
.nin-figures {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; margin-top: 4px; }}
.nin-picture {{ position: relative; aspect-ratio: 1; overflow: hidden; }}
.nin-picture img {{ width: 100%; height: 100%; object-fit: cover; object-position: left; }}
.nin-picture img.right {{ object-position: right; }}
.nin-cover, .nin-ring {{ display: none; position: absolute; }}
.nin-cover {{ left: {100 * FRAME[0]:.4g}%; right: {100 * (1 - FRAME[2]):.4g}%; top: {100 * (1 - FRAME[3]):.4g}%;
  bottom: {100 * FRAME[1]:.4g}%; background: white; transform-origin: right; border-left: 2px solid #333; }}
.nin-ring {{ width: 22px; height: 22px; margin: -14px; border: 3px solid black; border-radius: 50%; }}
#nin-play:checked ~ .nin-figures .nin-cover, #nin-pause:checked ~ .nin-figures .nin-cover {{
  display: block; animation: nin-uncover {SECONDS}s linear infinite; }}
#nin-play:checked ~ .nin-figures .nin-ring, #nin-pause:checked ~ .nin-figures .nin-ring {{
  display: block; animation: nin-move {SECONDS}s linear infinite; }}
#nin-pause:checked ~ .nin-figures * {{ animation-play-state: paused !important; }}
@keyframes nin-uncover {{ 0% {{ transform: scaleX(1); }} {100 * HOLD:g}%, 100% {{ transform: scaleX(0); }} }}
.nin-run label {{ margin: 0 14px 0 2px; }}
.nin-stale {{ opacity: 0.25; }}
.nin-note {{ max-width: 66em; margin: 4px 0 8px; line-height: 1.4; }}
.nin-verdict {{ min-height: 110px; }}
.nin-phase {{ font-size: 22px; line-height: 1.25; font-weight: 600; margin: 8px 0 2px; }}
.nin-seen {{ font-size: 16px; line-height: 1.4; max-width: 66em; }}
.nin-predicted {{ line-height: 1.4; max-width: 66em; }}
.nin-downloads a {{ margin-left: 12px; color: #01649c; text-decoration: underline; }}
.nin-command {{ overflow-wrap: anywhere; white-space: pre-wrap; }}
@media (max-width: 700px) {{
  .nin-cards {{ grid-template-columns: repeat(2, 1fr); }} .nin-figures {{ grid-template-columns: 1fr; }}
}}
</style>"""
LOOK = {
    "decoupled": "The node (coloured) keeps its size, whatever the loss (grey) does.",
    "decay": "The node shrinks, and its noise with it, while the loss falls.",
    "catapult": "Both jump together in the first steps, and training catches them.",
    "divergent": "Both rise and never come back.",
}


def card(phase: str, picture: bytes, setting: Setting) -> str:
    """One of the phases in small: its name, its picture, what to look at."""
    return (
        f'<h2 style="color:{TEXT_COLORS[phase]}">{phase}</h2>'
        f'<img alt="loss and size of the node against step, {phase}" src="{uri("png", picture)}">'
        f"<p>{LOOK[phase]} σ&nbsp;=&nbsp;{setting.sigma:g}, η&nbsp;=&nbsp;{setting.lr:g}.</p>"
    )


def training() -> str:
    """In place of the verdict, while networks are trained."""
    return '<div class="nin-verdict"><div class="nin-phase" role="status">training …</div></div>'


def trouble(message: str) -> str:
    """In place of the verdict, if something went wrong."""
    return (
        f'<div class="nin-verdict"><div class="nin-phase" role="alert">This could not be shown</div>'
        f'<div class="nin-seen">{html.escape(message)} Move a control, or reset.</div></div>'
    )


def verdict(found: Found) -> str:
    """The phase, what the picture shows, and what was predicted."""
    headline, seen, predicted = (html.escape(say(found)) for say in (words.headline, words.seen, words.predicted))
    return (
        f'<div class="nin-verdict"><div class="nin-phase" role="status" style="color:{TEXT_COLORS[found.phase]}">'
        f'{headline}</div><div class="nin-seen">{seen}</div><div class="nin-predicted">{predicted}</div></div>'
    )


def figures(content: Mapping[str, bytes], tried: Sequence[Found]) -> str:
    """The pictures, with what shows the training step by step, and a note."""
    found = tried[-1]
    both, plane = (uri("png", content[name]) for name in ("explore.png", "explore_diagram.png"))
    texts = f"noisy loss against step, {found.phase}", f"size of the node against step, {found.phase}"
    here = [one for one in tried if one.setting.plane == found.setting.plane]
    agree = sum(one.phase == one.expected for one in here)
    elsewhere = len(tried) - len(here)
    note = words.shading(found.setting.network)
    note += f"Points: the settings tried here; {agree} of {len(here)} lie in the region of their phase."
    note += f" {elsewhere} tried with other networks, batches, laws or layers are not shown." if elsewhere else ""
    note += " Thin lines: two more networks. Played, the ring stands at σ times the size of the node over its start."
    return (
        f"<style>{_motion(found)}</style>"
        '<div class="nin-run" role="radiogroup" aria-label="show the training">'
        '<input type="radio" name="nin-run" id="nin-whole" checked><label for="nin-whole">whole run</label>'
        '<input type="radio" name="nin-run" id="nin-play"><label for="nin-play">play</label>'
        '<input type="radio" name="nin-run" id="nin-pause"><label for="nin-pause">pause</label>'
        '<div class="nin-figures">'
        f'<div class="nin-picture"><img alt="{texts[0]}" src="{both}"><div class="nin-cover"></div></div>'
        f'<div class="nin-picture"><img class="right" alt="{texts[1]}" src="{both}"><div class="nin-cover"></div></div>'
        f'<div class="nin-picture"><img alt="phase diagram, here: {found.phase}" src="{plane}">'
        '<div class="nin-ring"></div></div></div></div>'
        f'<div class="nin-note">{html.escape(note)}</div>'
    )


def downloads(content: Mapping[str, bytes], found: Found) -> str:
    """Links to the files, to the page with this setting, and the command that writes the files."""
    links = {"explore.png": "figure", "explore_diagram.png": "diagram", "explore.csv": "table"}
    offered = [
        f'<a download="{name}" href="{uri(name.rpartition(".")[2], content[name])}">{text}</a>'
        for name, text in links.items()
    ]
    return (
        f'<div class="nin-downloads">Download: {"".join(offered)} '
        f'<a class="nin-link" href="{html.escape(found.setting.query)}">link to this setting</a></div>'
        f'<pre class="nin-command">{html.escape(found.setting.command)}</pre>'
    )


def uri(kind: str, content: bytes) -> str:
    """A file's content as an address."""
    return f"data:{'text/csv' if kind == 'csv' else 'image/png'};base64,{base64.b64encode(content).decode()}"


def _motion(found: Found) -> str:
    """Key frames of the ring: sigma times the size of the first run's node, at the moment its step is uncovered."""
    run = found.frame[found.frame["seed"] == 0] if len(found.frame) else pd.DataFrame({"step": [0], "niw": [1.0]})
    last = np.log(max(run["step"].max() + 1, 2))
    across = _place(found.setting.sigma * run["niw"].clip(1e-9, 1e9).to_numpy(), SIGMA, FRAME[0], FRAME[2])
    up = _place(np.array([found.setting.lr]), LR, FRAME[1], FRAME[3])[0]
    moments = 100 * HOLD * np.log(run["step"].to_numpy() + 1) / last
    frames = [f"{at:.2f}% {{ left: {x:.2f}%; top: {100 - up:.2f}%; }}" for at, x in zip(moments, across, strict=True)]
    return f"@keyframes nin-move {{ {' '.join(frames)} 100% {{ left: {across[-1]:.2f}%; top: {100 - up:.2f}%; }} }}"


def _place(values: np.ndarray, span: tuple[float, float], low: float, high: float) -> np.ndarray:
    """Per cent of a panel at which values lie on an axis from low to high."""
    part = np.log(np.clip(values, *span) / span[0]) / np.log(span[1] / span[0])
    return 100 * (low + part * (high - low))

"""The explorer: sliders; on release, a small ensemble is trained and its phase shown in words and on the diagram."""

import base64
import html
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np

from nin.companion.explorer.figures import files
from nin.companion.explorer.setting import NETWORKS, Found, Setting, explore
from nin.figures import PHASE_COLORS
from nin.model.noise import LAWS
from nin.probes.prediction import CATAPULT, DIVERGENCE

STYLE = """<style>
.nin-panel { max-width: 1160px; }
.nin-controls, .nin-figures { display: flex; flex-flow: row wrap; gap: 4px 24px; }
.nin-controls > * { flex: 1 1 340px; max-width: 540px; min-width: 0; }
.nin-figures img { flex: 1 1 340px; width: 100%; min-width: 0; object-fit: contain; }
.nin-figures img.wide { flex-grow: 2; max-width: 700px; } .nin-figures img.square { max-width: 420px; }
.nin-note { max-width: 60em; margin: 4px 0 8px; }
.nin-phase { font-size: 22px; font-weight: 600; margin: 8px 0 2px; } .nin-seen { font-size: 16px; max-width: 60em; }
.nin-downloads a { margin-left: 12px; color: #0173b2; text-decoration: underline; }
.nin-command { overflow-wrap: anywhere; white-space: pre-wrap; }
</style>"""
NOTE = {
    "digits": "Left: three networks; the theory of the linear net holds for their first steps only and is not drawn. "
    "Right: the shading shows the phases predicted from these networks before training, with uncertain borders: the "
    f"catapult begins near κ₁ = {2 * CATAPULT.at:g}, divergence where a step raises L {DIVERGENCE.rise:g} times.",
    "linear net": "Left: three networks, with the theoretical rate at the start. Right: the shading shows the phases "
    "of a wide linear net, with borders at κ₁ = 2 and 4.",
}
POINTS = " The points are the settings you have tried with the same network, batch, law and layer."
WIDTHS = {  # those that train within three seconds on two cores
    "digits": (16, 32, 64, 128),
    "linear net": (16, 32, 64, 128, 256, 512, 1024),
}
START = {
    "digits": {"sigma": 8.0, "lr": 0.05, "width": 64, "batch": 128},
    "linear net": {"sigma": 1.6, "lr": 0.02, "width": 512, "batch": 256},
}


class Explorer:
    """A page of widgets, returned by show(). Each release of a slider trains three networks, in a second or two."""

    def __init__(self) -> None:
        wide = {"continuous_update": False, "layout": {"width": "100%"}, "style": {"description_width": "128px"}}
        plain = {"layout": wide["layout"], "style": wide["style"]}
        log = {"base": 10, "step": 0.01, "readout_format": ".3g"}
        self.network = widgets.Dropdown(options=NETWORKS, value="digits", description="network", **plain)
        self.sigma = widgets.FloatLogSlider(value=8, min=-1, max=2.4, description="noise scale σ", **log, **wide)
        self.kappa = widgets.FloatLogSlider(value=0.5, min=-5, max=2, description="as κ₁ = 2η/η₁", **log, **wide)
        self.lr = widgets.FloatLogSlider(value=0.05, min=-3, max=0, description="learning rate η", **log, **wide)
        self.width = widgets.SelectionSlider(options=WIDTHS["digits"], value=64, description="width", **wide)
        self.batch = widgets.SelectionSlider(
            options=[16, 32, 64, 128, 256, 512], value=128, description="batch", **wide
        )
        self.law = widgets.Dropdown(options=sorted(LAWS), value="gaussian", description="law of the noise", **plain)
        self.layer = widgets.Dropdown(options=[0, 1, 2, 3], value=0, description="layer", **plain)
        self.verdict, self.figures, self.downloads = (widgets.HTML(layout={"width": "100%"}) for _ in range(3))
        self.tried: list[Found] = []
        self.found: Found | None = None
        self.busy = False
        for name in ("sigma", "lr", "width", "batch", "law", "layer"):
            getattr(self, name).observe(self._changed, names="value")
        self.network.observe(self._other_network, names="value")
        self.kappa.observe(self._kappa_changed, names="value")

    def show(self) -> widgets.Widget:
        """The page, with the first setting trained."""
        self.run()
        controls = widgets.Box(
            [self.network, self.sigma, self.lr, self.kappa, self.width, self.batch, self.law, self.layer]
        )
        controls.add_class("nin-controls")
        page = widgets.VBox([widgets.HTML(STYLE), controls, self.verdict, self.figures, self.downloads])
        page.add_class("nin-panel")
        return page

    @property
    def setting(self) -> Setting:
        """The setting of the controls."""
        names = ("network", "sigma", "lr", "width", "batch", "law", "layer")
        values = {name: getattr(self, name).value for name in names}
        return Setting(**values | {name: float(f"{values[name]:.4g}") for name in ("sigma", "lr")})

    def run(self) -> None:
        """Train at the current setting and redraw."""
        self.verdict.value = '<div class="nin-phase">training ...</div>'
        self.found = found = explore(self.setting)
        self.tried.append(found)
        self._set(self.kappa, found.kappa)
        color = PHASE_COLORS[found.phase]
        self.verdict.value = (
            f'<div class="nin-phase" role="status" style="color:{color}">{html.escape(found.headline)}</div>'
            f'<div class="nin-seen">{html.escape(found.sentence)}</div>'
        )
        content = files(self.tried)
        texts = f"loss and size of the node against step: {found.phase}", f"phase diagram, here: {found.phase}"
        pictures = zip(("wide", "square"), texts, ("explore.png", "explore_diagram.png"), strict=True)
        shown = [f'<img class="{kind}" alt="{text}" src="{_uri(name, content)}">' for kind, text, name in pictures]
        note = NOTE[found.setting.network] + POINTS
        self.figures.value = f'<div class="nin-figures">{"".join(shown)}</div><div class="nin-note">{note}</div>'
        links = {"explore.png": "figure", "explore_diagram.png": "diagram", "explore.csv": "table"}
        offered = [f'<a download="{name}" href="{_uri(name, content)}">{text}</a>' for name, text in links.items()]
        self.downloads.value = (
            f'<div class="nin-downloads">Download: {"".join(offered)}</div>'
            f'<pre class="nin-command">{html.escape(found.setting.command)}</pre>'
        )

    def _changed(self, change: dict[str, Any]) -> None:
        if not self.busy:
            self.run()

    def _kappa_changed(self, change: dict[str, Any]) -> None:
        if not self.busy and self.found is not None:
            self._set(self.sigma, self.found.borders.scale(change["new"], self.lr.value))
            self.run()

    def _other_network(self, change: dict[str, Any]) -> None:
        self.tried = []
        self.busy = True
        self.width.options = WIDTHS[change["new"]]
        self.busy = False
        for name, value in START[change["new"]].items():
            self._set(getattr(self, name), value)
        self._set(self.layer, 0)
        self.layer.disabled = change["new"] == "linear net"
        self.run()

    def _set(self, widget: widgets.Widget, value: Any) -> None:
        """Set a widget to the nearest value within its range, without training."""
        if isinstance(widget, widgets.FloatLogSlider):
            value = float(np.clip(value, 10**widget.min, 10**widget.max)) if np.isfinite(value) else 10**widget.max
        self.busy = True
        widget.value = value
        self.busy = False


def _uri(name: str, content: Mapping[str, bytes]) -> str:
    kind = "text/csv" if name.endswith(".csv") else "image/png"
    return f"data:{kind};base64,{base64.b64encode(content[name]).decode()}"

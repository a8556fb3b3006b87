"""The explorer: presets and sliders; on release, networks are trained and their phase shown in words and figures."""

import asyncio
import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as widgets
import numpy as np

from nin.companion.explorer import looks
from nin.companion.explorer.figures import files, picture, small
from nin.companion.explorer.setting import DEEPEST, NETWORKS, Setting, from_query
from nin.companion.explorer.trained import Found, examples, explore
from nin.model.noise import LAWS
from nin.phases import PHASES

WIDTHS = {  # those that train within a few seconds on two cores
    "digits": (16, 32, 64, 128),
    "linear net": (16, 32, 64, 128, 256, 512, 1024),
}
BATCHES = (16, 32, 64, 128, 256, 512)
START = {
    "digits": Setting(),
    "linear net": Setting(network="linear net", sigma=3.5, lr=0.02, width=512, batch=256),
}
PRESETS = {  # one a phase
    phase: Setting(sigma=sigma) for phase, sigma in zip(PHASES, (0.1, 8.0, 55.0, 150.0), strict=True)
}
SOON, SETTLED = 0.05, 0.03  # seconds: until training begins, and in which a newer change is awaited before showing
NAMES = tuple(field.name for field in dataclasses.fields(Setting))


class Explorer:
    """A page of widgets, returned by show(). Each release of a slider trains three networks, in a second or two.

    query  the end of the page's address, which may name a setting; by default that of the server (QUERY_STRING)
    """

    def __init__(self, query: str | None = None) -> None:
        wide = {"continuous_update": False, "layout": {"width": "100%"}, "style": {"description_width": "128px"}}
        plain = {"layout": wide["layout"], "style": wide["style"]}
        log = {"base": 10, "step": 0.02, "readout_format": ".3g"}
        self.network = widgets.Dropdown(options=NETWORKS, value="digits", description="network", **plain)
        self.sigma = widgets.FloatLogSlider(value=8, min=-1, max=2.4, description="noise scale σ", **log, **wide)
        self.kappa = widgets.FloatLogSlider(value=0.5, min=-5, max=2, description="as κ₁ = 2η/η₁", **log, **wide)
        self.lr = widgets.FloatLogSlider(value=0.05, min=-3, max=0, description="learning rate η", **log, **wide)
        self.width = widgets.SelectionSlider(options=WIDTHS["digits"], value=64, description="width", **wide)
        self.batch = widgets.SelectionSlider(options=BATCHES, value=128, description="batch", **wide)
        self.law = widgets.Dropdown(options=sorted(LAWS), value="gaussian", description="law of the noise", **plain)
        self.layer = widgets.Dropdown(options=range(DEEPEST + 1), value=0, description="layer", **plain)
        self.reset = widgets.Button(description="reset", layout={"width": "128px"})
        self.cards = {phase: widgets.HTML() for phase in PHASES}
        self.buttons = {phase: widgets.Button(description=f"show {phase}") for phase in PHASES}
        self.verdict, self.figures, self.downloads = (widgets.HTML(layout={"width": "100%"}) for _ in range(3))
        self.tried: list[Found] = []
        self.found: Found | None = None
        self.busy = False  # whether the page itself moves its controls
        self.wanted = 0  # counts changes: a result is shown if no newer change has come
        self.query = os.environ.get("QUERY_STRING", "") if query is None else query
        for name in NAMES[1:]:
            getattr(self, name).observe(self._changed, names="value")
        self.network.observe(lambda change: self.take(START[change["new"]]), names="value")
        self.kappa.observe(self._kappa_changed, names="value")
        self.reset.on_click(lambda _: self.take(START[self.network.value]))
        for phase, button in self.buttons.items():
            button.on_click(lambda _, phase=phase: self.take(PRESETS[phase]))

    def show(self) -> widgets.Widget:
        """The page, with the setting of its address trained, or the first one."""
        self._set_all(START["digits"])
        try:
            self._set_all(from_query(self.query))
        except ValueError as error:
            self.run()()
            self.verdict.value = looks.trouble(f"The address names a setting that cannot be: {error}")
        else:
            self.run()()
        for (phase, setting), run in zip(PRESETS.items(), examples(PRESETS.values()), strict=True):
            shown = picture(partial(small, run, phase=phase, steps=setting.config.steps))
            self.cards[phase].value = looks.card(phase, shown, setting)
        cards = [widgets.VBox([self.cards[phase], self.buttons[phase]]).add_class("nin-card") for phase in PHASES]
        cards = widgets.Box(cards).add_class("nin-cards")
        controls = [self.network, self.sigma, self.lr, self.kappa, self.width, self.batch, self.law, self.layer]
        box = widgets.Box([*controls, self.reset]).add_class("nin-controls")
        parts = [widgets.HTML(looks.STYLE), cards, self.verdict, self.figures, box, self.downloads]
        return widgets.VBox(parts).add_class("nin-panel")

    @property
    def setting(self) -> Setting:
        """The setting of the controls."""
        values = {name: getattr(self, name).value for name in NAMES}
        return Setting(**values | {name: float(f"{values[name]:.4g}") for name in ("sigma", "lr")})

    def take(self, setting: Setting) -> None:
        """Move the controls to a setting, and train there."""
        if not self.busy:
            self._set_all(setting)
            self._ask()

    def run(self) -> Callable[[], None]:
        """Train at the current setting; what then shows verdict and figures together."""
        try:
            tried = [*self.tried, explore(self.setting)]
            content = files(tried)
            return partial(self._show, tried, content, looks.figures(content, tried))
        except Exception as error:  # whatever it is, the page says so
            return partial(self._fail, error)

    def _show(self, tried: list[Found], content: dict[str, bytes], shown: str) -> None:
        self.tried, self.found = tried, tried[-1]
        self._set(self.kappa, self.found.kappa)
        self.verdict.value = looks.verdict(self.found)
        self.figures.value = shown
        self.downloads.value = looks.downloads(content, self.found)
        self._dim(False)

    def _fail(self, error: Exception) -> None:
        self.verdict.value = looks.trouble(f"{type(error).__name__}: {error}".rstrip(".") + ".")

    def _dim(self, stale: bool) -> None:
        for widget in (self.figures, self.downloads):
            (widget.add_class if stale else widget.remove_class)("nin-stale")

    def _ask(self) -> None:
        """Say at once that what is shown is old, and train soon: of several changes, the last one only."""
        self.wanted += 1
        if self.found is not None and self.found.setting.plane == self.setting.plane:
            self._set(self.kappa, self.found.borders.kappa(self.sigma.value, self.lr.value))
        self.verdict.value = looks.training()
        self._dim(True)
        _later(SOON, partial(self._train, self.wanted))

    def _train(self, wanted: int) -> None:
        if wanted == self.wanted:
            show = self.run()
            _later(SETTLED, lambda: show() if wanted == self.wanted else None)

    def _changed(self, change: dict[str, Any]) -> None:
        if not self.busy:
            self._ask()

    def _kappa_changed(self, change: dict[str, Any]) -> None:
        if not self.busy and self.found is not None:
            self._set(self.sigma, self.found.borders.scale(change["new"], self.lr.value))
            self._ask()

    def _set_all(self, setting: Setting) -> None:
        self.busy = True
        self.width.options = WIDTHS[setting.network]
        self.busy = False
        for name in NAMES:
            self._set(getattr(self, name), getattr(setting, name))
        self.layer.disabled = setting.network == "linear net"

    def _set(self, widget: widgets.Widget, value: Any) -> None:
        """Set a widget to the nearest value within its range, without training."""
        if isinstance(widget, widgets.FloatLogSlider):
            value = float(np.clip(value, 10**widget.min, 10**widget.max)) if np.isfinite(value) else 10**widget.max
        elif isinstance(widget, widgets.SelectionSlider):
            value = min(widget.options, key=lambda option: abs(option - value))
        self.busy = True
        widget.value = value
        self.busy = False


def _later(seconds: float, act: Callable[[], None]) -> None:
    """Act once the changes that have arrived by then are taken in; at once where no loop runs, as in a script."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        act()
    else:
        loop.call_later(seconds, act)

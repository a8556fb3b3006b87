"""Catches controls that train another setting than they show, old figures shown as new, and files that differ."""

import asyncio
import base64
import html
import re

import pytest

from nin.companion.explorer import page as page_module
from nin.companion.explorer.command import run
from nin.companion.explorer.page import PRESETS, START, Explorer
from nin.companion.explorer.setting import NETWORKS, Setting, read
from nin.companion.explorer.trained import explore
from nin.companion.explorer.words import headline, predicted, seen
from nin.phases import PHASES

QUICK = "width=16&batch=64"


def stale(page: Explorer) -> bool:
    return "nin-stale" in page.figures._dom_classes


@pytest.fixture
def page():
    """A page whose first setting is trained."""
    made = Explorer(query=QUICK)
    made.show()
    return made


@pytest.mark.slow
def test_settings_are_the_controls(page):
    assert page.setting == page.found.setting == Setting(width=16, batch=64)
    before = page.verdict.value
    page.sigma.value = 150
    assert page.found.setting.sigma == 150 and page.found.phase == "divergent" and page.verdict.value != before
    assert len(page.tried) == 2 and page.kappa.value == pytest.approx(min(page.found.kappa, 100), rel=0.01)
    page.kappa.value = 1.0
    assert page.found.setting.sigma == pytest.approx(page.sigma.value, rel=1e-3)
    assert page.found.kappa == pytest.approx(1.0, rel=0.05)
    page.law.value = "rademacher"
    page.layer.value = 2
    assert (page.found.setting.law, page.found.setting.layer) == ("rademacher", 2)
    page.network.value = "linear net"
    assert page.found.setting == START["linear net"] and page.layer.disabled
    page.reset.click()
    assert page.found.setting == START["linear net"] and not stale(page)


@pytest.mark.slow
def test_presets_have_their_phases(page):
    assert set(PRESETS) == set(PHASES) and set(START) == set(NETWORKS)
    page.network.value = "linear net"
    for phase, setting in PRESETS.items():
        page.buttons[phase].click()
        assert page.found.setting == page.setting == setting and page.found.phase == page.found.expected == phase
        assert f'alt="loss and size of the node against step, {phase}"' in page.cards[phase].value


@pytest.mark.slow
def test_what_is_downloaded_is_what_the_command_writes(page, tmp_path, capsys):
    page.sigma.value = 100  # a point of another setting does not change the table
    pairs = re.findall(r"\w+=\S+", page.found.setting.command)
    assert read(pairs) == page.found.setting and run(pairs, tmp_path) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == [say(page.found) for say in (headline, seen, predicted)]
    for line in shown[:3]:
        assert html.escape(line) in page.verdict.value
    offered = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', page.downloads.value))
    assert list(offered) == ["explore.png", "explore_diagram.png", "explore.csv"]
    for name in ("explore.png", "explore.csv"):
        assert base64.b64decode(offered[name]) == (tmp_path / name).read_bytes(), name
    assert offered["explore.png"] in page.figures.value and offered["explore_diagram.png"] in page.figures.value


def counted(monkeypatch) -> list[float]:
    """The noise scales that are trained from now on."""
    trained = []
    monkeypatch.setattr(page_module, "explore", lambda setting: trained.append(setting.sigma) or explore(setting))
    return trained


@pytest.mark.slow
def test_of_many_changes_the_last_one_is_trained(page, monkeypatch):
    trained = counted(monkeypatch)

    async def drag():
        for sigma in (10.0, 20.0, 30.0, 40.0):
            page.sigma.value = sigma
            assert "training …" in page.verdict.value and stale(page)  # at once
            assert page.kappa.value == pytest.approx(page.found.borders.kappa(sigma, 0.05))  # known before training
        while stale(page):
            await asyncio.sleep(0.01)
            assert ("training …" in page.verdict.value) == stale(page)  # verdict and figure together

    asyncio.run(drag())
    assert trained == [40.0] and page.found.setting.sigma == 40.0 and len(page.tried) == 2


@pytest.mark.slow
def test_a_result_that_is_overtaken_is_not_shown(page, monkeypatch):
    """A change that comes in while networks train: what they gave is old before it is there."""
    trained = counted(monkeypatch)
    shown = []
    page.verdict.observe(lambda change: shown.append(change["new"]), names="value")

    async def drag():
        page.sigma.value = 10.0
        while not trained:
            await asyncio.sleep(0.001)
        page.sigma.value = 200.0
        while stale(page):
            await asyncio.sleep(0.01)

    asyncio.run(drag())
    assert trained == [10.0, 200.0] and page.found.setting.sigma == 200.0 and len(page.tried) == 2
    assert [("training …" in text) for text in shown] == [True, False]


@pytest.mark.slow
def test_errors_are_a_sentence(page, monkeypatch):
    def fail(setting):
        raise RuntimeError("out of <memory>.")

    with monkeypatch.context() as broken:
        broken.setattr(page_module, "explore", fail)
        page.sigma.value = 9.0
    assert "RuntimeError: out of &lt;memory&gt;. Move a control, or reset." in page.verdict.value
    assert 'role="alert"' in page.verdict.value and stale(page)  # the figure is of another setting
    page.reset.click()
    assert 'role="alert"' not in page.verdict.value and not stale(page)


def test_an_address_that_names_nothing_says_so():
    page = Explorer(query="sigma=-3")
    page.show()
    assert "sigma=-3.0 must be a finite number &gt; 0" in page.verdict.value
    assert page.found.setting == Setting()


def test_the_address_comes_from_the_server(monkeypatch):
    monkeypatch.setenv("QUERY_STRING", f"{QUICK}&sigma=3&token=abc")
    page = Explorer()
    page.show()
    assert page.found.setting == page.setting == Setting(sigma=3.0, width=16, batch=64)
    assert 'href="?network=digits&amp;sigma=3.0&amp;' in page.downloads.value

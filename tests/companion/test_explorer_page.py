"""Catches a page that does not load, react, fit a phone, offer its files, or work by keys alone; in a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; install it to test the explorer's page")
ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "explore.ipynb"
PATIENCE = 90_000  # milliseconds


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server of the page, as `make explore` starts it, with the template of this clone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, folder = f"http://127.0.0.1:{port}/", tmp_path_factory.mktemp("voila")
    (folder / "voila" / "templates").mkdir(parents=True)
    (folder / "voila" / "templates" / "nin").symlink_to(ROOT / "nin" / "companion" / "explorer" / "voila")
    environment = {"JUPYTER_CONFIG_PATH": str(ROOT / "binder" / "config"), "JUPYTER_PATH": str(folder)}
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "voila", str(NOTEBOOK), "--no-browser", f"--port={port}"],
        cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(url + "voila/static/favicon.ico", timeout=5).close()
                break
            except urllib.error.HTTPError as error:
                error.close()
                break  # it answers
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def opened(browser, address):
    """The page once its first phase is shown, and the errors so far."""
    page = browser.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    goodbye = "/voila/api/shutdown/"  # its answer comes when the page is gone
    page.on("requestfailed", lambda request: None if goodbye in request.url else wrong.append(request.url))
    page.goto(address, timeout=PATIENCE)
    page.wait_for_selector(".nin-command", timeout=PATIENCE)
    yield page, wrong
    page.close()


def phase(page):
    return page.inner_text(".nin-phase").split(" (")[0]


@pytest.mark.slow
def test_page_reacts_to_the_keyboard_and_offers_its_files(opened, tmp_path):
    page, wrong = opened
    page.set_viewport_size({"width": 1280, "height": 900})
    assert phase(page) == "decay"
    assert page.locator(".nin-figures img").count() == 3
    sigma = page.get_by_role("slider", name="noise scale σ")
    for _ in range(15):  # from the top of the page, by the keyboard alone
        page.keyboard.press("Tab")
        if sigma.evaluate("handle => handle === document.activeElement"):
            break
    else:
        pytest.fail("the slider of sigma cannot be reached by the Tab key")
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('.nin-phase').innerText.startsWith('divergent')", timeout=PATIENCE)
    page.wait_for_selector("text=sigma=251.2", timeout=PATIENCE)
    assert "no longer finite" in page.inner_text(".nin-seen") and sigma.get_attribute("aria-valuetext") == "251"
    with page.expect_download() as download:
        page.click("text=table")
    download.value.save_as(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().startswith("seed,step,noisy_loss,niw,plain_loss\n")
    assert page.inner_text(".nin-command").startswith("python -m nin explore network=digits sigma=251.2 lr=0.05")
    assert wrong == []


@pytest.mark.slow
def test_controls_have_names_and_values(opened):
    page, _ = opened
    for name in ("noise scale σ", "learning rate η", "as κ₁ = 2η/η₁", "width", "batch"):
        slider = page.get_by_role("slider", name=name, exact=True)
        assert slider.count() == 1 and re.fullmatch(r"[\d.e+]+", slider.get_attribute("aria-valuetext")), name
    for name in ("network", "law of the noise", "layer"):
        assert page.get_by_role("combobox", name=name).count() == 1, name


@pytest.mark.slow
def test_training_is_played_and_paused(opened):
    page, wrong = opened
    cover, ring = page.locator(".nin-cover").first, page.locator(".nin-ring")
    assert not cover.is_visible() and not ring.is_visible()

    def place():
        page.wait_for_timeout(300)
        return cover.evaluate("cover => getComputedStyle(cover).transform")

    page.get_by_label("play").check()
    assert cover.is_visible() and ring.is_visible() and place() != place()
    page.get_by_label("pause").check()
    assert place() == place()
    page.get_by_label("whole run").check()
    assert not cover.is_visible() and wrong == []


@pytest.mark.slow
def test_presets_and_links_lead_to_their_settings(opened):
    page, wrong = opened
    page.get_by_role("button", name="show catapult").click()
    page.wait_for_selector(".nin-command:has-text('sigma=55')", timeout=PATIENCE)
    assert phase(page) == "catapult" and page.locator(".nin-stale").count() == 0
    page.goto(page.url.split("?")[0] + "?sigma=0.1&width=16", timeout=PATIENCE)
    page.wait_for_selector(".nin-command:has-text('sigma=0.1 lr=0.05 width=16')", timeout=PATIENCE)
    assert phase(page) == "decoupled" and "width=16" in page.get_attribute(".nin-link", "href")
    assert wrong == []


@pytest.mark.slow
def test_page_fits_a_phone(opened):
    page, wrong = opened
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in (".nin-phase", ".nin-seen", ".nin-figures img", ".nin-downloads a", ".nin-command"):
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, selector
    above, below = (page.locator(selector).bounding_box() for selector in (".nin-verdict", ".nin-controls"))
    assert above["y"] < below["y"]
    for picture in page.locator(".nin-figures img").all():  # 2.9 inches, whose smallest text has 6 points
        assert picture.bounding_box()["width"] / 2.9 / 72 * 6 >= 9
    assert wrong == []

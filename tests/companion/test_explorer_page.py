"""Catches a page that does not load, react, fit a phone, offer its files, or work by keys alone; in a real browser."""

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
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "explore.ipynb"
PATIENCE = 90_000  # milliseconds


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server of the page, as `make explore` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    log = (tmp_path_factory.mktemp("voila") / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "voila", str(NOTEBOOK), "--no-browser", f"--port={port}"], stdout=log, stderr=log
    )
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
    page.on("requestfailed", lambda request: wrong.append(request.url))
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
    assert page.locator(".nin-figures img").count() == 2
    sigma = page.get_by_role("slider").first
    for _ in range(10):  # from the top of the page, by the keyboard alone
        page.keyboard.press("Tab")
        if sigma.evaluate("handle => handle === document.activeElement"):
            break
    else:
        pytest.fail("the slider of sigma cannot be reached by the Tab key")
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('.nin-phase').innerText.startsWith('divergent')", timeout=PATIENCE)
    page.wait_for_selector("text=sigma=251.2", timeout=PATIENCE)
    assert "blow up" in page.inner_text(".nin-seen")
    with page.expect_download() as download:
        page.click("text=table")
    download.value.save_as(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().startswith("seed,step,noisy_loss,niw\n")
    assert page.inner_text(".nin-command").startswith("python -m nin explore network=digits sigma=251.2 lr=0.05")
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
    assert wrong == []

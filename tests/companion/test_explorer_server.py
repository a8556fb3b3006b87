"""Catches kernels that outlive their page, and a server that shows more than the explorer; with both of its servers."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from nin.support import paths

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ROOT = paths.root()
PATIENCE = 120_000  # milliseconds
SERVERS = {
    "voila": (["voila", "notebooks/explore.ipynb"], ""),
    "jupyter": (["jupyter", "server", "--IdentityProvider.token=abc", "--allow-root"],
                "voila/render/notebooks/explore.ipynb?token=abc"),
}  # fmt: skip


def setting(folder: Path) -> dict[str, str]:
    """The environment of `make explore` and of Binder, with the template of this clone."""
    templates = folder / "voila" / "templates"
    templates.mkdir(parents=True)
    (templates / "nin").symlink_to(ROOT / "nin" / "companion" / "explorer" / "voila")
    return os.environ | {"JUPYTER_CONFIG_PATH": str(ROOT / "binder" / "config"), "JUPYTER_PATH": str(folder)}


@pytest.fixture(params=SERVERS, scope="module")
def server(request, tmp_path_factory):
    """A server's process, its address, and that of its page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, page = SERVERS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--no-browser", f"--port={port}"],
            cwd=ROOT, env=setting(folder / "data"), stdout=log, stderr=log,
        )  # fmt: skip
        try:
            until(lambda: status(f"http://127.0.0.1:{port}/voila/static/voila.js") != 0)
            yield psutil.Process(process.pid), f"http://127.0.0.1:{port}/", page
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()  # jupyter_server does not end by a signal that comes while one of its kernels starts
            process.wait()
            assert not psutil.wait_procs(family, timeout=30)[1], "kernels outlive their server"


def until(done, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.3)


def status(url: str) -> int:
    """The status of an answer; 0 if there is none."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def kernels(server: psutil.Process) -> int:
    """Running kernels; one that ends may be gone, or not yet collected."""
    count = 0
    for child in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            count += "ipykernel" in " ".join(child.cmdline())
    return count


@contextmanager
def new_page():
    """A page of a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; install it to test the explorer's page")
def test_kernels_end_with_their_page(server):
    """Also if the page is left while it loads: each kernel takes 0.5 GB, and a Binder session has 2 GB."""
    process, address, path = server
    with new_page() as page:
        page.goto(address + path, timeout=PATIENCE)
        page.wait_for_selector(".nin-command", timeout=PATIENCE)
        assert kernels(process) == 1
        assert ".show()" not in page.content() and "import" not in page.inner_text("body")
        for _ in range(2):
            page.reload(timeout=PATIENCE, wait_until="commit")
            until(lambda: kernels(process) > 0)
            page.wait_for_timeout(1500)
        page.wait_for_selector(".nin-command", timeout=PATIENCE)
        until(lambda: kernels(process) == 1, seconds=200)  # one that had not begun is ended as idle
        page.close(run_before_unload=True)
        until(lambda: kernels(process) == 0, seconds=20)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; install it to test the explorer's page")
def test_a_page_that_is_left_at_once_ends_its_kernel(server):
    """When no cell has been shown, and the kernel has not answered: it would live until it is culled."""
    process, address, path = server
    with new_page() as page:
        for _ in range(2):
            page.goto(address + path, timeout=PATIENCE, wait_until="commit")
            page.wait_for_selector("#loading", timeout=PATIENCE)
            page.goto("about:blank")
            until(lambda: kernels(process) == 0, seconds=20)


@pytest.mark.slow
def test_nothing_else_is_shown(server):
    process, address, path = server
    token, before = "?token=abc" if path else "", kernels(process)
    others = ["voila/files/explore.ipynb", "voila/files/notebooks/explore.ipynb", "voila/tree/", "voila/tree/notebooks"]
    others += ["voila/files/figures/paper/02a.png", "voila/render/notebooks/02_phase_sweep.ipynb", "voila/files/a.svg"]
    if not path:
        others += ["02_phase_sweep.ipynb", "voila/api/contents/", "api/contents", "api/kernels", "api/sessions"]
    assert {other: status(address + other + token) for other in others if status(address + other + token) < 400} == {}
    assert kernels(process) == before


def test_both_servers_have_the_configuration():
    assert (
        "JUPYTER_CONFIG_PATH=binder/config $(FITTED) $(BIN)/python -m voila notebooks/explore.ipynb"
        in (ROOT / "Makefile").read_text()
    )
    said = subprocess.run(
        [ROOT / "binder" / "start", "printenv", "JUPYTER_CONFIG_PATH"], cwd=ROOT, capture_output=True, text=True,
        check=True, env={name: value for name, value in os.environ.items() if name != "JUPYTER_CONFIG_PATH"},
    ).stdout.strip()  # fmt: skip
    assert Path(said) == ROOT / "binder" / "config"
    culling = json.loads((ROOT / "binder" / "config" / "jupyter_server_config.json").read_text())[
        "MappingKernelManager"
    ]
    assert culling["cull_idle_timeout"] > 0 and culling["cull_connected"] is False

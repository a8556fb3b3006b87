"""Downloads that end: within seconds if there is no network, and when nothing more arrives."""

import threading
import time
from pathlib import Path

ANSWER = 5.0  # seconds without the first byte after which a download is given up
STALL = 20.0  # the same without a further one


def download(url: str, path: Path) -> None:
    """Write what is at a URL into a file, with a progress bar.

    Raises TimeoutError if nothing arrives for some seconds, whether a name is not resolved, a host does not answer, or
    a transfer stalls; and what pooch and requests raise.
    """
    import pooch  # imported late: its progress bar warns in every notebook without ipywidgets

    failed: list[BaseException] = []

    def work() -> None:
        try:
            pooch.HTTPDownloader(progressbar=True, timeout=STALL)(url, str(path), None)
        except BaseException as error:  # raised below, in the caller's thread
            failed.append(error)

    # a name that is not resolved cannot be interrupted; a daemon does not keep the process alive
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    arrived, since = 0, time.monotonic()
    while thread.is_alive():
        thread.join(0.05)
        size = path.stat().st_size if path.exists() else 0
        if size > arrived:
            arrived, since = size, time.monotonic()
        patience = STALL if arrived else ANSWER
        if thread.is_alive() and time.monotonic() - since > patience:
            raise TimeoutError(f"nothing arrived from {url} for {patience:g} seconds")
    if failed:
        raise failed[0]

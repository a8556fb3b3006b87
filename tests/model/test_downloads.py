"""Catches: a download that waits for ever, leaves half a file, or spoils that of another process; a file that makes
itself larger than it is; files of IDX data under their other usual name that are not found."""

import gzip
import struct
import threading
import time
import tracemalloc

import pytest
import serving

from nin.model import data, downloads, image_files
from nin.model.data import load_data
from nin.model.idx import read_idx


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The four files of a small data set in place of MNIST, packed, by name; an empty cache, no NIN_DATA."""
    files, hashes = serving.small()
    monkeypatch.setitem(image_files.SHA256, "mnist", hashes)
    monkeypatch.delenv("NIN_DATA", raising=False)
    monkeypatch.setattr(image_files.paths, "cache", lambda: tmp_path / "cache")
    data._images.cache_clear()
    yield files
    data._images.cache_clear()


@pytest.fixture
def server(monkeypatch, small):
    """A server of these files on this machine; `server.asked` counts, `server.send` replaces what it sends."""
    running = serving.serving(small)
    monkeypatch.setitem(image_files.SOURCES, "mnist", f"http://127.0.0.1:{running.server_port}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield running
    running.shutdown()
    running.server_close()


def kept(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() or path.name.startswith("."))


def test_a_data_set_is_downloaded_once(server, tmp_path):
    assert load_data("mnist").x_train.shape == (40, 16)
    assert kept(tmp_path / "cache") == sorted(f"{name}.gz" for name in image_files.FILES.values())
    data._images.cache_clear()
    load_data("mnist")
    assert len(server.asked) == 4


def test_a_transfer_that_stops_is_given_up_and_leaves_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "STALL", 0.3)
    done = threading.Event()

    def half(file, content):
        file.write(content[: len(content) // 2])
        file.flush()
        done.wait(20)

    server.send = half
    with pytest.raises(OSError, match="mnist: .* the download failed .*Connect to a network, or set NIN_DATA"):
        load_data("mnist")
    done.set()
    assert kept(tmp_path / "cache") == []


def test_a_host_that_does_not_answer_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "ANSWER", 0.3)
    done = threading.Event()
    server.send = lambda file, content: done.wait(20)
    with pytest.raises(OSError, match="nothing arrived from http://127.0.0.1.* for 0.3 seconds"):
        load_data("mnist")
    done.set()
    assert kept(tmp_path / "cache") == []


def test_two_that_fetch_one_file_do_not_disturb_each_other(server, tmp_path):
    both = threading.Barrier(2)

    def slowly(file, content):
        both.wait(20)
        file.write(content)

    server.send = slowly
    target = tmp_path / "cache" / "mnist" / f"{image_files.FILES['x_train']}.gz"
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(image_files._download("mnist", "x_train", target))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2 and kept(tmp_path / "cache") == [target.name]
    read_idx(target, sha256=image_files.SHA256["mnist"]["x_train"])


def test_a_wrong_answer_does_not_replace_a_good_file(server, tmp_path):
    load_data("mnist")
    server.send = lambda file, content: file.write(b"x" * len(content))
    target = tmp_path / "cache" / "mnist" / f"{image_files.FILES['x_train']}.gz"
    before = target.read_bytes()
    with pytest.raises(ValueError, match="mnist: what http.* sent is not the data set"):
        image_files._download("mnist", "x_train", target)
    assert target.read_bytes() == before


def test_a_damaged_file_of_the_cache_is_named(server, tmp_path):
    load_data("mnist")
    data._images.cache_clear()
    target = tmp_path / "cache" / "mnist" / f"{image_files.FILES['x_test']}.gz"
    target.write_bytes(target.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{target.name} is a truncated .*; delete it, and it is downloaded again"):
        load_data("mnist")


@pytest.mark.parametrize(("spelling", "suffix"), [("-idx", ".gz"), ("-idx", ""), (".idx", ".gz"), (".idx", "")])
def test_files_are_found_under_both_of_their_names(small, tmp_path, monkeypatch, spelling, suffix):
    for name, content in small.items():
        path = tmp_path / "data" / "mnist" / f"{name.replace('-idx', spelling)}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if suffix else gzip.decompress(content))
    monkeypatch.setenv("NIN_DATA", str(tmp_path / "data"))
    assert data.available("mnist") and load_data("mnist").x_test.shape == (40, 16)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2**32 - 1, 2**32 - 1, 2**32 - 1), (2**31, 1, 1)])
def test_a_file_that_announces_or_holds_gigabytes_takes_no_memory(tmp_path, shape):
    """100 MB of zeros in 100 kB: they are neither believed nor unpacked."""
    path = tmp_path / "images.gz"
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">BBBB3I", 0, 0, 8, 3, *shape))
        for _ in range(100):
            file.write(bytes(2**20))
    plain = tmp_path / "images"
    plain.write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, *shape) + bytes(2**20))
    for file in (plain, path):
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"{file.name}.* its header"):
            read_idx(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_without_network_the_answer_comes_soon(small, monkeypatch):
    monkeypatch.setitem(image_files.SOURCES, "mnist", "http://192.0.2.1/")  # of no one (RFC 5737)
    monkeypatch.setattr(downloads, "ANSWER", 0.2)
    begun = time.monotonic()
    with pytest.raises(OSError, match="Connect to a network, or set NIN_DATA to a folder"):
        load_data("mnist")
    assert time.monotonic() - begun < 15

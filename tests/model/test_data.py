"""Catches: a damaged or foreign file read as data, subsets that are unbalanced or change, a hash blind to a pixel."""

import gzip
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nin.model import data, image_files
from nin.model.data import linear_teacher, load_data
from nin.model.dataset import Dataset
from nin.model.idx import read_idx

real = pytest.mark.skipif(not os.environ.get("NIN_DATA"), reason="NIN_DATA names no folder with the MNIST IDX files")


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_plain_and_gzip(tmp_path, pack):
    (tmp_path / "images").write_bytes(pack(idx(IMAGES)))
    np.testing.assert_array_equal(read_idx(tmp_path / "images"), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES)[:-3], r"images holds 31 bytes, but its header \(2, 3, 3\) implies 34"),
        (idx(IMAGES)[:9], r"images holds 9 bytes, but its header"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-12], r"images is a truncated or damaged gzip file"),
        (b"\x1f\x8b" + b"x" * 40, r"images is a truncated or damaged gzip file"),
        (b"\x00\x00\x0d\x03" + idx(IMAGES)[4:], r"images begins with 00 00 0d 03, expected an IDX file"),
        (b"<html>", r"images begins with 3c 68 74 6d"),
        (b"", r"images begins with nothing"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "images")
    assert (tmp_path / "images").read_bytes() == content


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder of tiny, valid files that are not MNIST."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, file in image_files.FILES.items():
        shape = (40, 4, 4) if part.startswith("x") else (40,)
        content = idx(random.integers(0, 10, shape, dtype=np.uint8))
        (folder / f"{file}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setenv("NIN_DATA", str(tmp_path / "data"))
    data._images.cache_clear()
    yield folder
    data._images.cache_clear()


def test_wrong_hash_names_both_and_leaves_the_file(small_mnist):
    path = small_mnist / f"{image_files.FILES['x_train']}.gz"
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=rf"{path.name} has sha256 [0-9a-f]{{64}} .*expected {image_files.SHA256['mnist']['x_train']}"
    ):
        load_data("mnist")
    assert path.read_bytes() == before


def test_no_file_and_no_network_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setenv("NIN_DATA", str(tmp_path))
    monkeypatch.setattr(image_files.paths, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(image_files, "download", offline)
    data._images.cache_clear()
    with pytest.raises(OSError, match=r"no route to host.*set NIN_DATA to a folder that holds mnist's four IDX files"):
        load_data("mnist")


def test_a_bad_download_does_not_stay_in_the_cache(tmp_path, monkeypatch):
    def portal(url, path):
        path.write_bytes(b"<html>please log in</html>")

    monkeypatch.delenv("NIN_DATA", raising=False)
    monkeypatch.setattr(image_files.paths, "cache", lambda: tmp_path)
    monkeypatch.setattr(image_files, "download", portal)
    data._images.cache_clear()
    with pytest.raises(ValueError, match="fashion_mnist: what .* sent is not the data set: .* begins with 3c 68 74 6d"):
        load_data("fashion_mnist")
    assert not list((tmp_path / "fashion_mnist").iterdir())


def test_data_folder_that_is_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"NIN_DATA=.*nowhere is not a folder"):
        load_data("mnist")


def test_digits_are_scikit_learns():
    data = load_data("digits")
    assert data.x_train.shape == (1437, 64) and data.x_test.shape == (360, 64) and data.classes == 10
    assert data.x_train.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.x_train.std().item() == pytest.approx(1, abs=1e-3)
    original = load_digits().data
    both = torch.cat([data.x_train, data.x_test]).numpy()
    scale = (original.max() - original.min()) / (both.max() - both.min())
    restored = np.rint((both - both.min()) * scale)
    assert sorted(map(tuple, restored)) == sorted(map(tuple, original))
    assert (data.y_test.bincount() >= 34).all()


def test_subsets_are_balanced_nested_and_repeat():
    for count in (10, 37, 500):
        counts = load_data("digits", n_train=count, seed=4).y_train.bincount(minlength=10)
        assert counts.max() - counts.min() <= 1 and counts.sum() == count
    small, large = (load_data("digits", n_train=n, seed=4) for n in (50, 80))
    assert torch.equal(small.x_train, large.x_train[:50])
    assert small.hash == load_data("digits", n_train=50, seed=4).hash
    assert small.hash != load_data("digits", n_train=50, seed=5).hash


def test_hash_sees_one_pixel_and_callers_cannot_spoil_the_next():
    data = load_data("digits")
    before = data.hash
    data.x_train[3, 5] += 1e-3
    assert Dataset(data.x_train, data.y_train, data.x_test, data.y_test, 10, "digits").hash != before
    assert load_data("digits").hash == before


def test_linear_teacher():
    data = linear_teacher(n_train=100_000, target=2.0, x_std=3.0, label_noise=0.5, seed=1)
    x, xi = data.x_train, data.y_train - 2 * data.x_train
    assert x.dtype == torch.float64 and x.shape == (100_000, 1)
    assert x.std().item() == pytest.approx(3, rel=0.01) and xi.std().item() == pytest.approx(0.5, rel=0.01)
    assert (x * xi).mean().item() == pytest.approx(0, abs=0.02)
    assert torch.equal(load_data("linear_teacher", seed=3).y_train, load_data("linear_teacher", seed=3).x_train)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_data("digit"), "name='digit' is unknown; choose one of digits, .* Did you mean 'digits'"),
        (lambda: load_data("digits", n_train=1438), "n_train=1438 is more than the 1437 samples available"),
        (lambda: load_data("digits", n_test=0), "n_test=0 must be an integer >= 1"),
        (lambda: load_data("digits", n_train=2.5), "n_train=2.5 must be an integer"),
        (lambda: load_data("digits", seed=-1), "seed=-1 must be an integer >= 0"),
        (lambda: linear_teacher(x_std=-1.0), "x_std=-1.0 must be"),
        (lambda: linear_teacher(label_noise=float("nan")), "label_noise=nan must be"),
        (lambda: linear_teacher(target=float("inf")), "target=inf must be a finite number"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@real
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_images(name):
    data = load_data(name)
    assert data.x_train.shape == (60000, 784) and data.x_test.shape == (10000, 784)
    assert data.x_train.mean().item() == pytest.approx(0, abs=1e-4)
    assert data.x_train.std().item() == pytest.approx(1, abs=1e-3)
    if name == "fashion_mnist":
        assert (data.y_train.bincount() == 6000).all()
    assert (load_data(name, n_train=100).y_train.bincount() == 10).all()


def test_importing_asks_for_no_widgets():
    """tqdm.auto warns in every notebook where ipywidgets is missing; only a download may import it."""
    code = "import sys, nin.probes.for_sweeps, studies.spatial_stability.measure; sys.exit('tqdm.auto' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

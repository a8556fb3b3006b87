"""Catches: half a run taken for a whole one, damage that goes unnoticed, a key that changes or fails to change."""

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweeping import BASE, OVER, RUNS, same, stored, sweep

import nin
from nin.sweeps.keys import Keys
from nin.sweeps.manifests import SCHEMA, NewerSchema, key
from nin.sweeps.store import Store


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    """The sweep, never disturbed."""
    return sweep(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def whole(tmp_path) -> Path:
    """A store that holds the sweep."""
    sweep(tmp_path / "store")
    return tmp_path / "store"


def one_run(store: Path) -> tuple[str, Path]:
    name = sorted(Store(store))[3]
    return name, Store(store).path(name)


def test_key_is_the_hash_of_the_canonical_json():
    """Written out by hand: config that differs from the defaults, data, device, schema, sorted, no spaces."""
    text = f'{{"config":{{"sigma":2.0}},"data":"d","device":"cpu","schema":{SCHEMA}}}'
    assert key({"device": "cpu", "data": "d", "config": {"sigma": 2.0}}) == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(ValueError, match="must hold JSON values only"):
        key({"sigma": float("nan")})


def test_defaults_are_those_that_the_keys_of_stored_runs_leave_out():
    """A default that changes gives stored runs another meaning: raise nin.sweeps.manifests.SCHEMA with this list."""
    assert nin.RunConfig().as_json() == {
        "dataset": "digits", "n_train": None, "network": "mlp", "widths": [128, 128, 128], "activation": "relu",
        "init": "he", "loss": "cross_entropy", "layer": 0, "sigma": 1.0, "nodes": 1, "niw_std": None,
        "law": "gaussian", "resample": "epoch", "optimizer": "sgd", "lr": 0.05, "momentum": 0.0, "weight_decay": 0.0,
        "batch_size": 128, "steps": 1500, "record_every": 10, "eval_points": 30, "eval_samples": 1024,
        "curvature_pairs": 4, "seed": 0, "dtype": "float32", "nesterov": False, "decay_node": True,
        "schedule": "constant", "warmup": 0, "milestones": [], "drop": 0.1, "clip": None, "autocast": False,
    }  # fmt: skip


def test_a_trajectory_that_changes_needs_a_new_schema():
    """Three numbers of a float64 run: whoever changes them on purpose raises nin.sweeps.manifests.SCHEMA."""
    frame = nin.train(BASE.replace(dtype="float64", sigma=2.0)).frame()
    measured = frame[["noisy_loss", "niw_norm", "test_loss"]].iloc[-1].to_numpy()
    np.testing.assert_allclose(measured, TRAJECTORY[SCHEMA], rtol=1e-6)


TRAJECTORY = {1: [1.0657412, 0.50199603, 1.4154637]}


def test_all_that_determines_a_run_is_in_its_key(blobs):
    base = nin.RunConfig(n_train=200)
    others = {
        "n_train": 190, "widths": (9,), "sigma": 3.0, "seed": 1, "lr": 0.1, "steps": 3, "dtype": "float64",
        "layer": 1, "nodes": 0, "niw_std": 0.1, "law": "uniform", "batch_size": 9, "eval_samples": 7,
    }  # fmt: skip
    of_run = Keys(None, None, "cpu").of_run
    keys = {of_run(base)} | {of_run(base.replace(**{name: value})) for name, value in others.items()}
    small = nin.RunConfig(batch_size=8)
    shifted = dataclasses.replace(blobs, x_test=blobs.x_test + 1e-6)
    keys |= {Keys(data, None, "cpu").of_run(small) for data in (None, blobs, shifted)}
    assert len(keys) == len(others) + 4
    assert of_run(base.replace(sigma=1)) == of_run(base)


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_one_value_are_one_run():
    """Integers, floats, NumPy scalars, lists, tuples and arrays; and the two zeros."""
    of_run = Keys(None, None, "cpu").of_run
    base = nin.RunConfig(n_train=200)
    for name, values in {
        "sigma": (2, 2.0, np.float64(2), np.float32(2), np.int8(2)), "seed": (3, np.int64(3), np.uint8(3)),
        "momentum": (0, 0.0, -0.0, np.float64(-0.0)), "niw_std": (0.0, -0.0, 0, np.float32(0)),
        "widths": ((8, 16), [8, 16], np.array([8, 16]), [np.int64(8), np.int32(16)], np.array([8, 16], "uint16")),
        "layer": (1, np.int64(1), (1,), [np.int16(1)]), "clip": (1, 1.0, np.float64(1)), "drop": (1, 1.0, np.int64(1)),
        "decay_node": (False, np.False_), "loss": ("mse", np.str_("mse")), "sigma ": (0.0, -0.0),
    }.items():  # fmt: skip
        configs = [base.replace(**{name.strip(): value}) for value in values]
        assert len(set(configs)) == len({of_run(config) for config in configs}) == 1, name
        assert len({repr(config) for config in configs}) == 1, name


def test_a_stored_table_is_the_computed_one(table, whole):
    same(sweep(whole), table)
    assert len(stored(whole)) == RUNS
    name, folder = one_run(whole)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["key"] == name and manifest["schema"] == SCHEMA and manifest["device"] == "cpu"
    assert manifest["phase"] in nin.phases.PHASES and manifest["seconds"] > 0 and manifest["trained_together"] == 2
    assert nin.RunConfig(**manifest["config"]).replace(sigma=1.0, seed=0) == BASE
    assert manifest["versions"].keys() >= {"nin", "torch"}
    assert not list((whole / "writing").iterdir())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.write_bytes(b""), Path.unlink])
@pytest.mark.parametrize("file", ["table.parquet", "manifest.json"])
def test_damage_is_seen_moved_aside_and_computed_again(table, whole, file, damage):
    name, folder = one_run(whole)
    before = {run: (Store(whole).path(run) / "manifest.json").stat().st_mtime_ns for run in Store(whole)}
    damage(folder / file)
    if damage is Path.unlink and file == "manifest.json":  # no manifest: no run, nothing to warn of
        same(sweep(whole), table)
    else:
        with pytest.warns(
            UserWarning, match=rf"{name}/{file} is (damaged|missing).*moved to .*computed again"
        ) as caught:
            same(sweep(whole), table)
        assert len(caught) == 1
    assert len(list((whole / "damaged").iterdir())) == 1
    store = Store(whole)
    for run in store:
        store.table(run, store.manifest(run))
        assert run == name or before[run] == (store.path(run) / "manifest.json").stat().st_mtime_ns
    same(sweep(whole), table)


@pytest.mark.slow
def test_every_flipped_byte_of_a_manifest_is_seen(whole):
    name, folder = one_run(whole)
    path, seen = folder / "manifest.json", 0
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(ValueError):
            Store(whole).manifest(name)
        seen += 1
    assert seen == len(content) > 800


def test_a_newer_schema_is_refused_by_name(whole):
    _, folder = one_run(whole)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99'))
    with pytest.raises(NewerSchema, match=rf"{path} has schema version 99, .*: update nin, or name another store"):
        sweep(whole)


@pytest.fixture
def read_only():
    """A store that this process cannot write; root gives up its rights for that long."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        store = Path(folder) / "store"
        sweep(store)
        for path in (store, *store.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield store
        if root:
            os.seteuid(0)
        for path in (store, *store.rglob("*")):
            path.chmod(0o755)


@pytest.mark.slow
def test_a_read_only_store_gives_what_it_has_and_says_what_it_cannot(read_only, table):
    same(sweep(read_only), table)
    with pytest.raises(OSError, match=r"store .* cannot be written .*Permission denied.* name another store"):
        sweep(read_only, over=OVER | {"seed": [7]})


def test_a_second_copy_is_dropped_and_an_unfinished_folder_replaced(tmp_path, table):
    store, rows = Store(tmp_path), table[["step", "noisy_loss"]]
    store.save("ab" * 32, rows, {"phase": None})
    first = (store.path("ab" * 32) / "manifest.json").read_bytes()
    store.save("ab" * 32, rows * 2, {"phase": None})
    assert (store.path("ab" * 32) / "manifest.json").read_bytes() == first
    (store.path("ab" * 32) / "manifest.json").unlink()
    store.save("ab" * 32, rows * 2, {"phase": None})
    same(store.load("ab" * 32)[0], rows * 2)
    assert not list((tmp_path / "writing").iterdir())


def test_what_a_crash_left_long_ago_is_swept_out(whole):
    old, new = whole / "writing" / "old", whole / "writing" / "new"
    for path in (old, new):
        path.mkdir()
        (path / "table.parquet").write_bytes(b"half")
    os.utime(old, (0, 0))
    Store(whole).check_writable()
    assert not old.exists() and new.exists()


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"store='.*file' is a file; name a folder"):
        sweep(tmp_path / "file")

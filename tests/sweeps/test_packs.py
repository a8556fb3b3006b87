"""Catches: a pack that hides, invents or falsifies a run, one that is not used, memory for each run."""

import json
import shutil

import pyarrow as pa
import pytest
from sweeping import BASE, OVER, RUNS, same, stored, sweep

from nin.sweeps import packs
from nin.sweeps.grid import expand
from nin.sweeps.keys import Keys
from nin.sweeps.store import Store


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A store with the sweep and its pack, and the tables."""
    monkeypatch.setattr(packs, "PACKED", 3)
    return tmp_path / "store", sweep(tmp_path / "store")


def reads(monkeypatch) -> list[str]:
    """The runs that are read from their own files from now on."""
    read, columns = [], Store.columns
    monkeypatch.setattr(Store, "columns", lambda self, key, about: read.append(key) or columns(self, key, about))
    return read


def the_pack(folder):
    (pack,) = (folder / "packs").iterdir()
    return pack


def test_a_packed_sweep_reads_no_file_of_a_run(packed, monkeypatch):
    folder, frame = packed
    read = reads(monkeypatch)
    same(sweep(folder), frame)
    assert read == []
    shutil.rmtree(folder / "packs")
    same(sweep(folder), frame)
    assert len(read) == RUNS
    read.clear()
    same(sweep(folder), frame)
    assert read == []


def test_a_run_that_is_removed_or_changed_is_not_taken_from_the_pack(packed, monkeypatch):
    folder, frame = packed
    store = Store(folder)
    first, second, third = sorted(store)[:3]
    shutil.rmtree(store.path(first))
    (store.path(second) / "table.parquet").write_bytes(b"torn")
    (store.path(third) / "manifest.json").touch()
    read = reads(monkeypatch)
    with pytest.warns(UserWarning, match=f"{second}/table.parquet is damaged"):
        same(sweep(folder), frame)
    assert set(read) == {second, third} and len(stored(folder)) == RUNS


@pytest.mark.parametrize("damage", ["flipped", "torn", "empty", "folder", "about"])
def test_a_damaged_pack_is_none(packed, damage, monkeypatch):
    folder, frame = packed
    pack, content = the_pack(folder), the_pack(folder).read_bytes()
    if damage == "folder":
        pack.unlink()
        pack.mkdir()
    elif damage == "about":
        monkeypatch.setattr(packs, "ABOUT", b"others")
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        pack.write_bytes({"flipped": flipped, "torn": content[:-9], "empty": b""}[damage])
    read = reads(monkeypatch)
    same(sweep(folder), frame)
    assert len(read) == RUNS


def test_an_interrupted_sweep_leaves_a_pack_of_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "PACKED", 3)
    save, calls = Store.save, []

    def interrupted(self, *arguments):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append(save(self, *arguments))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "save", interrupted)
        sweep(tmp_path)
    keys = [Keys(None, None, "cpu").of_run(config) for config in expand(BASE, OVER)]
    assert list(packs.read(Store(tmp_path), keys)) == keys[:7]
    same(sweep(tmp_path), sweep(tmp_path / "whole"))


def test_a_store_that_cannot_be_written_is_read_without_a_pack(packed, monkeypatch):
    folder, frame = packed
    shutil.rmtree(folder / "packs")
    (folder / "packs").write_text("")
    same(sweep(folder), frame)


def test_tables_with_other_columns_and_types_are_joined():
    first, second = pa.table({"a": [1, 2], "b": [0.5, None]}), pa.table({"a": [1.5], "c": ["x"]})
    one, two = packs.joined([first, second])
    assert one.table is two.table and (one.first, one.count, two.first, two.count) == (0, 2, 2, 1)
    table = packs._table([two, one, two])
    assert table.to_pydict() == {
        "a": [1.5, 1, 2, 1.5], "b": [None, 0.5, None, None], "c": ["x", None, None, "x"],
    }  # fmt: skip
    assert json.dumps(table.column_names) == '["a", "b", "c"]'

"""Catches: something removed that a sweep would read, something kept that none will, a list that removes."""

import json
from pathlib import Path

import pytest
from own_probes import accuracy
from sweeping import OVER, same, stored, sweep

from nin.__main__ import main
from nin.sweeps import jobs
from nin.sweeps.manifests import serialised
from nin.sweeps.pruning import prunable, remove
from nin.sweeps.store import Store

ASKED = {"over": OVER | {"seed": [0]}, "probes": {"accuracy": accuracy}, "snapshots": [0, 60]}


@pytest.fixture
def store(tmp_path) -> Store:
    """Three runs with their readings."""
    sweep(tmp_path, **ASKED)
    return Store(tmp_path)


def outdated(folder: Path) -> None:
    """Let a reading come from another version of nin.probes."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    (folder / "manifest.json").write_bytes(serialised(manifest | {"nin.probes": "0" * 64}))


def test_what_is_damaged_or_outdated_is_listed_and_removed_on_demand(store, capsys, monkeypatch):
    frame, readings = sweep(store.folder, **ASKED)
    probes = Store(store.folder / "probes")
    old, torn = (probes.path(key) for key in sorted(probes)[:2])
    run, newer = (store.path(key) for key in sorted(store)[:2])
    outdated(old)
    (torn / "table.parquet").write_bytes(b"torn")
    (run / "manifest.json").write_text("{")
    (newer / "manifest.json").write_text((newer / "manifest.json").read_text().replace('"schema": 1', '"schema": 2'))
    (store.folder / "damaged" / "abc").mkdir(parents=True)
    (stray := store.folder / "runs" / "ab" / ("ab" * 32)).parent.mkdir(exist_ok=True)
    stray.write_text("")
    there = sorted(store.folder.rglob("*"))
    command = ["runs", "--store", str(store.folder), "--prune"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "5 entries" in out and "Nothing was removed; --prune --yes removes them" in out
    assert "outdated: accuracy, taken by another version of nin.probes" in out and "damaged, moved aside" in out
    assert sorted(store.folder.rglob("*")) == there
    assert main([*command, "--yes"]) == 0
    assert "5 of 5 entries removed" in capsys.readouterr().out
    assert not any(path.exists() for path in (old, torn, run, stray, store.folder / "damaged" / "abc"))
    assert newer.exists() and len(list(probes)) == 1
    assert main(command) == 0 and "none" in capsys.readouterr().out
    (newer / "manifest.json").write_text((newer / "manifest.json").read_text().replace('"schema": 2', '"schema": 1'))
    again, taken = sweep(store.folder, **ASKED)
    same(again, frame)
    same(taken["accuracy"], readings["accuracy"])


def test_nothing_that_a_sweep_reads_is_listed(store, monkeypatch):
    assert list(prunable(store)) == []
    monkeypatch.setattr(jobs, "train", lambda *_, **__: pytest.fail("trained again"))
    sweep(store.folder, **ASKED)


def test_what_was_mended_after_the_list_is_kept(store):
    file = store.path(next(iter(store))) / "table.parquet"
    whole = file.read_bytes()
    file.write_bytes(b"torn")
    (entry,) = prunable(store)
    file.write_bytes(whole)
    assert not remove(store, entry) and len(stored(store.folder)) == 3


def test_yes_alone_is_refused(store, capsys):
    assert main(["runs", "--store", str(store.folder), "--yes"]) == 2
    assert capsys.readouterr().err == "nin: error: --yes goes with --prune only.\n"

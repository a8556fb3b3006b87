"""Catches: a list of runs that hides damage or how runs differ, an export that is not the table."""

import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from own_probes import accuracy
from sweeping import BASE, OVER, RUNS, same, sweep, two_layers

import nin
from nin.__main__ import main
from nin.sweeps.listing import export, listing
from nin.sweeps.manifests import serialised
from nin.sweeps.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    """The sweep."""
    sweep(tmp_path / "store")
    return Store(tmp_path / "store")


def test_what_differs_what_is_common_and_the_rest(store):
    found = listing(store, verify=True)
    assert [row[2] for row in found.rows] == [f"sigma={s} seed={k}" for s in (0.1, 1, 30) for k in range(4)]
    assert found.common == (
        "n_train=96 widths=8x8 lr=0.1 batch_size=16 steps=60 eval_points=6 eval_samples=64 curvature_pairs=1 "
        "source=scikit-learn digits"
    )
    assert sum(found.phases.values()) == RUNS and found.problems == [] and found.seconds > 0
    assert {row[1] for row in found.rows} == {key[:12] for key in store}
    assert found.bytes == sum((store.path(key) / "table.parquet").stat().st_size for key in store)


@pytest.mark.slow
def test_readings_of_probes_are_counted_and_verified(store, capsys):
    sweep(store.folder, probes={"accuracy": accuracy}, snapshots=[0, 60])
    assert main(["runs", "--store", str(store.folder), "--verify"]) == 0
    assert "Readings of probes: 12 accuracy." in capsys.readouterr().out
    readings = Store(store.folder / "probes")
    (readings.path(next(iter(readings))) / "table.parquet").write_bytes(b"torn")
    assert main(["runs", "--store", str(store.folder), "--verify"]) == 1
    assert "table.parquet is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_networks_of_ones_own_show(store):
    nin.sweep(BASE, over={"layer": ["0", 0]}, network=two_layers, store=store.folder)
    assert sum("network=sweeping.two_layers" in row[2] for row in listing(store).rows) == 2


def test_labels_of_older_criteria_are_computed_anew(store):
    """A stored label is shown as it is only if the present criteria gave it; a damaged table is reported."""
    right, keys = listing(store).phases, list(store)
    for number, key in enumerate(keys):
        path = store.path(key) / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["sha256"]
        manifest["phase"] = "catapult"
        if number:
            del manifest["criteria"]
        path.write_bytes(serialised(manifest))
    found = listing(store)
    assert right["catapult"] < RUNS - 1 and found.phases["catapult"] - right["catapult"] in (0, 1)
    (store.path(keys[1]) / "table.parquet").write_bytes(b"torn")
    assert ["table.parquet is damaged" in problem for problem in listing(store).problems] == [True]


def test_ages(store):
    key = next(iter(store))
    path = store.path(key) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    for past, age in ((timedelta(seconds=90), "2 min"), (timedelta(days=3), "3 d"), (timedelta(-1), "0 s")):
        manifest["created"] = (datetime.now(UTC) - past).isoformat()
        path.write_bytes(serialised(manifest))
        assert age in {row[3] for row in listing(store).rows}


def test_command_line(store, capsys, tmp_path):
    assert main(["runs", "--store", str(store.folder), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "12 runs (" in out and "every checksum holds" in out and "sigma=30 seed=3" in out
    assert main(["runs", "--store", str(store.folder), "--export", str(tmp_path / "t.csv")]) == 0
    assert "12 runs exported" in capsys.readouterr().out
    exported = pd.read_csv(tmp_path / "t.csv").sort_values(["sigma", "seed", "step"]).reset_index(drop=True)
    whole = sweep(store.folder).sort_values(["sigma", "seed", "step"]).reset_index(drop=True)
    numbers = [name for name in whole.columns if name != "run" and whole[name].dtype.kind == "f"]
    pd.testing.assert_frame_equal(exported[numbers], whole[numbers], check_exact=True)
    assert exported["run"].nunique() == RUNS and list(exported.columns) == list(whole.columns)


@pytest.mark.slow
def test_damage_is_told_and_left_alone(store, capsys, tmp_path):
    key = sorted(store)[0]
    path = store.path(key) / "table.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["runs", "--store", str(store.folder)]) == 0
    assert main(["runs", "--store", str(store.folder), "--verify"]) == 1
    assert f"{path} is damaged: its sha256 is" in capsys.readouterr().err
    assert path.exists()
    assert main(["runs", "--store", str(store.folder), "--export", str(tmp_path / "t.csv")]) == 2
    assert "is damaged" in capsys.readouterr().err and not (tmp_path / "t.csv").exists()


def test_newer_runs_are_refused_by_name(store, capsys):
    path = store.path(sorted(store)[0]) / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert main(["runs", "--store", str(store.folder)]) == 1
    assert f"{path} has schema version 2" in capsys.readouterr().err


def test_an_empty_store(tmp_path, capsys):
    folder = tmp_path / "none"
    assert main(["runs", "--store", str(folder)]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    folder.mkdir()
    assert main(["runs", "--store", str(folder)]) == 0
    assert "0 runs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there are no runs in .*; nothing was exported"):
        export(Store(folder), tmp_path / "t.csv")
    assert not list(folder.iterdir()) and not (tmp_path / "t.csv").exists()


def test_an_export_in_batches_counts_runs_through(store, monkeypatch, tmp_path):
    export(store, tmp_path / "whole.csv")
    monkeypatch.setattr("nin.sweeps.listing.AT_A_TIME", 5)
    assert export(store, tmp_path / "t.csv") == RUNS
    same(pd.read_csv(tmp_path / "t.csv"), pd.read_csv(tmp_path / "whole.csv"))
    assert OVER["seed"] == sorted(pd.read_csv(tmp_path / "t.csv")["seed"].unique())

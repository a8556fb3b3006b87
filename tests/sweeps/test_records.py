"""Catches: a record that comes back changed, is doubled or listed before it is whole, and damage that is not seen."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import nin
from nin.__main__ import main
from nin.sweeps import records
from nin.sweeps.listing import listing
from nin.sweeps.store import Store


def weights(model, x, y):
    return pd.DataFrame(
        {"of": [n for n, _ in model.named_parameters()], "norm": [p.norm().item() for p in model.parameters()]}
    )


def recorded(seed=0, steps=60):
    torch.manual_seed(seed)
    x, y = torch.randn(96, 5), torch.arange(96) % 3
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    noisy = nin.inject(model, "0", sigma=2.0)
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    probes = {"weights": weights}
    record = nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy, probes=probes, snapshots=(0, steps))
    for _ in range(steps + 1):
        loss = F.cross_entropy(noisy(x), y)
        optimizer.zero_grad()
        loss.backward()
        record(loss)
        optimizer.step()
    return record


@pytest.fixture(scope="module")
def record():
    return recorded()


def test_everything_comes_back(tmp_path, record):
    other = recorded(seed=1)
    keys = [
        records.keep(one, tmp_path, name="mlp", settings={"seed": s, "kind": "a"})
        for s, one in enumerate((record, other))
    ]
    assert records.keep(record, tmp_path, name="mlp", settings={"seed": 0, "kind": "a"}) == keys[0]  # once
    log = records.read(tmp_path)
    assert sorted(log["record"].unique()) == [0, 1] and set(log["phase"]) == {record.phase().phase, other.phase().phase}
    for part, table in (
        ("log", record.frame().drop(columns="run")),
        ("norms", record.norms()),
        ("readings", record.readings()),
    ):
        found = records.read(tmp_path, part)
        mine = found[found["seed"] == 0].reset_index(drop=True)
        assert list(mine.columns[:5]) == ["record", "name", "phase", "seed", "kind"]
        pd.testing.assert_frame_equal(mine[list(table.columns)], table, check_dtype=False)
    assert nin.phases.classify(log[log["seed"] == 0]) == record.phase().phase
    assert {row[2:4] for row in listing(Store(tmp_path)).records} == {
        ("mlp", "seed=0 kind=a"),
        ("mlp", "seed=1 kind=a"),
    }


def test_the_command_lists_them_and_finds_damage(tmp_path, record, capsys):
    own = records.keep(record, tmp_path, name="mine")
    assert main(["runs", "--store", str(tmp_path), "--verify"]) == 0
    assert own[:12] in (out := capsys.readouterr().out) and "mine" in out
    (tmp_path / "records" / "norms" / "runs" / own[:2] / own / "table.parquet").write_bytes(b"torn")
    assert main(["runs", "--store", str(tmp_path)]) == 0
    assert main(["runs", "--store", str(tmp_path), "--verify"]) == 1
    assert "table.parquet is damaged" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="damaged"):
        assert records.read(tmp_path, "norms").empty
    assert len(records.read(tmp_path)) == len(record.frame())


def test_a_record_is_listed_last(tmp_path, record, monkeypatch):
    """Interrupted between its tables it is not there; kept again it is whole."""
    save, done = Store.save, []

    def interrupted(self, *arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(save(self, *arguments))

    monkeypatch.setattr(Store, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        records.keep(record, tmp_path, name="mine")
    assert records.read(tmp_path).empty and not listing(Store(tmp_path)).records
    monkeypatch.undo()
    records.keep(record, tmp_path, name="mine")
    assert [len(records.read(tmp_path, part)) for part in ("log", "norms", "readings")] == [
        len(record.frame()), len(record.norms()), len(record.readings())
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings, problem",
    [({"seed": [0]}, r"settings\['seed'\]=\[0\] must be a number or a text"),
     ({"sigma": 1.0}, "has the name of a column"), ({"phase": "x"}, "has the name of a column"),
     ({"x": float("nan")}, "must hold JSON values")],
)  # fmt: skip
def test_settings_that_cannot_be_kept(tmp_path, record, settings, problem):
    with pytest.raises(ValueError, match=problem):
        records.keep(record, tmp_path, name="mine", settings=settings)
    assert records.read(tmp_path).empty


def test_no_column_is_overwritten(tmp_path):
    """A setting, or a column that the store adds, does not replace one of a probe's table."""
    with pytest.raises(ValueError, match=r"settings\['of'\] has the name of a column of the readings"):
        records.keep(recorded(steps=1), tmp_path, name="mine", settings={"of": "x"})
    record = recorded(steps=1)
    record._readings = [table.rename(columns={"of": "name"}) for table in record._readings]
    with pytest.raises(ValueError, match="the readings have the column 'name', which a store adds"):
        records.keep(record, tmp_path, name="mine")
    assert not list(tmp_path.rglob("*.parquet"))


def test_numpy_numbers_are_numbers(tmp_path, record):
    own = records.keep(record, tmp_path, name="mine", settings={"seed": np.int64(3), "rate": np.float32(0.5)})
    assert own == records.keep(record, tmp_path, name="mine", settings={"seed": 3, "rate": 0.5})
    assert records.read(tmp_path)["seed"].unique().tolist() == [3]


def test_nothing_to_keep_and_another_part(tmp_path):
    noisy = nin.inject(torch.nn.Sequential(torch.nn.Linear(2, 2)), "0", sigma=1.0)
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    empty = nin.Record(noisy, optimizer, torch.randn(8, 2), torch.arange(8) % 2, loss=F.cross_entropy)
    with pytest.raises(ValueError, match="record has no rows yet"):
        records.keep(empty, tmp_path, name="mine")
    with pytest.raises(ValueError, match="part='norm' must be one of log, norms, readings"):
        records.read(tmp_path, "norm")

"""Catches: runs lost, or no clear words, on file systems that refuse something, and where something is in the way."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from sweeping import OVER, RUNS, same, stored, sweep

from nin.__main__ import main
from nin.sweeps import jobs, writers
from nin.sweeps.manifests import DamagedRun, serialised
from nin.sweeps.store import Store

SMALL = {"over": OVER | {"seed": [0]}}  # three runs


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    """A small sweep, never disturbed."""
    return sweep(tmp_path_factory.mktemp("whole"), **SMALL)


def refusing(number: int, only=lambda path: True):
    """A function of os that fails with an error number for some paths."""

    def wrapped(function):
        def refuse(path, *arguments, **keywords):
            if only(Path(str(path))):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *arguments, **keywords)

        return refuse

    return wrapped


def patched(monkeypatch, name: str, wrap) -> None:
    monkeypatch.setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP])
def test_without_renames_of_folders(tmp_path, monkeypatch, table, number):
    patched(monkeypatch, "rename", refusing(number, Path.is_dir))
    same(sweep(tmp_path, **SMALL), table)
    assert len(stored(tmp_path)) == 3 and not list((tmp_path / "writing").iterdir())
    run = Store(tmp_path).path(next(iter(Store(tmp_path))))
    (run / "table.parquet").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="moved to"):
        same(sweep(tmp_path, **SMALL), table)
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    same(sweep(tmp_path, **SMALL), table)


def test_a_run_that_is_half_published_is_none(tmp_path, monkeypatch, table):
    """Without renames of folders, a crash between the two files leaves a table without a manifest."""
    patched(monkeypatch, "rename", refusing(errno.EXDEV, Path.is_dir))
    with monkeypatch.context() as patch:
        crash = refusing(errno.EIO, lambda path: path.name.startswith(".manifest") and "runs" in path.parts)
        patched(patch, "replace", crash)
        with pytest.raises(OSError, match=r"cannot be written \(Input/output error\)"):
            sweep(tmp_path, **SMALL)
    assert not stored(tmp_path)
    assert main(["runs", "--store", str(tmp_path), "--verify"]) == 0
    same(sweep(tmp_path, **SMALL), table)


def test_without_modes(tmp_path, monkeypatch, table):
    for name in ("chmod", "fchmod", "umask"):
        patched(monkeypatch, name, refusing(errno.EPERM)) if name != "umask" else monkeypatch.delattr(os, name)
    same(sweep(tmp_path, **SMALL), table)
    assert len(stored(tmp_path)) == 3


def test_new_files_have_the_modes_of_new_files(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from nin.support import paths; os.umask(0o027);"
        "paths.write(Path(sys.argv[1]) / 'file', b'')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["replace", "rename"])
def test_if_nothing_can_be_renamed_that_is_said(tmp_path, monkeypatch, table, name):
    sweep(tmp_path, over=OVER | {"seed": [0], "sigma": [0.1]})
    with monkeypatch.context() as patch:
        patched(patch, name, refusing(errno.EXDEV))
        if name == "rename":  # files are replaced: that suffices
            same(sweep(tmp_path, **SMALL), table)
        else:
            with pytest.raises(OSError, match=r"cannot be written \(Invalid cross-device link\); the runs in it are"):
                sweep(tmp_path, **SMALL)
            assert len(stored(tmp_path)) == 1 and not list((tmp_path / "writing").iterdir())
    same(sweep(tmp_path, **SMALL), table)


@pytest.mark.parametrize("when", ["claim", "table", "publish"])
def test_a_full_disk(tmp_path, monkeypatch, table, when):
    sweep(tmp_path, over=OVER | {"seed": [0], "sigma": [0.1]})
    full = refusing(errno.ENOSPC)
    with monkeypatch.context() as patch:
        if when == "claim":
            patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        elif when == "table":
            patched(patch, "fsync", full)
        else:
            patched(patch, "rename", full)
            patched(patch, "replace", refusing(errno.ENOSPC, lambda path: "runs" in path.parts))
        with pytest.raises(OSError, match=r"store .* cannot be written \(No space left.*; the runs in it are"):
            sweep(tmp_path, **SMALL)
    assert len(stored(tmp_path)) == 1 and not list((tmp_path / "writing").iterdir())
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["writers"]
    same(sweep(tmp_path, **SMALL), table)


def test_the_folder_is_removed_while_running(tmp_path, monkeypatch, table):
    train, calls = jobs.train, []

    def removing(configs, **arguments):
        calls.append(configs)
        if len(calls) == 2:
            shutil.rmtree(tmp_path / "store")
        return train(configs, **arguments)

    monkeypatch.setattr(jobs, "train", removing)
    same(sweep(tmp_path / "store", at_once=1, **SMALL), table)
    assert len(stored(tmp_path / "store")) == 2
    same(sweep(tmp_path / "store", at_once=1, **SMALL), table)


@pytest.mark.parametrize("days", [-2, 2])
def test_a_clock_that_is_wrong_sweeps_nothing_out(tmp_path, monkeypatch, days):
    store = Store(tmp_path)
    live = store._scratch()
    far = tmp_path / "writing" / "other-1-2-3"
    far.mkdir()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * 86400)
    for past in (0, -2, 2):
        for path in (live, far):
            os.utime(path, (now + past * 86400, now + past * 86400))
        store.check_writable()
        assert live.exists() and far.exists()
    dead = tmp_path / "writing" / writers.new_name().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    dead.mkdir()
    store.check_writable()
    assert live.exists() and not dead.exists()


def test_moved_to_a_path_with_blanks_and_other_letters(tmp_path, monkeypatch, table):
    sweep(tmp_path / "a", **SMALL)
    moved = tmp_path / "Läufe 1 — σ=0,1 ‘neu’"
    (tmp_path / "a").rename(moved)
    monkeypatch.setattr(jobs, "train", lambda *_, **__: pytest.fail("trained again"))
    same(sweep(moved, **SMALL), table)
    monkeypatch.undo()
    assert main(["runs", "--store", str(moved), "--verify", "--export", str(tmp_path / "ä b.csv")]) == 0
    assert sweep(moved)["run"].nunique() == RUNS


def a_run(folder: Path) -> tuple[str, Path]:
    sweep(folder, **SMALL)
    key = sorted(Store(folder))[0]
    return key, Store(folder).path(key)


@pytest.mark.parametrize("what", ["run", "table.parquet", "manifest.json"])
def test_files_and_folders_that_changed_places(tmp_path, table, what, capsys):
    key, run = a_run(tmp_path)
    if what == "run":
        shutil.rmtree(run)
        run.write_text("not a folder")
    else:
        (run / what).unlink()
        (run / what).mkdir()
    assert main(["runs", "--store", str(tmp_path), "--verify"]) == 1
    assert f"{key}{'' if what == 'run' else f'/{what}'} is damaged: " in (said := capsys.readouterr().err)
    assert "Traceback" not in said
    with pytest.warns(UserWarning, match="is damaged.*moved to"):
        same(sweep(tmp_path, **SMALL), table)
    same(sweep(tmp_path, **SMALL), table)
    assert main(["runs", "--store", str(tmp_path), "--verify"]) == 0


def test_a_file_in_the_way_of_new_runs_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(OSError, match=rf"cannot be written \((File exists|Not a directory): {tmp_path}/runs"):
        sweep(tmp_path, **SMALL)


DEEP = '{"schema": 1, "sha256": ' + "[" * 200_000 + "]" * 200_000 + "}"


@pytest.mark.parametrize(
    "content",
    [DEEP, "[]", "3", '{"schema": 1}', '{"schema": true, "sha256": 1}', '{"sha256": "", "schema": "1"}', "\xff"],
)
def test_manifests_that_are_none(tmp_path, content, capsys):
    key, run = a_run(tmp_path)
    (run / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(DamagedRun, match="manifest.json is damaged: it is not a manifest"):
        Store(tmp_path).manifest(key)
    assert main(["runs", "--store", str(tmp_path)]) == 1
    assert f"{run}/manifest.json is damaged" in capsys.readouterr().err


def rewritten(run: Path, change) -> None:
    """Change a manifest and give it the right checksum."""
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["sha256"]
    change(manifest)
    (run / "manifest.json").write_bytes(serialised(manifest))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["config"].update(future=1), "config field 'future', which this nin does not know: update nin"),
        (lambda m: m.pop("config"), "is damaged: it has no valid 'config'"),
        (lambda m: m.update(config=[]), "is damaged: it has no valid 'config'"),
        (lambda m: m.update(seconds="1"), "is damaged: it has no valid 'seconds'"),
        (lambda m: m.update(created="yesterday"), "is damaged: it has no valid 'created'"),
        (lambda m: m.pop("table"), "is damaged: it is not a manifest"),
        (lambda m: m.update(key="0" * 64), "is damaged: it is not the manifest of the run"),
    ],
)
def test_manifests_of_other_versions_and_hands(tmp_path, change, said, capsys):
    _, run = a_run(tmp_path)
    rewritten(run, change)
    assert main(["runs", "--store", str(tmp_path)]) == 1
    assert said in (err := capsys.readouterr().err) and f"{run}/manifest.json" in err
    assert main(["runs", "--store", str(tmp_path), "--export", str(tmp_path / "t.csv")]) == 2
    assert said in (err := capsys.readouterr().err) and err.count("\n") == 1 and f"{run}/manifest.json" in err
    assert not (tmp_path / "t.csv").exists()


def test_a_config_that_is_not_taken_is_named_where_it_is_needed(tmp_path, capsys):
    _, run = a_run(tmp_path)
    rewritten(run, lambda m: m["config"].update(sigma=-1.0))
    assert main(["runs", "--store", str(tmp_path), "--export", str(tmp_path / "t.csv")]) == 2
    assert f"{run}/manifest.json holds a config that this nin does not take: sigma=-1.0" in capsys.readouterr().err
    rewritten(run, lambda m: m.pop("criteria"))
    assert main(["runs", "--store", str(tmp_path)]) == 1
    assert "does not take: sigma=-1.0" in capsys.readouterr().err

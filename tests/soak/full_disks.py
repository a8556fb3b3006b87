"""Disks that are full or become read-only, files that may not grow, folders that are removed meanwhile."""

import functools
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from attempts import Kind, Scene
from forked import until
from store_faults import again, changed_sweep, intact, right, survived_or_said, swallow_errors, whole
from sweeping import RUNS, stored, sweep

from nin.sweeps.results import Results


def limited(folder: Path, size: int):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return sweep(folder)


def file_size(scene: Scene) -> None:
    """A table has some 8 kB, a manifest 2, a claim's name less than 100 bytes."""
    folder = scene.folder / "store"
    size = scene.random.choice([scene.random.randrange(100), scene.random.randrange(1000, 10_000)])
    survived_or_said(scene, scene.start(limited, folder, size), folder, scene.ready)
    again(scene, folder, scene.ready)


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def mounted(attempt):
    """An attempt with a small disk of its own in scene.folder/disk."""

    @functools.wraps(attempt)
    def on_a_disk(scene: Scene) -> None:
        disk = scene.folder / "disk"
        disk.mkdir()
        size = scene.random.randrange(8, 45) if attempt is full else 200
        assert mount("-t", "tmpfs", "-o", f"size={4 * size}k", "tmpfs", str(disk))
        try:
            attempt(scene, disk)
        finally:
            scene.end()
            subprocess.run(["umount", "-l", str(disk)], check=True)

    return on_a_disk


def full(scene: Scene, disk: Path) -> None:
    folder = disk / "store"
    survived_or_said(scene, scene.start(changed_sweep, folder, {}), folder, scene.ready)
    intact(folder)
    assert mount("-o", "remount,size=10m", str(disk))
    again(scene, folder, scene.ready)


def read_only(scene: Scene, disk: Path) -> None:
    """The disk becomes read-only at a random moment, as after an error."""
    folder = disk / "store"
    child = scene.start(changed_sweep, folder, {})
    least = scene.random.randrange(1, 8)
    until(lambda: len(stored(folder)) >= least or not child.running)
    for _ in range(1000):  # refused while a file is open for writing
        if mount("-o", "remount,ro", str(disk)):
            break
        time.sleep(0.001)
    survived_or_said(scene, child, folder, scene.ready)
    assert mount("-o", "remount,rw", str(disk))
    again(scene, folder, scene.ready)


def impossible() -> str:
    with tempfile.TemporaryDirectory() as folder:
        if not shutil.which("mount") or not mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
            return "not possible: no disk can be mounted here"
        subprocess.run(["umount", folder], check=True)
    return ""


def removed(scene: Scene) -> None:
    """The whole store is removed once or several times: the sweep goes on, or says that it cannot."""
    folder = scene.folder / "store"
    child = scene.start(changed_sweep, folder, {})
    for _ in range(scene.random.choice([1, 1, 4])):
        least = scene.random.randrange(1, RUNS // 2)
        until(lambda least=least: len(stored(folder)) >= least or not child.running)
        time.sleep(scene.random.uniform(0, 0.1))
        shutil.rmtree(folder, ignore_errors=True)
    result, _ = child.answer()
    if isinstance(result, OSError):
        assert str(folder) in str(result) and "\n" not in str(result), result
    elif isinstance(result, BaseException):
        raise result
    else:
        right(scene, result, scene.ready)
    again(scene, folder, scene.ready)


def read_back() -> None:
    """What was computed is not kept in memory, but read from the store."""
    save, frame = Results.save, Results.frame

    def forgetting(self, group, computed) -> None:
        save(self, group, computed)
        for config in group.configs:
            self._tables.pop(config)

    def read(self):
        self.load(list(self._run_keys))
        return frame(self)

    Results.save, Results.frame = forgetting, read


ERRORS = {"errors": swallow_errors}
KINDS = [
    Kind("sizes", "files may not grow beyond a random size", file_size, 15, ERRORS, prepare=whole),
    Kind("full", "the disk is full", mounted(full), 15, ERRORS, prepare=whole, possible=impossible),
    Kind("readonly", "the disk becomes read-only", mounted(read_only), 12, ERRORS, prepare=whole, possible=impossible),
    Kind("removed", "the store is removed meanwhile", removed, 15, {"memory": read_back}, prepare=whole),
]

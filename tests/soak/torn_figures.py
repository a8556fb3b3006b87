"""Figures and checks that several processes save at once, some killed, while another one reads."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from attempts import Kind, Scene

from nin import checks
from nin.checks import Check
from nin.figures import Saved, sidecars
from nin.support import paths

SUFFIXES = ("pdf", "svg", "png")


def figure(folder: Path) -> Saved:
    return Saved("mine", "quick", folder / "quick")


def version(folder: Path, number: float) -> None:
    """Save a figure whose every file says which version it is."""
    table = pd.DataFrame({"version": [number] * 20}).to_csv(index=False).encode()
    sidecar = {"draw": "nin.figures.own_logs.phases", "arguments": {"version": number}, "columns": {}}
    figure(folder).write({suffix: f"{number}".encode() for suffix in SUFFIXES}, table, sidecar)


def saving(folder: Path, offset: float) -> None:
    """Save one version after the other."""
    number = offset
    while True:
        version(folder, number := number + 1)


def mixtures(folder: Path, seconds: float) -> tuple[int, list[str]]:
    """How often a figure could be read, and the versions of its parts where they differ and nobody said so."""
    end, seen, found = time.monotonic() + seconds, 0, []
    while time.monotonic() < end:
        one = figure(folder)
        try:
            parts = {"sidecar": one.sidecar["arguments"]["version"], "table": one.table()["version"].unique().tolist()}
            for suffix in SUFFIXES:
                if (content := one.picture(suffix)) is not None:
                    parts[suffix] = float(content)
        except (ValueError, OSError):
            continue  # refused by name
        seen += 1
        if {str(part) for part in parts.values()} != {str(parts["sidecar"]), str([parts["sidecar"]])}:
            found.append(f"a mixture that is not named: {parts}")
    return seen, found


def attempt(scene: Scene) -> None:
    """Three savers, of whom one or two are killed; then the figure is saved once more, whole."""
    version(scene.folder, 0.5)
    savers = [scene.start(saving, scene.folder, place / 4) for place in range(3)]
    reader = scene.start(mixtures, scene.folder, 1.5)
    for child in scene.random.sample(savers, scene.random.choice([1, 2])):
        time.sleep(scene.random.uniform(0, 0.7))
        child.kill()
    (seen, found), _ = reader.answer()
    for what in found[:3]:
        scene.found("wrong", what)
    assert seen, "no version could be read"
    for child in savers:
        child.kill()
    if not scene.without and figure(scene.folder).fault() == "":
        assert mixtures(scene.folder, 0.01)[1] == []
    scene.call(version, scene.folder, 7.5)
    if mixtures(scene.folder, 0.01)[1] or figure(scene.folder).fault():
        scene.found("wrong", "the figure that is saved afterwards is not whole")
    if left := [path.name for path in (scene.folder / "quick").iterdir() if path.name.startswith(".")]:
        scene.found("left behind", f"{left}")


def compare_no_hashes() -> None:
    Saved._is_whole = lambda self, suffix, content: True


def save_checks(folder: Path, notebook: str, times: int) -> None:
    os.environ["NIN_FIGURES"] = str(folder)
    for number in range(times):
        checks.save([Check(f"claim {number}", "soak", number, number)], notebook=notebook, profile="quick")


def vanished(folder: Path) -> list[str]:
    """What a reader misses in the table of checks though it was there before, while others save theirs."""
    seen: set[str] = set()
    while not (folder / "saved").exists():
        there = set(checks.table(folder / "quick")["notebook"])
        if seen - there:
            return sorted(seen - there)
        seen |= there
    return []


def eight(scene: Scene) -> None:
    """Eight notebooks save their checks several times, and one more is killed: the rows of all eight are there."""
    os.environ["NIN_FIGURES"] = str(scene.folder)
    doomed = scene.start(save_checks, scene.folder, "doomed", 10**6)
    savers = [scene.start(save_checks, scene.folder, f"{place:02}", 6) for place in range(8)]
    reader = scene.start(vanished, scene.folder)
    time.sleep(scene.random.uniform(0.02, 0.3))
    doomed.kill()
    for child in savers:
        result, _ = child.answer()
        if isinstance(result, BaseException):
            scene.found("wrong", repr(result))
    (scene.folder / "saved").touch()
    if missed := reader.answer()[0]:
        scene.found("wrong", f"a reader misses {missed!r}")
    try:
        rows = checks.table(scene.folder / "quick")[["notebook", "name"]].values.tolist()
    except Exception as error:
        return scene.found("wrong", f"checks.csv: {error!r}")
    for place in range(8):
        mine = [name for notebook, name in rows if notebook == f"{place:02}"]
        if mine != ["claim 5"]:
            scene.found("lost" if not mine else "wrong", f"notebook {place:02} has {mine}")
    return None


def lock_nothing() -> None:
    @contextmanager
    def unlocked(folder: Path) -> Iterator[None]:
        yield

    checks.exclusive = sidecars.exclusive = unlocked


def write_over() -> None:
    """Files are written in place, in two pieces."""

    def straight(path: Path, content: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            time.sleep(0.005)
            file.write(content[len(content) // 2 :])

    paths.write = straight


def damaged(scene: Scene) -> None:
    """A file of a figure is changed at random: the figure is refused, or what is read is what was saved."""
    version(scene.folder, 3.5)
    one = figure(scene.folder)
    path = one.file(scene.random.choice([*SUFFIXES, "csv", "csv", "json"]))
    content = bytearray(path.read_bytes())
    place = scene.random.randrange(len(content))
    if scene.random.random() < 0.3:
        del content[place:]
    else:
        content[place] ^= 1 << scene.random.randrange(8)
    path.write_bytes(content)
    found, _ = scene.start(mixed, scene.folder).answer()
    if isinstance(found, BaseException) and not isinstance(found, ValueError | OSError):
        scene.found("wrong", f"{path.name}: {found!r}")
    elif isinstance(found, str) and found:
        scene.found("wrong", f"{path.name}: {found}")


def mixed(folder: Path) -> str:
    """What is shown of a figure that is neither refused nor what was saved; a sidecar has no hash of its own."""
    one = figure(folder)
    table = one.table()["version"].tolist()
    shown = [one.picture(suffix) for suffix in SUFFIXES]
    if table != [3.5] * 20 or not set(shown) <= {b"3.5", None}:
        return f"shown: {shown} {table[:3]}"
    assert json.loads(one.file("json").read_text())
    return ""


KINDS = [
    Kind("figures", "savers of a figure are killed, one reads", attempt, 12, {"hashes": compare_no_hashes}),
    Kind("pictures", "files of a figure are damaged", damaged, 30, {"hashes": compare_no_hashes}, 3),
    Kind("checks", "nine save checks, one is killed", eight, 8, {"the lock": lock_nothing, "whole files": write_over}),
]

"""Files from strangers that would have something called, imported or unpacked: no canary, and no memory."""

import gzip
import json
import os
import pickle
import resource
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from attempts import Kind, Scene
from damaged_files import data
from sweeping import sweep

from nin import figures
from nin.companion import notebooks, profile_files
from nin.figures import drawers
from nin.model import idx
from nin.sweeps import jobs

MEMORY = 64e6  # bytes beyond that of the file itself
BEGIN = "import pathlib; pathlib.Path({canary!r}).touch()\n"


class Evil:
    """What touches the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.canary}'",)


def judged(scene: Scene, function, *arguments) -> None:
    """Whether a file was refused by a ValueError or OSError in one line, and the canary lives."""
    result, _ = scene.start(function, *arguments).answer()
    if (scene.folder / "canary").exists():
        scene.found("wrong", f"let in: {arguments}")
    if not isinstance(result, ValueError | OSError) or "\n" in str(result).strip():
        scene.found("wrong", f"{arguments}: {result!r}")


def redrawn(folder: Path) -> None:
    os.chdir(folder)
    sys.path.insert(0, "")
    figures.redraw("theirs", folder=folder)


def sidecar(scene: Scene) -> None:
    """A figure's sidecar names a function of anyone, or a module that lies beside it."""
    canary = str(scene.folder / "canary")
    draw, arguments = scene.random.choice(
        [
            ("pandas.to_pickle", {"filepath_or_buffer": canary}),
            ("pandas.DataFrame.to_csv", {"path_or_buf": canary}),
            ("pandas.DataFrame.to_pickle", {"path": canary}),
            ("evil.draw", {}),
            ("evil_package.figures.draw", {}),
            *([] if scene.without else OTHERS),
        ]
    )
    for module in ("evil.py", "evil_package/__init__.py", "evil_package/figures.py", "studies/__init__.py"):
        path = scene.folder / module
        path.parent.mkdir(exist_ok=True)
        path.write_text(BEGIN.format(canary=canary) + "def draw(data): pass\n")
    (scene.folder / "theirs.json").write_text(json.dumps({"draw": draw, "arguments": arguments}))
    (scene.folder / "theirs.csv").write_text("x,y\n1,2\n")
    judged(scene, redrawn, scene.folder)


OTHERS = [
    *[(name, {}) for name in ("os.system", "subprocess.run", "builtins.exec", "studies.evil.figures.draw", "", "a.b")],
    ("nin.figures.saving.save", {"name": "x"}),
    ("nin.figures.own_logs.np.save", {"arr": 1}),
    ("nin.support.paths.write", {"content": "x"}),
]


def on_their_data(folder: Path, path: Path) -> None:
    """The file is read, and a sweep that would use it as its own; the answer is that of reading."""
    with ThreadPoolExecutor(1) as pool:
        sweep(folder, over={"sigma": [1.0]}, data=data(), executor=pool)
    jobs._read(path)


def pickled(scene: Scene) -> None:
    """A pickle in the place of a stored data set."""
    evil = Evil(scene.folder / "canary")
    wrapped = scene.random.choice([evil, {"x_train": evil}, [1, evil]])
    place = scene.folder / "store" / "data"
    place.mkdir(parents=True)
    for path in (place / f"{data().hash}.pt", place / f"{'0' * 64}.pt"):
        if scene.random.random() < 0.5:
            torch.save(wrapped, path)
        else:
            path.write_bytes(pickle.dumps(wrapped, protocol=scene.random.randrange(2, 6)))
    judged(scene, on_their_data, scene.folder / "store", path)


def profile(folder: Path) -> None:
    notebooks.paths.notebooks = lambda: folder
    notebooks.profile_values("mine")


def tagged(scene: Scene) -> None:
    """A profile with a tag that has a function called."""
    canary = scene.folder / "canary"
    tags = [
        f"!!python/object/apply:os.system ['touch {canary}']",
        f"!!python/object/new:os.system ['touch {canary}']",
        f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.PosixPath ['{canary}']]",
    ]
    value, key = scene.random.choice(tags), scene.random.choice(["01_one", "x", "? [1, 2]"])
    text = scene.random.choice(["{key}: {value}", "{key}: {{a: {value}}}", "{key}: [1, {value}]", "- {value}"])
    (scene.folder / "profiles").mkdir()
    (scene.folder / "profiles" / "mine.yaml").write_text(text.format(key=key, value=value))
    judged(scene, profile, scene.folder)


def memory_of(path: Path) -> int:
    """Bytes of memory that reading a file took beyond what this process had."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        idx.read_idx(path)
    except (ValueError, OSError) as error:
        assert path.name in str(error) and "\n" not in str(error), error
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def bomb(scene: Scene) -> None:
    """An IDX file, or a gzip of one, with a header, sizes or a length that are not true."""
    path = scene.folder / "images.gz"
    sizes = [scene.random.choice([1, 3, 40, 2**16, 2**31, 2**32 - 1]) for _ in range(scene.random.choice([1, 3]))]
    header = struct.pack(f">BBBB{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)
    if scene.random.random() < 0.3:
        header = bytes(byte ^ (1 << scene.random.randrange(8)) for byte in header)
    length = scene.random.choice([0, 100, 2**20, 2**28] if scene.without is None else [2**28])
    packed = scene.random.random() < 0.7 or scene.without
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file:
        file.write(header)
        for _ in range(max(1, length // 2**20)):
            file.write(bytes(min(length, 2**20)))
    if packed and scene.random.random() < 0.3 and scene.without is None:
        content = bytearray(path.read_bytes())
        for _ in range(3):
            content[scene.random.randrange(min(len(content), 300))] ^= 1 << scene.random.randrange(8)
        path.write_bytes(content)
    announced = int(np.prod([float(size) for size in sizes])) if packed else path.stat().st_size
    allowed = MEMORY + path.stat().st_size + (min(announced, idx.MOST) if announced <= idx.MOST else 0)
    if (taken := scene.call(memory_of, path)) > allowed:
        scene.found("wrong", f"{taken / 1e6:.0f} MB of memory for {path.stat().st_size} bytes, {sizes}")


def let_draw() -> None:
    def anything(name: str):
        module, _, function = name.rpartition(".")
        if module == "pandas.DataFrame":
            return getattr(drawers.importlib.import_module("pandas").DataFrame, function)
        return getattr(drawers.importlib.import_module(module), function)

    drawers.named = anything


def unpickle() -> None:
    load = torch.load
    torch.load = lambda path, **_: load(path, weights_only=False)


def let_construct() -> None:
    import yaml

    profile_files.read = lambda path: yaml.unsafe_load(path.read_text())


def unpack_all() -> None:
    idx.read_idx = lambda path: np.frombuffer(gzip.open(path).read(), dtype=np.uint8)


KINDS = [
    Kind("sidecars", "sidecars that name functions", sidecar, 40, {"known functions": let_draw}),
    Kind("pickles", "pickles in place of data", pickled, 20, {"weights only": unpickle}),
    Kind("tags", "YAML that has functions called", tagged, 30, {"plain YAML": let_construct}, 3),
    Kind("bombs", "IDX files that announce or hold more", bomb, 60, {"limits": unpack_all}),
]

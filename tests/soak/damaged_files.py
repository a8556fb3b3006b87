"""Files of a store that are damaged at random: the table is the right one, or the file is refused by its name."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from attempts import Kind, Scene
from store_faults import computed, right
from sweeping import logged_sweep, stored

from nin.model.dataset import Dataset
from nin.sweeps import jobs, manifests, packs
from nin.sweeps.store import Store

CHANGES = ["flipped", "flipped", "flipped", "cut", "emptied", "swapped", "zeros", "longer", "removed"]


def data() -> Dataset:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(128, 64, generator=generator)
    y = torch.arange(128) % 10
    return Dataset(x, y, x[:32], y[:32], 10, "noise")


def packed(folder: Path, log: Path):
    """The sweep of a data set of one's own, which lies in the store as well, with a pack of its tables."""
    packs.PACKED = 2
    with ThreadPoolExecutor(1) as pool:
        return logged_sweep(folder, log, data=data(), executor=pool)


def prepared(scene: Scene) -> tuple:
    kept = scene.folder.parent / "undamaged"
    return kept, scene.call(packed, kept, scene.folder / "log")


def damage(scene: Scene, path: Path, others: list[Path]) -> str:
    """Change a file at random; how."""
    change, content = scene.random.choice(CHANGES), bytearray(path.read_bytes())
    if change == "flipped":
        for _ in range(scene.random.choice([1, 1, 10])):
            content[scene.random.randrange(len(content))] ^= 1 << scene.random.randrange(8)
    elif change == "cut":
        del content[scene.random.randrange(len(content)) :]
    elif change == "emptied":
        content.clear()
    elif change == "swapped":
        content[:] = scene.random.choice(others).read_bytes()
    elif change == "zeros":
        start = scene.random.randrange(len(content))
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    elif change == "longer":
        content += scene.random.randbytes(100)
    path.write_bytes(content) if change != "removed" else path.unlink()
    return f"{path.name} {change}"


def attempt(scene: Scene) -> None:
    """One to three files; then the runs that were not touched are read, and no others computed than those that were."""
    kept, table = scene.ready
    folder = scene.folder / "store"
    shutil.copytree(kept, folder)
    kinds = [sorted(folder.glob(f"runs/*/*/{name}")) for name in ("table.parquet", "manifest.json")]
    kinds += [sorted(folder.glob("packs/*")), sorted(folder.glob("data/*"))]
    done = []
    for _ in range(scene.random.randrange(1, 4)):
        files = [path for path in scene.random.choice(kinds) if path.exists()]
        if files:
            done.append(damage(scene, scene.random.choice(files), files))
    before, log = stored_whole(folder), scene.folder / "log"
    result, warned = scene.start(packed, folder, log).answer()
    if isinstance(result, ValueError | OSError):
        if str(folder) not in str(result) or "\n" in str(result):
            scene.found("wrong", f"{done}: refused without a name: {result!r}")
    elif isinstance(result, BaseException):
        scene.found("wrong", f"{done}: {result!r}")
    else:
        right(scene, result, table)
        for run in set(computed(log)) & before:
            scene.found("doubled", f"{done}: {run} was whole and computed again")
        if len(stored(folder)) < table["run"].nunique():
            scene.found("lost", f"{done}: not stored again")
        for warning in warned:
            if str(folder) not in warning:
                scene.found("wrong", f"{done}: warned without a name: {warning}")


def stored_whole(folder: Path) -> set[tuple[float, int]]:
    """The runs whose files are as they were written."""
    found, store = set(), Store(folder)
    for key in store:
        try:
            manifest = store.manifest(key)
            store.table(key, manifest)
            found.add((manifest["config"]["sigma"], manifest["config"]["seed"]))
        except ValueError:
            continue
    return found


def compare_no_checksums() -> None:
    """Whatever can be read is believed."""
    parsed = manifests.json.loads

    def content(self, key: str, manifest) -> bytes:
        return (self.path(key) / "table.parquet").read_bytes()

    def believed(content: bytes, key: str, path: Path):
        return {**parsed(content), "key": key}

    import nin.sweeps.store as store

    Store.content, store.parsed = content, believed
    jobs._holds = lambda path, data: path.exists()


KINDS = [
    Kind(
        "damage", "files of a store are damaged", attempt, 60, {"checksums": compare_no_checksums}, 4, prepare=prepared
    )
]

"""A server that stalls, cuts off and garbles what it sends, and two processes that fetch the same files."""

import gzip
import hashlib
import os
import random
import time
from pathlib import Path

import serving
from attempts import Kind, Scene
from forked import until

from nin.model import data, downloads, image_files

PATIENCE = 0.7  # seconds without a byte
FAULTS = ["cut", "garbled", "others", "others", "others", "stalls", "silent", "longer", "nothing", "html"]


def serve(folder: Path, seed: int, share: float) -> None:
    """Serve until killed; a share of the answers has one of the faults that the file folder/faults names."""
    chance = random.Random(seed)
    server = serving.serving(serving.small()[0])

    def send(file, content: bytes) -> None:
        faults = (folder / "faults").read_text().split() if (folder / "faults").exists() else []
        fault = chance.choice(faults) if faults and chance.random() < share else ""
        with (folder / "sent").open("a") as log:
            log.write(f"{fault or 'good'}\n")
        place = chance.randrange(1, len(content))
        if fault in ("stalls", "silent"):
            file.write(content[: place if fault == "stalls" else 0])
            file.flush()
            time.sleep(3 * PATIENCE)
        elif fault == "cut":
            file.write(content[:place])
        elif fault == "garbled":
            file.write(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        elif fault == "others":  # a whole file of other values
            plain = gzip.decompress(content)
            others = [gzip.compress(plain[:-1] + bytes([plain[-1] ^ change])) for change in range(1, 10)]
            file.write(min(others, key=len)[: len(content)].ljust(len(content), b"\0"))
        elif fault == "longer":
            file.write(content + content)
        elif fault == "html":
            file.write(b"<html>log in first</html>".ljust(len(content)))
        elif not fault:
            file.write(content[:place])
            file.flush()
            time.sleep(chance.uniform(0, 0.1))
            file.write(content[place:])

    server.send = send
    (folder / "port.new").write_text(str(server.server_port))
    os.replace(folder / "port.new", folder / "port")
    time.sleep(3600)


def fetched(folder: Path) -> str:
    """A hash of the data set as it is loaded by way of the server."""
    image_files.SHA256["mnist"] = serving.small()[1]
    image_files.SOURCES["mnist"] = f"http://127.0.0.1:{(folder / 'port').read_text()}/"
    image_files.paths.cache = lambda: folder / "cache"
    os.environ.pop("NIN_DATA", None)
    os.environ["no_proxy"] = "127.0.0.1"
    downloads.ANSWER = downloads.STALL = PATIENCE
    data._images.cache_clear()
    return data.load_data("mnist").hash


def wrong_files(folder: Path) -> list[str]:
    """Files of the cache under their final names that are not those of the data set."""
    files, hashes = serving.small()
    wanted = {f"{name}.gz": hashes[part] for part, name in image_files.FILES.items()}
    assert len(files) == len(wanted)
    found = []
    for path in (folder / "cache").glob("mnist/[!.]*"):
        try:
            content = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, ValueError):
            content = b""
        if hashlib.sha256(content).hexdigest() != wanted.get(path.name):
            found.append(path.name)
    return found


def prepared(scene: Scene) -> str:
    """The hash of the data set."""
    scene.start(serve, scene.folder, 0, 0.0)
    until(lambda: (scene.folder / "port").exists())
    return scene.call(fetched, scene.folder)


def attempt(scene: Scene) -> None:
    """One process, or two of which one may be killed; then the server is sound, and all is there."""
    faults = {None: FAULTS, compare_no_hashes: ["others"], download_in_place: ["cut"]}[scene.without]
    (scene.folder / "faults").write_text(" ".join(faults))
    scene.start(serve, scene.folder, scene.random.randrange(10**6), scene.random.choice([0.3, 0.6]))
    until(lambda: (scene.folder / "port").exists())
    loaders = [scene.start(fetched, scene.folder) for _ in range(scene.random.choice([1, 2]))]
    if len(loaders) == 2 and scene.random.random() < 0.4:
        time.sleep(scene.random.uniform(0, 0.8))
        loaders.pop().kill()
    for child in loaders:
        result, _ = child.answer()
        if isinstance(result, ValueError | OSError):
            if "mnist" not in str(result) or "\n" in str(result):
                scene.found("wrong", f"not a clear error: {result!r}")
        elif result != scene.ready:
            scene.found("wrong", f"other data: {result!r}")
    for name in wrong_files(scene.folder):
        scene.found("wrong", f"{name} is in the cache, and is not the file")
    (scene.folder / "faults").unlink()
    if scene.call(fetched, scene.folder) != scene.ready:
        scene.found("wrong", "other data from a server that is sound again")


def compare_no_hashes() -> None:
    read = image_files.read_idx
    image_files.read_idx = lambda path, **_: read(path)


def download_in_place() -> None:
    def straight(name: str, part: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            image_files.download(image_files.SOURCES[name] + target.name, target)
        except Exception as error:
            raise OSError(f"mnist: {type(error).__name__}") from error

    image_files._download = straight


RIVALS = {"hashes": compare_no_hashes, "whole files": download_in_place}
KINDS = [Kind("downloads", "a server that stalls, cuts and garbles", attempt, 30, RIVALS, 4, prepare=prepared)]

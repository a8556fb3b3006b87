"""`nin run` that is ended by a signal at a random moment, and kernels that are killed; then the same command again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import neighbours
import psutil
import written
from attempts import PATIENCE, Kind, Scene

from nin import checks
from nin.companion import ending, side_by_side, up_to_date
from nin.companion.up_to_date import Stamp

PARAMETERS = 'profile: str = "quick"  # parameter set'
RAN = """import os, pathlib, time
log = pathlib.Path(os.environ["SOAK_LOG"])
with log.open("a") as file:
    file.write(f"NAME {os.getpid()}\\n")"""
CHECK = """from nin import checks
shown = checks.save([checks.Check("it ran", "soak", 1, 1)], notebook="NAME", profile="quick")"""
NAMES = ["01_first", "02_second", "03_third"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


def clone(scene: Scene) -> tuple[list[str], dict[str, str]]:
    """Three notebooks of random length, each of which logs that it runs; the command, and its environment."""
    for name in NAMES:
        pause = f"time.sleep({scene.random.uniform(0.2, 1.5)})\nprint('{name}')"
        path = scene.folder / "notebooks" / f"{name}.ipynb"
        cells = [cell.replace("NAME", name) for cell in (RAN, CHECK, pause)]
        written.notebook(path, PARAMETERS, *cells, title="# Question")
    first = ""
    if scene.without:
        first = f"import {scene.without.__module__} as broken\nbroken.{scene.without.__name__}()"
    command = [*written.command(scene.folder, first), "--jobs", "2"]
    return command, neighbours.environment() | {"SOAK_LOG": str(scene.folder / "log")}


def begun(command: list[str], environment: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def ran(scene: Scene) -> list[list[str]]:
    log = scene.folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def finished(scene: Scene) -> set[str]:
    """The notebooks that count as done."""
    out = scene.folder / "out"
    there = {name: Stamp(Path(f"{name}.ipynb"), out, out / "figures" / "quick") for name in NAMES}
    return {name for name, stamp in there.items() if stamp.path.exists()}


def wait(process: subprocess.Popen, scene: Scene, notebooks: int) -> None:
    """Until so many notebooks have begun, and a random moment longer."""
    end = time.monotonic() + PATIENCE
    while len(ran(scene)) < notebooks and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def complete(scene: Scene, command: list[str], environment: dict[str, str], done: set[str]) -> None:
    """The same command again: it runs what is not done, nothing else, and all notebooks are whole."""
    before = len(ran(scene))
    process = begun(command, environment)
    said, _ = process.communicate(timeout=PATIENCE)
    if process.returncode:
        scene.found("wrong", f"the next call ends with {process.returncode}: {said[-300:]}")
    again = [name for name, _ in ran(scene)[before:]]
    for name in done & set(again):
        scene.found("doubled", f"{name} was finished and ran again")
    for name in {name for name in again if again.count(name) > 1}:
        scene.found("doubled", f"{name} ran twice at once")
    for name in NAMES:
        path = scene.folder / "out" / f"{name}.ipynb"
        outputs = [o.get("text") for c in nbformat.read(path, 4).cells for o in c.get("outputs", ())]
        if outputs != [f"{name}\n"]:
            scene.found("lost", f"{name} shows {outputs} after the next call")
    saved = checks.table(scene.folder / "out" / "figures" / "quick")
    if sorted(saved["notebook"]) != NAMES:
        scene.found("lost", f"checks of {sorted(saved['notebook'])} alone")


def attempt(scene: Scene) -> None:
    command, environment = clone(scene)
    process = begun(command, environment)
    wait(process, scene, scene.random.randrange(0, 4))
    time.sleep(scene.random.uniform(0, 1.5))
    while scene.without and not finished(scene) and process.poll() is None:
        time.sleep(0.01)
    number = signal.SIGKILL if scene.without is outlive else scene.random.choice(SIGNALS)
    family = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    try:
        said, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        scene.found("wrong", f"it goes on 30 seconds after {number.name}, with {len(family)} processes")
        said = ""
    if "Traceback" in said and process.returncode != -number and ran(scene):
        scene.found("wrong", f"{number.name}: {said[-300:]}")
    scene.end()
    for name in (done := finished(scene)):
        try:
            nbformat.read(scene.folder / "out" / f"{name}.ipynb", 4)
        except Exception as error:
            scene.found("wrong", f"{name} is finished and cannot be read: {error!r}")
    if process.returncode != 0 and not set(scene.harm):
        complete(scene, command, environment, done)


def kernel(scene: Scene) -> None:
    """A kernel is killed: its notebook is reported, the others run, and the next call runs that one alone."""
    command, environment = clone(scene)
    process = begun(command, environment)
    wait(process, scene, scene.random.randrange(1, 4))
    name, number = ran(scene)[-1]
    os.kill(int(number), signal.SIGKILL)
    said, _ = process.communicate(timeout=PATIENCE)
    done = finished(scene)
    if name in done:
        scene.found("wrong", f"{name} counts as finished, but its kernel was killed")
    if process.returncode != 1 or "DeadKernelError" not in said:
        scene.found("wrong", f"a killed kernel is not reported ({process.returncode}): {said[-300:]}")
    for other in set(NAMES) - {name} - done:
        scene.found("lost", f"{other} has not run, since the kernel of {name} was killed")
    complete(scene, command, environment, done)


def outlive() -> None:
    """Processes do not end with their parent."""
    side_by_side.end_with_parent = ending.end_with_parent = lambda parent: None


def run_all_again() -> None:
    """What is finished is not recognised."""
    up_to_date.Stamp.reasons = lambda self, now: {"code": ["soak"]}


def pass_over_errors() -> None:
    """A notebook that fails counts as finished."""
    execute = side_by_side._execute

    def silent(*arguments):
        execute(*arguments)
        return None, 0

    silent.__module__, silent.__qualname__ = "stopped_notebooks", "silent"
    globals()["silent"] = side_by_side._execute = silent


KINDS = [
    Kind(
        "notebooks",
        "nin run is ended by a signal",
        attempt,
        6,
        {"ending with the parent": outlive, "stamps": run_all_again},
        2,
    ),
    Kind("kernels", "the kernel of a notebook is killed", kernel, 3, {"reports": pass_over_errors}, 1),
]

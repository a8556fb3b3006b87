"""`make soak`: every fault many times, at random moments, and a table of what was lost, doubled, wrong or left behind.

python tests/soak [NAME ...] [--seed N] [--scale X] [--try N]
"""

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import neighbours  # noqa: F401
from attempts import Kind, Scene, Score
from leftovers import adopt, end, processor_seconds, strays

MODULES = (
    "killed_sweeps many_writers lost_pools every_call full_disks damaged_files moved_stores torn_figures "
    "stopped_notebooks callers_settings growth strangers_files bad_arguments bad_downloads"
)
PERSISTENT = 4  # times the number of tries after which a broken version that is not noticed never will be
COLUMNS = ["fault", "tried", "lost", "doubled", "wrong", "left behind", "seconds", "without the guard"]


def main() -> int:
    """Run the kinds that are named, or all; 0 if nothing was harmed and every rival was found."""
    kinds = [kind for module in MODULES.split() for kind in importlib.import_module(module).KINDS]
    arguments = parsed([kind.name for kind in kinds])
    chosen = [kind for kind in kinds if not arguments.names or kind.name in arguments.names]
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"  # of those that are killed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    adopt()
    begun, scores = time.monotonic(), []
    folder = Path(tempfile.mkdtemp(prefix="nin-soak-")).resolve()
    try:
        from forked import start_server

        from benchmarks import report

        print(f"{report.machine()}\nseed {arguments.seed}, scale {arguments.scale:g}\n")
        widest = [[k.fault, *[""] * 6, "; ".join(f"{name}: 99 of 99" for name in k.rivals)] for k in chosen]
        print("\n".join(report.table(COLUMNS, widest).splitlines()[:2]), flush=True)
        start_server("attempts", *MODULES.split())
        for kind in chosen:
            scores.append(score(kind, folder, arguments))
            print(report.table(COLUMNS, [*widest, scores[-1].cells]).splitlines()[-1], flush=True)
    except KeyboardInterrupt:
        print("\nsoak: interrupted.", file=sys.stderr)
        return 130
    finally:
        end(strays())
        shutil.rmtree(folder, ignore_errors=True)
    return concluded(scores, time.monotonic() - begun, processor_seconds())


def parsed(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python tests/soak", description="All faults, many times, and what came of them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; none: all")
    parser.add_argument("--seed", type=int, default=0, help="of all random moments and damages")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="times the number of tries; 1: some 20 minutes for all"
    )
    parser.add_argument("--try", type=int, dest="one", metavar="N", help="only this try of each kind")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: choose of {', '.join(names)}")
    if not 0 < arguments.scale <= 1000:
        parser.error(f"--scale {arguments.scale} must be > 0")
    return arguments


def score(kind: Kind, folder: Path, arguments: argparse.Namespace) -> Score:
    """All attempts at one kind, and those with each of its guards removed."""
    found = Score(kind, impossible=kind.possible())
    if found.impossible:
        return found
    begun, many = time.monotonic(), max(1, round(kind.tries * arguments.scale))
    first = next(scenes(kind, "prepare", 1, folder, arguments))
    ready = kind.prepare(first)
    first.end()
    for scene in scenes(kind, "", many, folder, arguments):
        if arguments.one in (None, scene.number):
            attempted(kind, scene, ready, f"{scene.number + 1} of {many}")
            seed = f"--seed {arguments.seed} --scale {arguments.scale:g} --try {scene.number}"
            found.add(scene, f"python tests/soak {kind.name} {seed}")
    for name, remove in kind.rivals.items() if arguments.one is None else ():
        seen = tried = 0
        for scene in scenes(kind, name, PERSISTENT * kind.rival_tries, folder, arguments):
            if tried < max(1, kind.rival_tries * min(arguments.scale, 1)) or not seen:
                scene.without, tried = remove, tried + 1
                attempted(kind, scene, ready, f"without {name}, {tried} of {kind.rival_tries}")
                seen += bool(scene.harm)
        found.rivals[name] = seen, tried
    found.seconds = time.monotonic() - begun
    return found


def scenes(kind: Kind, what: str, many: int, folder: Path, arguments: argparse.Namespace) -> Iterator[Scene]:
    for number in range(many):
        place = Path(tempfile.mkdtemp(dir=folder, prefix=f"{kind.name}-"))
        yield Scene(number, many, random.Random(f"{arguments.seed} {kind.name} {what} {number}"), place)


def attempted(kind: Kind, scene: Scene, ready: object, where: str) -> None:
    """One attempt, with nothing left of it."""
    if sys.stderr.isatty():
        print(f"\r{kind.fault}: {where}\x1b[K", end="\r", file=sys.stderr, flush=True)
    scene.ready = ready
    try:
        kind.attempt(scene)
    except Exception as error:
        scene.found("wrong", f"{type(error).__name__}: {error}")
    finally:
        scene.end()
        shutil.rmtree(scene.folder, ignore_errors=True)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def concluded(scores: list[Score], seconds: float, working: float) -> int:
    """Say in a sentence what was found, and explain it; the exit code."""
    harmed = [score for score in scores if score.harm]
    blind = [f"{score.kind.fault} (without {name})" for score in scores for name in score.blind]
    for line in (line for score in harmed for line in score.explained[:12]):
        print(f"\n{line}")
    for name in blind:
        print(f"\nA check that cannot fail: {name} was not noticed.")
    tried = sum(score.tried for score in scores)
    verdict = "nothing was lost, doubled, wrong or left behind" if not harmed else f"{len(harmed)} kinds did harm"
    rivals = "every broken version was noticed" if not blind else f"{len(blind)} broken versions were not noticed"
    spent = f"{seconds / 60:.0f} minutes, {working / 60:.1f} of a processor"
    print(f"\n{tried} tries of {len(scores)} kinds in {spent}: {verdict}, and {rivals}.")
    return int(bool(harmed or blind))


if __name__ == "__main__":
    sys.exit(main())

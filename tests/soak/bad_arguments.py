"""All cases of bad input: each is refused in one line that names the argument, raised in nin itself."""

import os
import sys
import warnings
from pathlib import Path

from attempts import Kind, Scene

PARTS = 12


def verdicts(folder: Path, cases: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The cases that are not refused as they should be, and what came instead."""
    import test_bad_input

    os.chdir(folder)
    os.environ["NIN_STORE"] = str(folder / "store")
    os.environ.pop("NIN_DATA", None)
    warnings.simplefilter("ignore")
    found = [(case[0], test_bad_input.verdict(*case)) for case in cases]
    return [(expression, said) for expression, said in found if said != "good"]


def attempt(scene: Scene) -> None:
    """A part of the cases, in random order, one after the other in one process."""
    import bad_runs
    import test_bad_input

    cases = [case for topic in test_bad_input.TOPICS.values() for case in topic]
    if scene.without:
        cases = scene.random.sample(bad_runs.CASES[:10], 5)
    else:
        cases = cases[scene.number :: scene.of] if scene.of >= PARTS else cases[scene.number :: PARTS]
        scene.random.shuffle(cases)
    scene.times = len(cases)
    for expression, said in scene.call(verdicts, scene.folder, cases):
        scene.found("wrong", f"{expression}: {said}")


def check_nothing() -> None:
    """No argument is checked by its kind, its range or its choices."""
    for name, module in list(sys.modules.items()):
        if name.startswith("nin."):
            for check in ("check_number", "check_count", "check_choice", "check_kind", "check_seed"):
                if hasattr(module, check):
                    setattr(module, check, lambda *_, **__: None)


KINDS = [Kind("arguments", "bad input", attempt, PARTS, {"checks": check_nothing}, 1)]

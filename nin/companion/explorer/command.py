"""`python -m nin explore name=value ...`: the figures and the table of the explorer, as files."""

import sys
from collections.abc import Sequence
from pathlib import Path

from nin.companion.explorer.setting import SEEDS, STEPS, read
from nin.support import paths


def run(given: Sequence[str], to: Path) -> int:
    """Train a setting given as name=value; write explore.png, explore_diagram.png and explore.csv into a folder."""
    setting = read(given)
    with paths.explained(to / "explore.png"):  # before anything is computed
        to.mkdir(parents=True, exist_ok=True)
    print(
        f"training {SEEDS} networks ({setting.network}) for {STEPS[setting.network]} steps", file=sys.stderr, flush=True
    )
    from nin.companion.explorer import words  # loads torch
    from nin.companion.explorer.trained import explore

    found = explore(setting)
    print("\n".join([words.headline(found), words.seen(found), words.predicted(found)]), flush=True)
    from nin.companion.explorer.figures import files  # loads matplotlib, when the answer is already there

    for name, content in files([found]).items():
        paths.write(to / name, content)
    print(f"explore.png, explore_diagram.png and explore.csv are in {to}")
    return 0

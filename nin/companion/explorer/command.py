"""`python -m nin explore name=value ...`: the figures and the table of the explorer, as files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from nin.companion import pairs
from nin.companion.explorer.setting import Setting, explore
from nin.support import paths


def run(given: Sequence[str], to: Path) -> int:
    """Train a setting given as name=value; write explore.png, explore_diagram.png and explore.csv into a folder."""
    found = explore(read(given))
    print(f"{found.headline}\n{found.sentence}", flush=True)
    from nin.companion.explorer.figures import files  # loads matplotlib, when the answer is already there

    for name, content in files([found]).items():
        paths.write(to / name, content)
    print(f"explore.png, explore_diagram.png and explore.csv are in {to}")
    return 0


def read(given: Sequence[str]) -> Setting:
    """The setting given by texts name=value; ValueError for an unknown or repeated name or a value of a wrong type."""
    fields = {field.name: field.type for field in dataclasses.fields(Setting)}
    values = {}
    for name, text in pairs.read(given, fields).items():
        try:
            values[name] = fields[name](text)
        except ValueError:
            kind = {int: "an integer", float: "a number"}[fields[name]]
            raise ValueError(f"{name}={text!r} must be {kind}.") from None
    return Setting(**values)

"""Lets the soak test import what the tests beside it are written with, and its processes import the soak test."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDERS = [HERE, *(HERE.parent / name for name in ("sweeps", "companion", "model", "training", "bad_input"))]

for folder in [HERE.parents[1], *FOLDERS]:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def environment() -> dict[str, str]:
    """The environment of a command that imports from here as well, on one thread."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}

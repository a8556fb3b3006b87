"""What made a result: the versions of the packages and the commit of the clone."""

import subprocess
from collections.abc import Sequence
from importlib.metadata import version

from nin import paths


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed version of each package."""
    return {package: version(package) for package in packages}


def commit() -> str | None:
    """The git commit of the clone, with a + where the tree differs from it; None where there is none."""
    try:
        git = ["git", "-C", str(paths.root())]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed.stdout.strip() else "")

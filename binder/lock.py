"""Take the newest versions that pyproject.toml admits into requirements.lock; torch stays as it is locked."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
APART = ("networks", "trainers")  # extras that no notebook needs; the first has its own lock
LINE = re.compile(r"([A-Za-z0-9._-]+)==([^;\s]+)(;.*)?")


def main(options: list[str]) -> None:
    """Resolve without installing anything, rewrite the lock, say what changed; options go to pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in extras if name not in APART for line in extras[name])]
    old = LOCK.read_text().splitlines()
    wanted.append(next(line for line in old if line.startswith("torch==")))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--report", "-", *options, *wanted]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = {item["metadata"]["name"]: item["metadata"]["version"].partition("+")[0] for item in report["install"]}
    new = refreshed(old, found)
    for line in sorted(set(old) ^ set(new), key=str.lower):
        print("-" if line in old else "+", line)
    LOCK.write_text("\n".join(new) + "\n")


def refreshed(lines: list[str], found: dict[str, str]) -> list[str]:
    """The lock's lines with the versions found: new names join, names that nothing needs any more leave.

    Lines with a marker are of another Python or system, which this resolution does not see: they stay where not found.
    """
    comments = [line for line in lines if not LINE.fullmatch(line)]
    latest = {_canonical(name): version for name, version in found.items()}
    kept = []
    for name, version, marker in (LINE.fullmatch(line).groups() for line in lines if LINE.fullmatch(line)):
        known = latest.pop(_canonical(name), None)
        if known or marker:
            kept.append(f"{name}=={known or version}{marker or ''}")
    kept += [f"{name}=={version}" for name, version in latest.items()]
    return comments + sorted(kept, key=lambda line: line.partition("=")[0].lower())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1:])

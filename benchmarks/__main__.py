"""Run benchmarks and print their tables: `python -m benchmarks [--save] [NAME ...]`."""

import argparse
import sys
from pathlib import Path

from benchmarks import (
    borders,
    contention,
    critical,
    decay,
    engine,
    explorer,
    gpu,
    groups,
    hessians,
    interactions,
    nodes,
    phases,
    probes,
    recording,
    response,
    stability,
    stacked_networks,
    store,
    sweeps,
    thermometer,
)
from benchmarks.report import machine
from nin.support import paths
from nin.support.threads import fit

ALL = {
    "engine": engine,
    "groups": groups,
    "stacked_networks": stacked_networks,
    "recording": recording,
    "sweeps": sweeps,
    "store": store,
    "nodes": nodes,
    "hessians": hessians,
    "phases": phases,
    "thermometer": thermometer,
    "critical": critical,
    "borders": borders,
    "stability": stability,
    "response": response,
    "interactions": interactions,
    "probes": probes,
    "decay": decay,
    "contention": contention,
    "explorer": explorer,
    "gpu": gpu,
}
LONG = ("borders",)  # takes an hour: measured anew only if named, else printed from its stored tables
RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Benchmarks

Printed by `make bench`; run it on an otherwise idle machine. `python -m benchmarks --save` writes this file,
`python -m benchmarks engine` prints one table.
"""


def main() -> None:
    """Print each benchmark as it finishes; with --save, write RESULTS.md at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ALL)} (default: all)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ALL]
    if unknown:
        parser.error(f"{', '.join(unknown)}: unknown; choose from {', '.join(ALL)}")
    fit()
    parts = [HEAD, f"{machine()}.\n"]
    print(parts[1], flush=True)
    for name in arguments.names or ALL:
        print(f"benchmarking {name} ...", file=sys.stderr, flush=True)
        stored = name in LONG and name not in arguments.names
        found = ALL[name].stored() if stored else ALL[name].run()
        parts.append(f"## {name}: {(ALL[name].__doc__ or '').strip()}\n\n{found}\n")
        print(parts[-1], flush=True)
    if arguments.save:
        paths.write(RESULTS, "\n".join(parts).encode())


if __name__ == "__main__":
    main()

"""The command `runs`: stored runs listed, verified, exported, pruned."""

import argparse
import sys
from pathlib import Path

from nin.companion.tables import print_table
from nin.support import paths
from nin.sweeps.listing import export, listing
from nin.sweeps.pruning import prunable, remove
from nin.sweeps.store import Store


def run(arguments: argparse.Namespace) -> int:
    """List, verify, export or prune the stored runs, as the command `runs` says."""
    if arguments.store is not None and not arguments.store.is_dir():
        raise ValueError(f"--store {arguments.store}: there is no such folder; name the folder of stored runs.")
    store = Store(arguments.store or paths.store())
    if arguments.prune:
        return _prune(store.folder, arguments.yes)
    if arguments.yes:
        raise ValueError("--yes goes with --prune only.")
    found = listing(store, verify=arguments.verify) if arguments.verify or not arguments.export else None
    if arguments.export and not (found and found.problems):
        print(f"{export(store, arguments.export)} runs exported to {arguments.export}")
        return 0
    print_table(f"runs in {store.folder}", ("phase", "key", "differs", "age", "size"), found.rows)
    if found.common:
        print(f"\nall: {found.common}")
    phases = ", ".join(f"{count} {phase}" for phase, count in found.phases.most_common())
    checked = ", every checksum holds" if arguments.verify and not found.problems else ""
    print(f"\n{len(found.rows)} runs{f' ({phases})' if phases else ''}, {found.bytes / 1e6:.1f} MB{checked}.")
    if found.readings:
        print(f"Readings of probes: {', '.join(f'{count} {name}' for name, count in found.readings.most_common())}.")
    if found.records:
        columns = ("phase", "key", "name", "settings", "age", "size")
        print_table("records of loops of one's own (nin.sweeps.records.read)", columns, found.records)
    for problem in found.problems:
        print(f"nin: {problem}", file=sys.stderr)
    if arguments.export:
        print(f"nin: nothing was exported to {arguments.export}.", file=sys.stderr)
    return int(bool(found.problems))


def _prune(folder: Path, yes: bool) -> int:
    store = Store(folder)
    found = list(prunable(store))
    size = sum(entry.bytes for entry in found)
    rows = [(str(entry.path.relative_to(store.folder)), entry.why) for entry in found]
    print_table(f"damaged or outdated in {store.folder}", ("entry", "why"), rows)
    if yes:
        print(f"\n{sum(remove(store, entry) for entry in found)} of {len(found)} entries removed, {size / 1e6:.1f} MB.")
    elif found:
        print(f"\n{len(found)} entries, {size / 1e6:.1f} MB. Nothing was removed; --prune --yes removes them.")
    return 0

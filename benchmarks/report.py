"""The output of benchmarks: a description of the machine, and tables in Markdown."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from nin.support import provenance
from nin.support.cores import cores


def machine() -> str:
    """One line: date, processor, cores, load, packages, commit."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    simd = torch.backends.cpu.get_cpu_capability()
    return (
        f"{date.today()}, {cpu} ({simd}), {cores()} cores{gpu}, load {os.getloadavg()[0]:.1f} at the start, "
        f"Python {platform.python_version()}, torch {torch.__version__}, commit {(provenance.commit() or 'none')[:8]}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [list(map(str, row)) for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])

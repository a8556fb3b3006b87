"""How many runs should train at once, and on how many threads? The numbers in nin/sweeps/groups.py come from here."""

from functools import partial

import numpy as np

from benchmarks.contestants import Shape, ensemble
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds
from nin.model.networks import MLP
from nin.sweeps.groups import group_size

SHAPES = (Shape(32, 32, 64), Shape(64, 64, 64), Shape(128, 128, 64), Shape(256, 128, 64), Shape(512, 128, 784))
COUNTS = (2, 4, 8, 16, 32, 64, 128, 256)
ROUNDS = 5
WORK = 3e9  # floating-point operations per timing


def run() -> str:
    """One table: microseconds per member and step by group size, on one and on two threads."""
    rows = []
    for shape in SHAPES:
        chosen = group_size(shape.config(), MLP(shape.inputs, shape.config().widths, 10))
        counts = [count for count in COUNTS if count * shape.flops < 2e10]
        steps = {count: int(max(3, WORK / shape.flops / count)) for count in counts}
        stacks = {count: ensemble(shape, count)[0] for count in counts}
        for on in (1, 2):
            taken = in_turn(
                {str(count): partial(seconds, partial(stacks[count], steps[count]), on=on) for count in counts}, ROUNDS
            )
            cost = {c: f"{1e6 * np.median(taken[str(c)]) / steps[c] / c:.1f}" for c in counts}
            cells = [f"**{cost[c]}**" if c == near(chosen, counts) else cost.get(c, "") for c in COUNTS]
            rows.append((f"{shape.width}, {shape.batch}, {shape.inputs}", on, chosen, *cells))
    columns = ("width, batch, inputs", "threads", "chosen", *COUNTS)
    return (
        "Microseconds per member and step, by the number of members; bold: the number nearest to the one that\n"
        "nin.sweeps.groups chooses.\n\n" + table(columns, rows)
    )


def near(chosen: int, counts: list[int]) -> int:
    """The measured size nearest to the chosen one, by logarithm."""
    return min(counts, key=lambda count: abs(np.log(count / chosen)))

"""The same ensemble on a GPU, compared with the loop on that GPU and with its bare matrix products."""

from functools import partial

import numpy as np
import torch

from benchmarks.contestants import Shape, ensemble, loop, products
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread

SHAPE, MEMBERS, STEPS = Shape(512, 128, 784), 96, 100


def run() -> str:
    """One table, or one line if there is no GPU."""
    if not torch.cuda.is_available():
        return "There is no GPU on this machine: not measured."
    train, _ = ensemble(SHAPE, MEMBERS, "cuda")
    contestants = {"loop": loop(SHAPE, "cuda"), "products": products(SHAPE, MEMBERS, "cuda"), "ensemble": train}
    taken = in_turn(
        {name: partial(seconds, partial(work, STEPS), device="cuda") for name, work in contestants.items()}, 7
    )
    step = taken["ensemble"] / STEPS / MEMBERS
    rows = [
        (
            MEMBERS,
            f"{1e6 * np.median(taken['loop']) / STEPS:.0f}",
            f"{1e6 * np.median(step):.1f}",
            spread(taken["loop"] / STEPS / step),
            ">= 20",
            spread(taken["products"] / taken["ensemble"]),
            f"{SHAPE.flops / np.median(step) / 1e12:.1f}",
        )
    ]
    columns = ("members", "loop (us)", "ensemble (us)", "loop / ensemble", "goal", "products / ensemble", "TFLOP/s")
    return "3 x 512, batch 128, 784 inputs, float32; microseconds a member and step.\n\n" + table(columns, rows)

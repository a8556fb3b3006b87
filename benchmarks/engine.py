"""How much faster is an ensemble than a loop over runs, and how close to its bare matrix products?"""

from functools import partial

import numpy as np
import torch

from benchmarks.contestants import Shape, ensemble, loop, products
from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.model.networks import MLP
from nin.sweeps.groups import group_size

GOALS = {  # required speed relative to the loop; steps per timing of the loop and of the ensemble, about 0.4 s
    Shape(32, 32, 64): (12, 1500, 150),
    Shape(64, 64, 64): (6, 1000, 120),
    Shape(128, 128, 64): (2.2, 600, 100),
    Shape(512, 128, 784): (1.2, 120, 40),
}
ROUNDS = 9


def run() -> str:
    """One table: microseconds per member and step; ratios within each round, median (smallest-largest)."""
    rows = []
    for shape, (goal, steps, stacked) in GOALS.items():
        network = MLP(shape.inputs, shape.config().widths, 10)
        count = group_size(shape.config(), network)
        train, on = ensemble(shape, count)
        bare, single = products(shape, count), loop(shape)
        taken = in_turn(
            {
                "loop 1": partial(seconds, partial(single, steps), on=1),
                "loop 2": partial(seconds, partial(single, steps), on=2),
                "products": partial(seconds, partial(bare, stacked), on=on),
                "ensemble": partial(seconds, partial(train, stacked), on=on),
            },
            ROUNDS,
        )
        loop_step = np.minimum(taken["loop 1"], taken["loop 2"]) / steps
        step, product = (taken[name] / (stacked * count) for name in ("ensemble", "products"))
        rows.append(
            (
                f"{shape.width}, {shape.batch}, {shape.inputs}",
                f"{count}, {on or torch.get_num_threads()}",
                f"{1e6 * np.median(loop_step):.0f}",
                f"{1e6 * np.median(step):.1f}",
                f"{1e6 * np.median(product):.1f}",
                spread(loop_step / step),
                f">= {goal:g}",
                spread(step / product),
                f"{shape.flops / np.median(step) / 1e9:.0f}",
            )
        )
    columns = (
        "width, batch, inputs", "members, threads", "loop (us)", "ensemble (us)", "products (us)",
        "loop / ensemble", "goal", "ensemble / products", "GFLOP/s",
    )  # fmt: skip
    return (
        "Three hidden layers, ten classes, float32, a sweep over sigma; microseconds per member and step. The loop is\n"
        "the better of one and two threads. Ratios: median of nine rounds (smallest-largest).\n\n"
        + table(columns, rows)
    )

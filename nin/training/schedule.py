"""The log-spaced steps at which a run is probed; those at which it is recorded are in `recorder`."""

import numpy as np

from nin.support.arguments import check_count


def log_spaced(steps: int, points: int) -> list[int]:
    """Steps 0, 1, ..., `steps`, about `points` of them, evenly spaced in the logarithm of step + 1."""
    check_count("steps", steps, minimum=0)
    check_count("points", points, minimum=2)
    return sorted({round(value) - 1 for value in np.geomspace(1, steps + 1, points)})

"""How far apart the curves of two runs are."""

import numpy as np

from nin.training.trajectories import CURVES


def largest_difference(a, run_a, b, run_b):
    """Largest relative difference of all curves of two runs; rows where neither measured do not count."""
    worst = 0.0
    for name in CURVES:
        x, y = a.curves[name][:, run_a], b.curves[name][:, run_b]
        assert np.array_equal(np.isnan(x), np.isnan(y)), name
        good = np.isfinite(y)
        worst = max(worst, float(np.max(np.abs(x - y)[good] / (np.abs(y[good]) + 1e-12), initial=0)))
    return worst

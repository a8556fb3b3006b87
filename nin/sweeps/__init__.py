"""Grids of runs: grouped, stored, resumed, distributed, probed."""

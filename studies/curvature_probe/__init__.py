"""Notebook 04: the curvature that a node reads."""

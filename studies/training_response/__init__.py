"""Notebook 08: how the training response ages."""

"""Notebook 06: stability to deformations and noise."""

"""Notebook 10: four probes on one training run."""

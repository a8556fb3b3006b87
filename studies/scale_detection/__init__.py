"""Notebook 07: pooling in a task of scale detection."""

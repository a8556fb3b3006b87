"""Notebook 09: what each layer adds and forgets."""

"""Argument checks, folders and atomic writes, provenance, progress bars, threads."""

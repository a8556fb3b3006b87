"""Probes: they look at any network, leave it as it was, and return what they saw."""

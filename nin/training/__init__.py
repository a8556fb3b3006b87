"""A run as a value, and ensembles of runs trained with an ordinary optimiser."""

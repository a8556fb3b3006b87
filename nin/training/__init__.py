"""A run as a value; ensembles of runs under an ordinary optimiser."""

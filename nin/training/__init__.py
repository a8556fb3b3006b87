"""A run as a value (its config, with all defaults), and ensembles of runs trained with an ordinary optimiser."""

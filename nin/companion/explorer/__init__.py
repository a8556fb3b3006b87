"""The explorer: one setting, three small networks, their phase."""

"""The objects that are perturbed: networks, losses, data, and the node that injects noise."""

"""What is perturbed: networks, losses, data, and the node that feeds noise in."""

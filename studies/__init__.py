"""What the notebooks measure and draw, one folder a notebook."""

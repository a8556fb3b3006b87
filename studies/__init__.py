"""What the notebooks measure and draw, one folder per notebook."""

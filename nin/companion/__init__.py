"""`python -m nin`: notebooks with checked parameters, figures for papers, the explorer."""

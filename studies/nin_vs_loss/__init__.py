"""Notebook 03: does the node follow the loss?"""

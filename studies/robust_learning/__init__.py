"""Notebook 05: does a node make a network robust?"""

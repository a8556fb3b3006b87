"""Notebook 02: which phase does a noise scale put a training run into?"""

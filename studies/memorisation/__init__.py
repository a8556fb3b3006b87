"""Notebook 11: does a node of fixed noise tell when a network begins to memorise?"""

"""Notebook 01: does the linear net do what the theory says?"""

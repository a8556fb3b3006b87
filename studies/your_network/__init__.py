"""Notebook 12: is the phase of a network of one's own known before it trains?"""

"""Saved figures for papers: captions, sizes of venues, a contact sheet."""

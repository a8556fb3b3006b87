"""Saved figures for papers: captions, export at the widths of venues, a contact sheet."""

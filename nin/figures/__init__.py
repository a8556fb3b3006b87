"""Figures: their style, saved with table and provenance, found by name, redrawn; and those of one's own logs."""

from nin.figures.own_logs import decay_times, phases, readings, trajectories
from nin.figures.saving import FORMATS, redraw, save
from nin.figures.sidecars import Saved, find, profiles, saved
from nin.figures.style import PALETTE, PHASE_COLORS, panels, style
from nin.support.provenance import begin

__all__ = [
    "FORMATS",
    "PALETTE",
    "PHASE_COLORS",
    "Saved",
    "begin",
    "decay_times",
    "find",
    "panels",
    "phases",
    "profiles",
    "readings",
    "redraw",
    "save",
    "saved",
    "style",
    "trajectories",
]

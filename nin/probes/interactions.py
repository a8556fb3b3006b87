"""Interactions that a network encodes, AND and OR (arXiv 2409.08712): the names by which this probe is known."""

from nin.probes.games import inverse_moebius, moebius, or_interactions, or_values, shapley
from nin.probes.layer_games import LayerInteractions, layer_games, layer_interactions
from nin.probes.layer_probes import LayerProbe, probe_layers
from nin.probes.layerwise import Noise, layerwise, reinitialised
from nin.probes.ledger import Ledger, residual_ledger
from nin.probes.masking import log_odds, margin, masked_inputs, masked_outputs
from nin.probes.patches import foreground_patches
from nin.probes.split import Split, split

__all__ = [
    "LayerInteractions",
    "LayerProbe",
    "Ledger",
    "Noise",
    "Split",
    "foreground_patches",
    "inverse_moebius",
    "layer_games",
    "layer_interactions",
    "layerwise",
    "log_odds",
    "margin",
    "masked_inputs",
    "masked_outputs",
    "moebius",
    "or_interactions",
    "or_values",
    "probe_layers",
    "reinitialised",
    "residual_ledger",
    "shapley",
    "split",
]

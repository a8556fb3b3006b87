"""AND and OR interactions that a network encodes (arXiv 2409.08712): the public names of this probe."""

from nin.probes.interactions.by_layer import Noise, layerwise, reinitialised
from nin.probes.interactions.games import inverse_moebius, moebius, or_interactions, or_values, shapley
from nin.probes.interactions.games_of_layers import LayerInteractions, layer_games, layer_interactions
from nin.probes.interactions.ledger import Ledger, residual_ledger
from nin.probes.interactions.masking import log_odds, margin, masked_inputs, masked_outputs
from nin.probes.interactions.patches import foreground_patches
from nin.probes.interactions.readouts import Readout, fit_readouts, head_readout
from nin.probes.interactions.sparsest import Split, split

__all__ = [
    "LayerInteractions",
    "Ledger",
    "Noise",
    "Readout",
    "Split",
    "fit_readouts",
    "foreground_patches",
    "head_readout",
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
    "reinitialised",
    "residual_ledger",
    "shapley",
    "split",
]

"""What README.md says was found, sentence by sentence, and the checks it rests on: data for claims.md.

A sentence is quoted as it stands there. A check is named as in claims.py. A test compares the sentences with README.md
and the checks with figures/paper: what is said there cannot outlive what was measured.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Statement:
    """A sentence of the front page.

    holds   checks that must hold if it is true
    fails   checks that must not: the sentence says that something was not found
    """

    text: str
    holds: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()


KINDS = ("MLP", "LeNet-like", "residual")
AGING = tuple(
    f"08: aging, {loss}, {units}: {end} slope"
    for loss in ("CE", "sigmoid + MSE")
    for units in ("other units", "sigmoid units")
    for end in ("steepest", "flattest")
)

PARAGRAPHS = (
    Statement(
        "The borders of catapult and divergence (black) are computed from the networks before training, without a fit; "
        "those of the linear theory, kappa_H = 2 and 4 (red), lie elsewhere.",
        ("02: phase diagram as predicted", "02: factor in kappa_1 of 80 % of onsets"),
    ),
    Statement(
        "At fixed curvature decay times fall as 1/sigma^2, as theory has it (01, 02).",
        (
            "01: slope of ln tau against ln sigma",
            "02: slope of one mode, softplus",
            "02: tau of one mode over its prediction, softplus",
        ),
    ),
    Statement(
        "For losses that saturate, the response decays as a power law in time, and most of that decay comes from the "
        "loss rather than the kernel (08).",
        (*AGING, "08: aging: smallest R^2", "08: bare kernel: smallest slope", "08: bare kernel: largest slope"),
    ),
    Statement(
        "A trained network of nine convolutions loses sensitivity to small deformations layer by layer; of seven "
        "smaller kinds of networks fewer than half do.",
        ("06: D falls up to the last hidden layer, nine convolutions (upper end)",),
        ("06: D falls with depth up to the last hidden layer, trained: networks",),
    ),
    Statement(
        "Sensitivity to noise, which grows with depth in the paper's networks, does not do so in all of the seven "
        "(06).",
        fails=("06: G rises with depth up to the last hidden layer, trained: networks",),
    ),
    Statement(
        "Deeper layers have more of the interactions of the output (completeness), beyond chance, random features and "
        "another seed.",
        tuple(
            f"09: {kind}: completeness {what}"
            for kind in KINDS
            for what in (
                "of the last hidden layer / permuted",
                "of the last hidden layer / untrained",
                "rises with depth (last over first)",
            )
        ),
    ),
    Statement(
        "But the rise is not surely larger than what a readout of the last hidden layer, which has all of them, fails "
        "to find (red) (09).",
        fails=tuple(f"09: {kind}: completeness rises with depth, effect over the floor" for kind in KINDS),
    ),
    Statement(
        "In a catapult, the curvature at the node and the training response fall far below what they are without a "
        "node (10).",
        (
            "10: catapult: end curvature at the node over no node, upper end",
            "10: catapult: self-kernel at the dip over no node, upper end",
        ),
    ),
)

ANSWERS = {
    "01": Statement(
        "SGD, the closed map and the wide limit agree; phases begin at 2 and 4",
        (
            "01: SGD equals the closed map, relative",
            "01: n(t+1)/n(t) = 1 - kappa at N = 1e5",
            "01: kappa_0 = 1.95: largest |n| / |n_0|",
            "01: kappa_0 = 2.05: largest |n| / |n_0|",
            "01: kappa_0 = 3.95: fraction that converges",
            "01: kappa_0 = 4.05: fraction that converges",
        ),
    ),
    "02": Statement(
        "all four occur in a ReLU classifier, and a step that is tried before training tells which",
        ("02: all four phases", "02: phase diagram as predicted", "02: spikes at kappa_1 >= 3"),
    ),
    "03": Statement(
        "the rate of the weights follows the curvature along them, not the loss; their correlation with the loss is no "
        "closer than with -sqrt t",
        ("03: rate on curvature: offsets between interventions", "03: rate on loss: more scatter than on curvature"),
        ("03: re-drawn noise: the loss beats -sqrt t at all noise scales",),
    ),
    "04": Statement(
        "the top of the spectrum, with error bars that cover where it moves slowly (tanh), and not where it jumps "
        "(softplus)",
        (
            "04: tanh: top eigenvalue by thermometer, median error",
            "04: tanh: within one error bar",
            "04: tanh: within two error bars",
        ),
        ("04: softplus: within two error bars",),
    ),
    "05": Statement(
        "to unstructured noise; a fully connected one no more than Gaussian noise on the inputs or tuned L2 does, and "
        "neither against attacks",
        (
            "05: fully_connected: unstructured noise, node over none, lower end",
            "05: convolutional: unstructured noise, node over none, lower end",
        ),
        (
            "05: fully_connected: unstructured noise, node over gaussian, lower end",
            "05: fully_connected: unstructured noise, node over l2, lower end",
            "05: fully_connected: attacks, node over gaussian, lower end",
            "05: convolutional: attacks, node over gaussian, lower end",
        ),
    ),
    "06": Statement(
        "nine convolutions lose sensitivity to deformations layer by layer, and shuffled channels bring it back; in "
        "smaller networks not every claim holds",
        (
            "06: D falls up to the last hidden layer, nine convolutions (upper end)",
            "06: shuffled channels raise D of the output, nine convolutions (lower end)",
        ),
        (
            "06: D falls with depth up to the last hidden layer, trained: networks",
            "06: channel pooling, shuffling raises D of the output: networks",
            "06: spatial pooling, filters become homogeneous: networks",
        ),
    ),
    "07": Statement(
        "with an L2 penalty filters become homogeneous up to the scale; D, G, R follow closed forms",
        (
            "07: task 2: share of mode 0 up to the scale",
            "07: task 2: share of mode 0 beyond",
            "07: stride 1: D off its closed form",
            "07: stride F, ReLU: G off its closed form",
            "07: slope of R, 10 to 40 layers, simulated, noise rectified at the first",
        ),
    ),
    "08": Statement(
        "as a power law for losses that saturate, mostly because of the loss; label noise shrinks the features of a "
        "network that generalises",
        (
            *AGING,
            "08: bare kernel: largest slope",
            "08: tanh: effective rank surely falls, GD to label noise",
            "08: tanh: error on all strings surely falls, GD to label noise",
            "08: relu: effective rank surely falls, GD to label noise",
            "08: relu: error on all strings surely falls, GD to label noise",
        ),
    ),
    "09": Statement(
        "deeper layers have more of the output's interactions than controls have, not surely more than a readout "
        "misses; redundancy never rises first",
        tuple(f"09: {kind}: completeness rises with depth (last over first)" for kind in KINDS),
        tuple(
            f"09: {kind}: {what}"
            for kind in KINDS
            for what in (
                "completeness rises with depth, effect over the floor",
                "redundancy rises at first (middle over first)",
            )
        ),
    ),
    "10": Statement(
        "curvature and training response collapse in a catapult; most runs are in the phase predicted before training",
        (
            "10: catapult: end curvature at the node over no node, upper end",
            "10: catapult: self-kernel at the dip over no node, upper end",
            "10: phases of the runs, share as predicted before training",
        ),
    ),
    "11": Statement(
        "it turns upward on wrong labels, re-drawn noise never; as a stopping rule about as good as a held-out tenth, "
        "without one; on clean Fashion-MNIST it turns too",
        (
            "11: wrong labels: runs that turn",
            "11: points of the turn above a held-out tenth",
            "11: points of the turn above a borrowed step, lower end",
        ),
        ("11: clean labels: runs that turn",),
    ),
    "12": Statement(
        "under SGD in three runs of four, more often than by another network's prediction; under AdamW no noise scale "
        "makes a catapult",
        (
            "12: SGD: runs whose phase is as predicted",
            "12: AdamW: largest kappa_1 over sigma",
            "12: AdamW: runs that spike",
        ),
    ),
}  # by the number of the notebook: its answer in the table

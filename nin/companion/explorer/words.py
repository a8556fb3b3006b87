"""What a picture of the explorer shows, in words: its phase, what happened in it, and what was predicted."""

import math

import numpy as np

from nin.companion.explorer.trained import Found
from nin.phases import DECAYED
from nin.probes.prediction import CATAPULT

MEANING = {
    "decoupled": "The noise is too weak, or unlearnt too soon, or training too short, to move the node.",
    "decay": "The curvature that the node's noise meets pulls the node down, and its noise with it.",
    "catapult": "The noise is strong enough to throw the network out of where it began, and training catches it.",
    "growing": "The node grows without a spike of the loss: none of the four phases of the paper.",
    "divergent": "The noise is too strong for this learning rate, and the network is lost.",
}


def headline(found: Found) -> str:
    """The phase, how many seeds have it, and how certain it is."""
    count, seeds = found.phases.count(found.phase), len(found.phases)
    sure = "unknown" if math.isnan(found.certainty) else f"{found.certainty:.2f}"
    return f"{found.phase} ({count} of {seeds} seeds, certainty {sure})"


def seen(found: Found) -> str:
    """What happens in the picture, from its numbers, and what plain SGD does if it is not stable."""
    if 2 * found.phases.count(found.phase) <= len(found.phases):
        told = f"The seeds disagree: {', '.join(found.phases)}."
    else:
        told = f"{_course(found)} {MEANING[found.phase]}"
    plains = [one.plain for one in found.judged]
    unstable = [plain for plain in plains if plain in ("spikes", "diverges")]
    if 2 * len(unstable) <= len(plains):
        return told
    plain = "diverges" if 2 * unstable.count("diverges") > len(unstable) else "spikes"
    return f"{told} Plain SGD {plain} at this learning rate by itself, without a node."


def predicted(found: Found) -> str:
    """The phase predicted before training, and, if it is another one, how far away the border between them is."""
    share = found.borders.probability(found.setting.sigma, found.setting.lr)[found.expected]
    told = f"Predicted before training: {found.expected} (probability {share:.2f}; κ₁ = {found.kappa:.3g})."
    if found.borders.stops(found.setting.sigma, found.setting.lr):
        told += (
            f" So strong a noise is unlearnt within some twenty steps, and the node then stays at about "
            f"{np.exp(-found.borders.stop):.2f} of its size, whatever the learning rate; below {DECAYED:g} it has "
            "decayed."
        )
        if {found.phase, found.expected} == {"decoupled", "decay"}:
            return f"{told} Measured is {found.phase}: too near to be told before."
    if found.phase == found.expected:
        return told
    border = found.borders.nearest(found.phase, found.setting.sigma, found.setting.lr)
    if border is None:
        return f"{told} That is not what was measured, and no learning rate has that phase at this noise scale."
    factor = max(border / found.setting.lr, found.setting.lr / border)
    usual = found.borders.scatter["catapult"]
    return (
        f"{told} That is not what was measured: {found.phase} is shaded from a learning rate of {border:.2g}, a factor "
        f"{factor:.2f} away, while runs differ from the borders by factors of some {usual:.2f}."
    )


def shading(network: str) -> str:
    """What the shading of the diagram is."""
    if network == "linear net":
        return (
            "Shading: exact for the wide linear net, with κ₁ = 2 and 4 for these three networks. Size of the node: "
            "that of its noise output, because the weights of a wide net hardly move. "
        )
    return (
        "Shading: predicted from these three networks before training. The catapult begins where one step raises the "
        f"expected noisy loss (κ₁ = {2 * CATAPULT.at:g}), divergence where it raises it 2.5 times. "
    )


def _course(found: Found) -> str:
    """Start, peak and end of the median run that has the phase."""
    seeds = [seed for seed, phase in enumerate(found.phases) if phase == found.phase]
    runs = [run for seed, run in found.frame.groupby("seed") if seed in seeds]
    if not runs:
        return ""
    first, last = (np.median([run["noisy_loss"].iloc[at] for run in runs]) for at in (0, -1))
    kept, peak = (float(np.median([value(run["niw"]) for run in runs])) for value in (_last, _most))
    end = int(max(run["step"].iloc[-1] for run in runs))
    highest = [int(run["noisy_loss"].to_numpy().argmax()) for run in runs]
    top = float(np.median([run["noisy_loss"].iloc[at] for run, at in zip(runs, highest, strict=True)]))
    when = int(np.median([run["step"].iloc[at] for run, at in zip(runs, highest, strict=True)]))
    if found.phase == "divergent" and not all(one.finite for one in found.judged):
        return f"The loss starts at {first:.3g} and is no longer finite after step {end}."
    name = "the node's output" if found.setting.network == "linear net" else "the node"
    node = f"{name} ends at {kept:.2g} of its size at the start"
    if found.phase == "catapult":
        came = "falls back to" if last < first else "stays high, at"
        return (
            f"The noisy loss jumps from {first:.3g} to {top:.3g} at step {when} and {came} {last:.3g} by step {end}; "
            f"{name} grows {peak:.2g}-fold and ends at {kept:.2g} of its size at the start."
        )
    return f"The noisy loss goes from {first:.3g} to {last:.3g} in {end} steps; {node}."


def _last(values) -> float:
    return float(values.iloc[-1])


def _most(values) -> float:
    return float(values.max())

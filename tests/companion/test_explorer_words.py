"""Catches a sentence that says something else than the picture, and text that is too pale to read."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from nin.companion.explorer.borders import Borders
from nin.companion.explorer.figures import FRAME
from nin.companion.explorer.looks import LOOK, TEXT_COLORS, figures, verdict
from nin.companion.explorer.setting import Setting
from nin.companion.explorer.trained import Found
from nin.companion.explorer.words import MEANING, headline, predicted, seen
from nin.figures import PHASE_COLORS
from nin.phases import OUTCOMES, PHASES, Criteria

ONSET = np.array([0.25, 0.25])
BORDERS = Borders(
    sigma=np.array([0.1, 100.0]),
    rates={"decay": ONSET / 100, "catapult": ONSET, "divergent": 3 * ONSET},
    scatter=dict.fromkeys(PHASES[1:], 1.35),
)
NUMBERS = {  # criteria of each phase
    "decoupled": {"spike": 1.0, "kept": 1.0, "peak": 1.0},
    "decay": {"spike": 1.0, "kept": 0.4, "peak": 1.0},
    "growing": {"spike": 1.0, "kept": 2.0, "peak": 2.0},
    "catapult": {"spike": 4.0, "kept": 0.4, "peak": 3.0},
    "divergent": {"spike": np.inf, "kept": np.nan, "peak": np.nan, "finite": False},
}


def judged(phase: str, plain: float = 1.0) -> Criteria:
    return Criteria(**{"finite": True, "spike_stderr": 0.01, "kept_stderr": 0.01} | NUMBERS[phase], plain_spike=plain)


def found(*phases: str, plains: tuple[float, ...] = (1.0,) * 3, lr: float = 0.3) -> Found:
    """Runs whose loss goes 2, 8, 1 and whose node 1, 3, 0.4."""
    rows = {"step": [0, 4, 100], "noisy_loss": [2.0, 8.0, 1.0], "niw": [1.0, 3.0, 0.4]}
    frame = pd.concat([pd.DataFrame({"seed": seed} | rows) for seed in range(len(phases))], ignore_index=True)
    return Found(Setting(sigma=20.0, lr=lr), frame, tuple(map(judged, phases, plains)), BORDERS)


def test_headline_counts_and_is_certain():
    assert headline(found("decay", "decay", "catapult")) == "decay (2 of 3 seeds, certainty 1.00)"
    unsure = Criteria(spike=1.0, kept=0.4, peak=1.0, finite=True)  # without standard errors
    told = headline(Found(Setting(), pd.DataFrame(), (unsure,), BORDERS))
    assert told == "decay (1 of 1 seeds, certainty unknown)"


def test_sentences_tell_the_numbers_of_the_picture():
    assert seen(found(*["catapult"] * 3)).startswith(
        "The noisy loss jumps from 2 to 8 at step 4 and falls back to 1 by step 100; the node grows 3-fold and ends at "
        "0.4 of its size at the start."
    )
    assert seen(found(*["decay"] * 3)).startswith(
        "The noisy loss goes from 2 to 1 in 100 steps; the node ends at 0.4 of its size at the start."
    )
    linear = replace(found(*["decay"] * 3), setting=Setting(network="linear net"))
    assert "the node's output ends at 0.4" in seen(linear)  # its weights hardly move
    assert "no longer finite after step 100" in seen(found(*["divergent"] * 3))
    for phase in OUTCOMES:
        assert MEANING[phase] in seen(found(*[phase] * 3))
    assert seen(found("decay", "catapult", "divergent")) == "The seeds disagree: decay, catapult, divergent."


@pytest.mark.parametrize(
    ("plains", "word"), [((1.0,) * 3, None), ((1.2, 1.0, 1.0), None), ((1.2, 1.0, np.inf), "spikes"),
                         ((np.inf, 1.0, np.inf), "diverges")],
)  # fmt: skip
def test_plain_sgd_is_named_if_it_is_not_stable(plains, word):
    told = seen(found(*["decay"] * 3, plains=plains))
    assert ("Plain SGD" in told) == (word is not None)
    if word:
        assert told.endswith(f"Plain SGD {word} at this learning rate by itself, without a node.")


def test_a_wrong_prediction_says_by_how_much():
    right, wrong = predicted(found(*["catapult"] * 3)), predicted(found(*["decay"] * 3))
    assert right == "Predicted before training: catapult (probability 0.73; κ₁ = 2.4)."
    assert wrong.startswith(right) and "decay is shaded from a learning rate of 0.25, a factor 1.20 away" in wrong
    assert "factors of some 1.35" in wrong
    assert "no learning rate has that phase" in predicted(found(*["growing"] * 3))


def test_a_size_that_says_little_is_told():
    """Where strong noise is unlearnt early, decay or not is a matter of the last per cent."""
    calm = found(*["decoupled"] * 3)
    borders = Borders(
        sigma=np.array([0.1, 100.0]),
        rates={"decay": np.full(2, 1e-3), "catapult": np.full(2, 8.0), "divergent": np.full(2, 16.0)},
        scatter=dict.fromkeys(PHASES[1:], 1.35), plain=80.0, stop=0.11,
    )  # fmt: skip
    told = predicted(replace(calm, borders=borders))
    assert "Predicted before training: decay (probability 0.5" in told and "about 0.90 of its size" in told
    assert told.endswith("Measured is decoupled: too near to be told before.")


def test_text_can_be_read():
    """Contrast on white of at least 4.5 (WCAG 2.1, level AA), and still the colour of the phase."""
    assert set(TEXT_COLORS) == set(OUTCOMES) and set(LOOK) == set(PHASES)
    for phase, color in TEXT_COLORS.items():
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        light = np.dot((0.2126, 0.7152, 0.0722), linear)
        assert 1.05 / (light + 0.05) >= 4.5, phase
        drawn = np.array(to_rgb(PHASE_COLORS[phase]))
        assert np.ptp(drawn) < 0.01 or np.corrcoef(to_rgb(color), drawn)[0, 1] > 0.9


def test_words_cannot_be_markup():
    assert "&lt;" not in verdict(found("decay")) and 'role="status"' in verdict(found("decay"))


def test_the_note_counts_points_and_those_not_shown():
    content = dict.fromkeys(("explore.png", "explore_diagram.png"), b"")
    here, other = found(*["catapult"] * 3), found(*["decay"] * 3)
    away = Found(Setting(width=16), here.frame, here.judged, BORDERS)
    page = figures(content, [away, other, here])
    assert "1 of 2 lie in the region of their phase" in page
    assert "1 tried with other networks, batches, laws or layers are not shown" in page
    assert "not shown" not in figures(content, [other, here])


def test_the_ring_goes_where_the_node_is():
    """Its path follows sigma times the size of the node, at the moment when that step is uncovered."""
    page = figures(dict.fromkeys(("explore.png", "explore_diagram.png"), b""), [found(*["catapult"] * 3)])
    frames = page.split("@keyframes nin-move")[1].split("</style>")[0]
    lefts = [float(part.split("%")[0]) for part in frames.split("left: ")[1:]]
    assert len(lefts) == 4 and lefts[1] > lefts[0] > lefts[2] == lefts[3]
    span = np.log(300 / 0.05)
    assert (lefts[1] - lefts[0]) / (100 * (FRAME[2] - FRAME[0])) == pytest.approx(np.log(3) / span, abs=1e-3)

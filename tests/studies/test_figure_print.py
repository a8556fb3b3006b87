"""Catches figures that cannot be read in print: an axis without a scale, ticks or text on each other or cut off, fonts
below 6 points, legends on the data. Walks all figures, saved and made, at their printed size."""

import pytest
from drawn import EVERY, marked
from print_faults import FAULTS, rendered

# Faults of a figure's own function, and why; one that has been mended fails here, so drop its entry.
KNOWN = {("08a_constant_kernel", "legends"): "curves leave no room for the legend within the panel"}


@pytest.mark.parametrize("name", marked(EVERY))
def test_a_printed_figure_can_be_read(name):
    found = {kind: faults for kind, fault in FAULTS.items() if (faults := fault(rendered(name)))}
    known = {kind for figure, kind in KNOWN if figure == name}
    unknown = [text for kind, faults in found.items() if kind not in known for text in faults]
    assert not unknown, f"{name}: " + "; ".join(unknown)
    assert known <= set(found), f"{name} has been mended: drop it from KNOWN"


def test_known_faults_are_of_figures_that_exist():
    assert {name for name, _ in KNOWN} <= set(EVERY) and {kind for _, kind in KNOWN} <= set(FAULTS)

"""Which of the four phases a run is in, its decay times, and the phase map of many runs (arXiv 2210.13599)."""

from nin.phases.decay import DecayFit, fit_decay
from nin.phases.many_runs import (
    KAPPA_BOUNDS,
    boundaries,
    majority,
    of_kappa,
    representatives,
    summarise,
    vote,
)
from nin.phases.one_run import (
    DECAYED,
    DIVERGED_AT_ONCE,
    GREW,
    GROWING,
    OUTCOMES,
    PHASES,
    SPIKE,
    SPIKE_WINDOW,
    VERSION,
    Criteria,
    classify,
    criteria,
)

__all__ = [
    "DECAYED",
    "DIVERGED_AT_ONCE",
    "GREW",
    "GROWING",
    "KAPPA_BOUNDS",
    "OUTCOMES",
    "PHASES",
    "SPIKE",
    "SPIKE_WINDOW",
    "VERSION",
    "Criteria",
    "DecayFit",
    "boundaries",
    "classify",
    "criteria",
    "fit_decay",
    "majority",
    "of_kappa",
    "representatives",
    "summarise",
    "vote",
]

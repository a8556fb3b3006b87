"""Texts name=value from the command line."""

from collections.abc import Iterable, Sequence

from nin.support.arguments import check_choice


def read(pairs: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """The texts by name; ValueError for another form, an unknown name, or one that is given twice."""
    names, given = tuple(names), {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise ValueError(f"{pair!r} must have the form name=value; the names are {', '.join(names)}.")
        check_choice("name", name, names)
        if name in given:
            raise ValueError(f"{name} is given twice; give it once.")
        given[name] = text
    return given

"""A profile file as notebooks read it: plain YAML, in which every value is what it looks like."""

import re
from pathlib import Path
from typing import Any

from nin.companion.ranges import NUMBER

PLAIN = re.compile(
    rf"(?![-+]?0\d){NUMBER}|true|false|null|~|", re.IGNORECASE
)  # yes, 0400, 1:40, 1_000, 2026-01-01: not


def read(path: Path) -> Any:
    """The content of a YAML file.

    Raises ValueError, naming the file and the line, for what is not YAML, for tags (!!python/...), anchors, a key that
    is there twice, and for words that YAML takes for other values than they look: 0400 is 256, 1:40 is 100.
    """
    import yaml  # of the extra `companion`

    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text):
            if getattr(event, "tag", None) or getattr(event, "anchor", None):
                raise ValueError(f"{_place(path, event)}: a profile has no tag or anchor; write the value as it is.")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _check(path, root)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8: {error}.") from None


def _check(path: Path, node: Any, name: str = "") -> None:
    """ValueError for a key that is there twice, or a scalar that does not look like its value."""
    if node is None:
        return
    if isinstance(node.value, str):
        text = node.tag.endswith(":str")
        if not text and not PLAIN.fullmatch(node.value):
            raise ValueError(
                f"{_place(path, node)}: {name}: {node.value} is not what it looks like in YAML; write a number in "
                "decimal digits, true or false, or a text in quotes."
            )
        return
    seen: set[str] = set()
    for entry in node.value:
        if isinstance(entry, tuple):
            key, entry = entry
            if key.value in seen:
                raise ValueError(f"{_place(path, key)}: {key.value} is there twice; remove one.")
            seen.add(key.value)
            _check(path, key, "name")
            _check(path, entry, key.value)
        else:
            _check(path, entry, name)


def _place(path: Path, thing: Any) -> str:
    return f"{path.name}, line {thing.start_mark.line + 1}"

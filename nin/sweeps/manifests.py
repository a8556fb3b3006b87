"""The manifest of a stored run: JSON that holds the checksums of its table and of itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1  # increase it if the same config gives a different trajectory, or its table different columns


class DamagedRun(ValueError):
    """A stored run whose files differ from what was written."""


class NewerSchema(ValueError):
    """A stored run that a newer version of nin wrote."""


def key(identity: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON (sorted keys, no spaces) of what determines a run and of the schema version.

    Raises ValueError for an identity that is not JSON.
    """
    try:
        text = _canonical({"schema": SCHEMA, **identity}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"identity={identity!r} must hold JSON values only: {error}.") from None
    return hashlib.sha256(text).hexdigest()


def serialised(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as indented JSON, with the sha256 of everything else as its last entry."""
    checksum = hashlib.sha256(_canonical(manifest)).hexdigest()
    return (json.dumps({**manifest, "sha256": checksum}, indent=2) + "\n").encode()


def parsed(content: bytes, key: str, path: Path) -> dict[str, Any]:
    """The manifest that a file holds, that of the run `key`.

    Raises DamagedRun if it differs from what was written, NewerSchema if a newer nin wrote it; both name the path.
    """
    try:
        manifest = json.loads(content)
        schema, checksum = manifest["schema"], manifest.pop("sha256")
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerSchema(
                f"{path} has schema version {schema}, and this nin reads up to {SCHEMA}: "
                "update nin, or name another store."
            )
        found = hashlib.sha256(_canonical(manifest)).hexdigest()
        described = isinstance(manifest["table"]["sha256"], str) and isinstance(manifest["table"]["bytes"], int)
    except NewerSchema:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedRun(f"{path} is damaged: it is not a manifest.") from None
    if found != checksum:
        raise DamagedRun(f"{path} is damaged: its sha256 is not {str(checksum)[:64]}.")
    if manifest.get("key") != key or not described:
        raise DamagedRun(f"{path} is damaged: it is not the manifest of the run {key}.")
    return manifest


def _canonical(value: Mapping[str, Any], *, allow_nan: bool = True) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan).encode()

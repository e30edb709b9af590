"""Small JSON files that remember what was found out about this machine, with what each finding depends on.

A remembered finding is used only while everything that it depended on is as it was; a file that is missing, damaged
or of another form counts as nothing known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from trio_sandbox.files import publish_bytes

FACTS_MAX = 64 << 10
"""Bytes of one file that are read at most."""


def recall(path: Path, depends_on: Mapping[str, object]) -> dict[str, object] | None:
    """The finding in `path`, if it was made under exactly these circumstances; None otherwise."""
    try:
        with path.open("rb") as file:
            remembered = json.loads(file.read(FACTS_MAX))
        if remembered["depends_on"] != json.loads(json.dumps(depends_on)):
            return None
        finding = remembered["finding"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return finding if isinstance(finding, dict) else None


def remember(path: Path, depends_on: Mapping[str, object], finding: Mapping[str, object]) -> None:
    """Write the finding, replacing an older one in one step. Raises StorageError."""
    publish_bytes(path, json.dumps({"depends_on": depends_on, "finding": finding}, indent=1).encode())


def identity(path: Path) -> list[object]:
    """What tells one state of a file from another without reading it: path, size, time of change. Raises OSError."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]

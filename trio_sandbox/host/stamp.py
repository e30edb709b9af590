"""Remember that set-up finished, so that the next one can be skipped in milliseconds.

Rules of this file: the standard library only and nothing from this package, because `scripts/bootstrap.py` loads it
by its path. A stamp lists the files that set-up made or found, each with its size and time of change, and the facts
about the machine that its results depend on. It holds while all of them are as they were; it is a shortcut, never the
proof that a boot relies on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

VERSION = 1

NAME = "setup.json"

ENVIRONMENT = ("TRIO_SANDBOX_KERNEL", "TRIO_SANDBOX_MODULES")
"""Variables that change what set-up would find."""


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder, as `trio_sandbox.home.Home.default()` finds it."""
    return Path(environ.get("TRIO_SANDBOX_HOME") or "~/.trio-sandbox").expanduser().absolute()


def stamp_path(home: Path) -> Path:
    """Where the stamp is in the data folder `home`."""
    return home / "host" / NAME


def facts(environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """What is true of this machine and process now."""
    host = os.uname()
    return {
        "version": VERSION,
        "host": [host.release, host.version, host.machine],
        "kvm": os.access("/dev/kvm", os.R_OK | os.W_OK),
        "environment": {name: environ.get(name, "") for name in ENVIRONMENT},
    }


def fingerprint(path: str) -> list[int] | None:
    """Size and time of change of what is at `path`; None when nothing is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def make(paths: Iterable[str | os.PathLike[str]]) -> bytes:
    """The bytes of a stamp over `paths`, to be written to `stamp_path` whole."""
    files = {os.fspath(path): fingerprint(os.fspath(path)) for path in paths}
    return json.dumps({"facts": facts(), "files": files}, indent=1).encode()


def holds(home: Path) -> bool:
    """Whether set-up finished in `home` and nothing that it depends on has changed since. Never raises."""
    try:
        stamp = json.loads(stamp_path(home).read_bytes())
        return (
            bool(stamp["files"])
            and stamp["facts"] == facts()
            and all(seen is not None and fingerprint(path) == seen for path, seen in stamp["files"].items())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False

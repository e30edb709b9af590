"""Where a sandbox keeps what is its own. No I/O but the removal."""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

from trio_sandbox.home import Home
from trio_sandbox.state.store import Store


def folder_of(home: Home, name: str) -> Path:
    """Where a sandbox keeps what is its own. Not made here."""
    return home.folder("sandboxes") / name


def disk_of(home: Home, name: str) -> Path:
    """The writable disk of a sandbox that stays."""
    return folder_of(home, name) / "upper.ext4"


def store_of(home: Home) -> Store:
    """The store, which removes the folder of an ephemeral sandbox whose owner died."""
    return Store.of(home, partial(remove_folder, home))


def remove_folder(home: Home, name: str) -> None:
    """Remove what a sandbox kept. Harmless when it is gone."""
    shutil.rmtree(folder_of(home, name), ignore_errors=True)


def socket_of(home: Home, name: str) -> Path:
    """Where the relay of a sandbox with a process of its own listens: a short name, however long the sandbox's is."""
    return home.run / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.sock"

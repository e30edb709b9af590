"""Where a sandbox keeps what is its own. No I/O but the removal."""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

from trio_sandbox.errors import SandboxNotFoundError, SandboxStillRunningError
from trio_sandbox.home import Home
from trio_sandbox.locks import waited_name
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
    socket_of(home, name).unlink(missing_ok=True)


def is_live(home: Home, name: str) -> bool:
    """Whether there is a sandbox of this name that lives. May wait for the database for a moment."""
    try:
        return store_of(home).get(name).is_live
    except SandboxNotFoundError:
        return False


FORGET_TIMEOUT = 10.0
"""Seconds that a removal waits for a process that has ended its sandbox and is about to end itself."""


def forget(home: Home, name: str, *, missing_ok: bool = False) -> None:
    """Remove a sandbox that does not run, with all that it kept. Blocks: call it in a worker thread.

    Raises SandboxStillRunningError, SandboxNotFoundError, StorageError.
    """
    store = store_of(home)
    try:
        if store.get(name).is_live:
            raise SandboxStillRunningError(name)
    except SandboxNotFoundError:
        if not missing_ok:
            raise
    with waited_name(home, name, FORGET_TIMEOUT):
        remove_folder(home, name)
        store.discard(name)


def socket_of(home: Home, name: str) -> Path:
    """Where the relay of a sandbox with a process of its own listens: a short name, however long the sandbox's is."""
    return home.run / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.sock"

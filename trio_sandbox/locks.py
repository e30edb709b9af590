"""One holder at a time, among tasks and among processes, with nothing left behind.

A lock is one byte of one file in Home.run: an open file description lock (`F_OFD_SETLK`) on the byte that the key
hashes to. The kernel drops it when its holder closes the file or dies, and no file per key piles up. Two keys that
share a byte only wait for each other without need. Sync, for both halves of the package; what waits on Trio is in
`exclusive.py` and `names.py`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trio_sandbox.errors import SandboxStillRunningError
from trio_sandbox.files import storage_errors
from trio_sandbox.home import Home

LOCK_FILE = "locks"
NAME_PAUSE = 0.01
"""Seconds between two tries for a name, whose holder is about to let go of it."""

_FLOCK = struct.Struct("hhqqi4x")


@contextmanager
def held_if_free(home: Home, key: str) -> Iterator[bool]:
    """Hold `key` for the block, or find out at once that somebody else does: the value tells. Raises StorageError."""
    with lock_file(home) as descriptor:
        yield try_lock(descriptor, key)


def name_key(name: str) -> str:
    """The key of a sandbox's name: whoever holds it owns the sandbox of that name."""
    return f"name {name}"


@contextmanager
def waited_name(home: Home, name: str, patience: float) -> Iterator[None]:
    """Hold `name` for the block, waiting for at most `patience` seconds. Blocks. Raises SandboxStillRunningError."""
    until = time.monotonic() + patience
    while True:
        with held_if_free(home, name_key(name)) as held:
            if held:
                yield
                return
        if time.monotonic() > until:
            raise SandboxStillRunningError(name)
        time.sleep(NAME_PAUSE)


@contextmanager
def lock_file(home: Home) -> Iterator[int]:
    """A descriptor of its own of the file that holds all locks. Raises StorageError."""
    path = home.run / LOCK_FILE
    with storage_errors(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, key: str) -> bool:
    """Lock `key` until the descriptor is closed; False when somebody else has it."""
    byte = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True

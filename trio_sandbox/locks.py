"""One holder at a time, among tasks and among processes, with nothing left behind.

A lock is one byte of one file in Home.run: an open file description lock (`F_OFD_SETLK`) on the byte that the key
hashes to. The kernel drops it when its holder closes the file or dies, and no file per key piles up. Two keys that
share a byte only wait for each other without need.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from trio_sandbox.files import storage_errors
from trio_sandbox.home import Home

LOCK_FILE = "locks"
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1
"""Seconds between two tries. The kernel can wake a waiter, but then the waiter cannot be cancelled."""

_FLOCK = struct.Struct("hhqqi4x")


@asynccontextmanager
async def exclusively(home: Home, key: str) -> AsyncIterator[None]:
    """Run the block while nobody else runs one of the same key. Cancellation while waiting leaves nothing held.

    Raises StorageError.
    """
    with _lock_file(home) as descriptor:
        pause = FIRST_PAUSE
        while not _try_lock(descriptor, key):
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        yield


@contextmanager
def held_if_free(home: Home, key: str) -> Iterator[bool]:
    """Hold `key` for the block, or find out at once that somebody else does: the value tells. Raises StorageError."""
    with _lock_file(home) as descriptor:
        yield _try_lock(descriptor, key)


@contextmanager
def _lock_file(home: Home) -> Iterator[int]:
    path = home.run / LOCK_FILE
    with storage_errors(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, key: str) -> bool:
    byte = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True

"""One holder at a time, among tasks and among processes, with nothing left behind.

A lock is one byte of one file in Home.run: an open file description lock (`F_OFD_SETLK`) on the byte that the key
hashes to. The kernel drops it when its holder closes the file or dies, and no file per key piles up. Two keys that
share a byte only wait for each other without need. Sync, for both halves of the package; what waits on Trio is in
`exclusive.py` and `names.py`.
"""

from __future__ import annotations

import errno
import fcntl
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


def try_lock(descriptor: int, key: str, *, shared: bool = False) -> bool:
    """Lock `key` until the descriptor is closed; False when somebody else has it. shared: others may too who say so."""
    import hashlib  # OpenSSL: nothing that only looks at the store needs it

    byte = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    return _try_byte(descriptor, byte, fcntl.F_RDLCK if shared else fcntl.F_WRLCK)


DISK_BYTE = 1 << 62
"""Of a disk image's file: locked by who boots from it. Beyond every file's end, and not one that QEMU locks."""
_QEMU_BYTES, _QEMU_COUNT, _QEMU_WRITERS = 100, 200, 101
"""Bytes that QEMU locks on an image that it has open, and the one that those who write to it lock."""


def lock_disk(descriptor: int, *, shared: bool) -> bool:
    """Lock a disk image as long as the open file lives, in this process and in those that inherit it.

    shared: for one that is only read; others may read it too. False: somebody else has locked it.
    """
    return _try_byte(descriptor, DISK_BYTE, fcntl.F_RDLCK if shared else fcntl.F_WRLCK)


def is_locked_by_vmm(descriptor: int, *, written: bool) -> bool:
    """Whether a QEMU, whoever started it, has the file open; written: only one that writes to it counts."""
    first, count = (_QEMU_WRITERS, 1) if written else (_QEMU_BYTES, _QEMU_COUNT)
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK


def try_byte(descriptor: int, byte: int) -> bool:
    """Lock a byte of an open file, which need not be there, until the descriptor is closed; False when somebody else
    has it.
    """
    return _try_byte(descriptor, byte, fcntl.F_WRLCK)


def unlock_byte(descriptor: int, byte: int) -> None:
    """Let go of a byte before the descriptor is closed."""
    _try_byte(descriptor, byte, fcntl.F_UNLCK)


def is_byte_locked(descriptor: int, byte: int) -> bool:
    """Whether somebody else has locked this byte."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK


def _try_byte(descriptor: int, byte: int, kind: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True

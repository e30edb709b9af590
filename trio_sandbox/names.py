"""A sandbox's name belongs to one sandbox at a time, across processes, without leaving a file for each.

The name is a lock on one byte of a file that is always there, at an offset made from the name. The kernel drops the
lock with the
descriptor, so a process that is killed holds no name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from trio_sandbox.errors import SandboxAlreadyExistsError
from trio_sandbox.files import storage_errors
from trio_sandbox.home import Home


@contextmanager
def reserved_name(home: Home, name: str) -> Iterator[None]:
    """Hold `name` in `home` for the block. Raises SandboxAlreadyExistsError, StorageError."""
    folder = home.run
    with storage_errors(folder):
        descriptor = os.open(folder / "names.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        offset = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 2
        # struct flock: type, whence, start, len, pid, as the C library lays it out on 64-bit Linux.
        wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):
            raise SandboxAlreadyExistsError(name) from None
        yield
    finally:
        os.close(descriptor)

"""The bytes of a sparse file: which there are, and what they hash to. Sync.

A file is a row of granules. One of zeros is not told from a hole: it is neither hashed nor stored in an archive. So a
digest does not change with the file system that a snapshot is copied to, and holes cost nothing.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator

GRANULE = 64 << 10
"""Bytes."""
_ZEROS = bytes(GRANULE)
_SIZE, _INDEX = struct.Struct(">8sQ"), struct.Struct(">Q")
_MAGIC = b"tsnap-01"

Proceed = Callable[[], object]
"""Called between pieces of long work; it raises when the work is called off."""


def on() -> None:
    """Nobody calls it off."""


def granules(descriptor: int, proceed: Proceed = on) -> Iterator[tuple[int, bytes]]:
    """The number and the bytes of each granule that is not all zeros. Only the last may be short."""
    size = os.fstat(descriptor).st_size
    for start, end in _data_ranges(descriptor, size):
        for index in range(start // GRANULE, -(-end // GRANULE)):
            proceed()
            data = read_exactly(descriptor, min(GRANULE, size - index * GRANULE), index * GRANULE)
            if data != _ZEROS[: len(data)]:
                yield index, data


def digest_of(descriptor: int, proceed: Proceed = on) -> str:
    """`sha256:…` of the file's size and of its granules with their numbers."""
    hasher = hashlib.sha256(_SIZE.pack(_MAGIC, os.fstat(descriptor).st_size))
    for index, data in granules(descriptor, proceed):
        hasher.update(_INDEX.pack(index))
        hasher.update(data)
    return f"sha256:{hasher.hexdigest()}"


def _data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where data may be, in whole granules, ascending, none twice."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole from here on
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        start, end = max(start // GRANULE * GRANULE, offset), min(-(-end // GRANULE) * GRANULE, size)
        yield start, end
        offset = end


def read_exactly(descriptor: int, amount: int, offset: int) -> bytes:
    """Raises OSError when the file was cut meanwhile."""
    data = os.pread(descriptor, amount, offset)
    while len(data) < amount:
        more = os.pread(descriptor, amount - len(data), offset + len(data))
        if not more:
            raise OSError(5, "the file was cut while it was read")
        data += more
    return data

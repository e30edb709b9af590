"""One log file and those it was set aside as, open: the newest last. Sync.

Files only ever move towards older numbers, and we open them from the newest on: so one that moves meanwhile may be met
twice, which its inode tells, and is never missed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import attrs

from trio_sandbox.logs.entry import decode_after

SET_ASIDE = 64
"""Files that are looked for. There are gaps in their numbers only while they move."""
Identity = tuple[int, int]


@attrs.frozen(eq=False)
class Part:
    """One of the files."""

    file: BinaryIO
    identity: Identity

    @property
    def descriptor(self) -> int:
        return self.file.fileno()

    @property
    def size(self) -> int:
        """Bytes that are in it now."""
        return os.fstat(self.descriptor).st_size

    @property
    def after(self) -> int:
        """The time of the last entry in the file before it, in microseconds; 0 where that is not known."""
        line = os.pread(self.descriptor, 128, 0).partition(b"\n")[0]
        return decode_after(line) or 0

    def close(self) -> None:
        self.file.close()


def open_parts(folder: Path, name: str, *, down_to: Identity | None = None) -> list[Part]:
    """The files that are there, oldest first. down_to: only those that are newer than this one, if it is there."""
    parts: dict[Identity, Part] = {}
    missing = 0
    for number in range(SET_ASIDE):
        try:
            file = open(folder / (f"{name}.{number}" if number else name), "rb", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            missing += 1
            if missing > 1:  # one is a file that moves at this moment
                break
            continue
        found = os.fstat(file.fileno())
        identity = (found.st_dev, found.st_ino)
        if identity == down_to:
            file.close()
            break
        if identity in parts:
            file.close()
        else:
            parts[identity] = Part(file, identity)
    return list(reversed(parts.values()))


def is_newest(folder: Path, name: str, identity: Identity) -> bool:
    """Whether the file that is written now is still this one."""
    try:
        found = os.stat(folder / name)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == identity

"""What the simulated file system is made of: inodes, and who may do what with them."""

from __future__ import annotations

import errno
import os

import attrs

from trio_sandbox.client.fs_types import FOLDER, REGULAR, SYMLINK, TYPE_BITS
from trio_sandbox.relay.messages import (
    FileStatus,
)

DEVICE = 1
READ, WRITE, ENTER = 4, 2, 1


class FileError(Exception):
    """What a system call of the guest says. path: of the file that it is about."""

    def __init__(self, number: int, path: bytes = b"") -> None:
        self.errno, self.path = number, path
        super().__init__(os.strerror(number))


@attrs.define(eq=False)
class Inode:
    """A file, folder or symbolic link. `mode` with its type bits; times in nanoseconds since the epoch."""

    number: int
    mode: int
    uid: int
    gid: int
    born: int
    content: bytearray = attrs.Factory(bytearray)
    entries: dict[bytes, Inode] = attrs.Factory(dict)
    target: bytes = b""
    accessed: int = 0
    modified: int = 0
    changed: int = 0

    def __attrs_post_init__(self) -> None:
        self.accessed = self.modified = self.changed = self.born

    @property
    def kind(self) -> int:
        """REGULAR, FOLDER or SYMLINK."""
        return self.mode & TYPE_BITS

    @property
    def is_folder(self) -> bool:
        return self.kind == FOLDER

    @property
    def is_link(self) -> bool:
        return self.kind == SYMLINK

    @property
    def size(self) -> int:
        return len(self.content) if self.kind == REGULAR else len(self.target)

    @property
    def status(self) -> FileStatus:
        """As statx(2) tells it."""
        folders = sum(entry.is_folder for entry in self.entries.values())
        return FileStatus(
            mode=self.mode,
            size=self.size,
            uid=self.uid,
            gid=self.gid,
            nlink=2 + folders if self.is_folder else 1,
            ino=self.number,
            dev=DEVICE,
            rdev=0,
            atime_ns=self.accessed,
            mtime_ns=self.modified,
            ctime_ns=self.changed,
            birth_ns=self.born,
        )

    def allows(self, wish: int, uid: int, gid: int) -> bool:
        """Whether a user may READ, WRITE or ENTER; root may, but execute only what somebody may execute."""
        if uid == 0:
            return wish != ENTER or self.is_folder or bool(self.mode & 0o111)
        shift = 6 if uid == self.uid else 3 if gid == self.gid else 0
        return self.mode >> shift & wish == wish

    def require(self, wish: int, uid: int, gid: int, path: bytes = b"") -> None:
        """Raises FileError (EACCES)."""
        if not self.allows(wish, uid, gid):
            raise FileError(errno.EACCES, path)
